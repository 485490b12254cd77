import argparse
import shlex
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from raysk.cli.audit import add_audit
from raysk.errors import ConfigError, DataError

NUM = 48


def run(*texts: str) -> int:
    parser = argparse.ArgumentParser()
    add_audit(parser.add_subparsers(required=True))
    arguments = parser.parse_args(["audit", *texts])
    status: int = arguments.run_command(arguments)
    return status


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A collection of 48 photographs of noise in two classes, each its own group."""
    random = np.random.default_rng(0)
    lines = ["image,label"]
    for row in range(NUM):
        rough = Image.fromarray(random.integers(0, 256, (12, 12, 3), dtype=np.uint8))
        rough.resize((64, 64), Image.Resampling.BICUBIC).save(tmp_path / f"{row:02}.png")
        lines.append(f"{row:02}.png,{'nv' if row % 2 else 'mel'}")
    (tmp_path / "table.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "table.csv"


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out.strip().splitlines()[-1]


def test_nothing_leaks_in_a_clean_collection(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("data=csv", f"data.path={table}") == 0
    assert last_line(capsys) == f"Nothing leaks: continue with raysk tune --space supcon data=csv data.path={table}"
    assert run("data=csv", f"data.path={table}", "--pairs", str(table.parent / "pairs.png")) == 0
    assert "duplicates: none, so nothing is drawn" in capsys.readouterr().out
    assert not (table.parent / "pairs.png").exists()


def test_duplicates_leak_until_they_are_joined(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Image.open(table.parent / "03.png") as image:
        image.transpose(Image.Transpose.ROTATE_90).save(table.parent / "09.png")
    assert run("data=csv", f"data.path={table}") == 1
    output = capsys.readouterr().out
    assert "leak  the same picture in two groups: 2 rows in 1 case" in output
    assert "03.png (nv) and 09.png (nv)" in output and "--join joined.parquet" in output
    joined, rows, pairs = (table.parent / name for name in ("joined.parquet", "rows.csv", "pairs.PNG"))
    words = ["--join", str(joined), "--out", str(rows), "--pairs", str(pairs)]
    assert run("data=csv", f"data.path={table}", *words) == 1
    with Image.open(pairs) as sheet:
        assert sheet.format == "PNG" and sheet.width > 2 * 160, "a pair is two images wide"
    assert f"data=csv data.path={joined}" in last_line(capsys)
    assert len(rows.read_text().splitlines()) == 3
    groups = pq.read_table(joined).column("group").to_pylist()
    assert groups[3] == groups[9] and len(set(groups)) == NUM - 1
    assert run("data=csv", f"data.path={joined}") == 0


def test_joining_leaves_out_train_only_rows_of_scored_groups(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (table.parent / "03.png").write_bytes((table.parent / "45.png").read_bytes())
    header, *rows = table.read_text().splitlines()
    roles = [f"{row},{'train_only' if number > 39 else ''}" for number, row in enumerate(rows)]
    table.write_text("\n".join([f"{header},role", *roles]))
    assert run("data=csv", f"data.path={table}") == 1
    advice = last_line(capsys)
    assert advice.startswith("Folds of this collection would leak: join its duplicates and leave out the train_only")
    joined = table.parent / "my joined.parquet"
    assert run("data=csv", f"data.path={table}", "--join", str(joined)) == 1
    *_, left_out, advice = capsys.readouterr().out.strip().splitlines()
    assert left_out == f"left out of {joined}: 1 train_only rows whose groups have rows of other roles"
    assert advice.endswith(f"but folds of the joined table do not: data=csv 'data.path={joined}'")
    assert run("data=csv", f"data.path='{joined}'") == 0
    table.write_text(table.read_text().replace("03.png,nv,", "03.png,nv,test"))
    assert run("data=csv", f"data.path={table}") == 1
    assert last_line(capsys).startswith("Do not trust scores on this collection's test part")


def test_names_that_look_like_markup_are_printed_unchanged(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = table.read_text().replace("nv", "[/x]").replace("mel", "[mel]").splitlines()[1:]
    lists = [table.parent / name for name in ("train.csv", "test.csv")]
    for path, part in zip(lists, (rows[:40], rows[38:]), strict=True):
        path.write_text("\n".join(["image,label", *part]))
    assert run("--split", f"[/t]={lists[0]}", f"[v]={lists[1]}") == 1
    output = capsys.readouterr().out
    lines = [line.replace("│", " ").split() for line in output.splitlines()]
    assert ["[/x]", "20", "5", "1", "(20.0%)"] in lines and ["[mel]", "20", "5", "1", "(20.0%)"] in lines
    assert "[/t]" in output and "of [v]: the same image in two parts" in output


def test_overrides_are_quoted_for_a_shell(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["data=csv", f"data.path='{table}'", "data.classes_map={nv: nevus, mel: mel}"]
    assert run(*words) == 0
    assert shlex.split(last_line(capsys))[-3:] == words


def test_rows_without_metadata_are_counted(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for part, names in {"train": "0 1", "test": "2 3", "meta": "1 2 3"}.items():
        (table.parent / part).write_text("\n".join(["image", *(f"0{name}.png" for name in names.split())]))
    split = [f"{part}={table.parent / part}" for part in ("train", "test")]
    assert run("--split", *split, "--metadata", str(table.parent / "meta"), "--images", str(table.parent)) == 0
    output = capsys.readouterr().out
    assert "--metadata matched 3 of 4 rows\n" in output and "--images matched" not in output


def test_bad_files_are_reported_but_do_not_leak(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (table.parent / "05.png").write_bytes(b"")
    assert run("data=csv", f"data.path={table}") == 0
    output = capsys.readouterr().out
    assert "error a file that cannot be read: 1 row; for example 05.png (nv: the file is empty)" in output
    assert "data.on_error=skip" in output.strip().splitlines()[-1]


def test_leaking_rows_are_counted_by_class(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = table.read_text().splitlines()[1:]
    (table.parent / "train.csv").write_text("image,label\n" + "\n".join(lines[:40]))
    (table.parent / "test.csv").write_text("image;label\n" + "\n".join(lines[36:]).replace(",", ";"))
    split = [f"{part}={table.parent / part}.csv" for part in ("test", "train")]
    assert run("--split", *split) == 1
    output = capsys.readouterr().out
    assert "the same image in two parts: 8 rows in 4 cases" in output
    assert "4 (33.3%)" in output and output.count("2 (33.3%)") == 2
    assert "4 of its rows leak" in output.strip().splitlines()[-1]
    (table.parent / "test.csv").write_text("image,label\n" + "\n".join(lines[40:]))
    assert run("--split", *split) == 0
    assert last_line(capsys).startswith("Nothing leaks: scores on this split can be trusted")


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "either a collection or a split, but got neither"),
        (["data=csv", "--split", "train=a", "test=b"], "but got both"),
        (["--split", "train=a"], "two parts or more, but got train"),
        (["--split", "a.csv", "test=b"], "PART=FILE, each part once, but got 'a.csv'"),
        (["--split", "train=a", "train=b"], "each part once"),
        (["--split", "train=a", "test=b", "--join", "j.parquet"], "--join must have a collection"),
        (["data=synthetic", "--images", "x"], "--images and --metadata must have a split"),
        (["data=synthetic", "--join", "j.csv"], "--join must be a Parquet file, but got j.csv"),
        (["data=synthetic", "--pairs", "p.jpg"], "--pairs must be a PNG file, but got p.jpg"),
    ],
)
def test_an_invalid_request_is_refused(texts: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run(*texts)


def test_a_missing_list_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train\.csv must be a list"):
        run("--split", f"train={tmp_path}/train.csv", f"test={tmp_path}/test.csv")
