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
    assert last_line(capsys) == (
        f"Checked without a leak: bytes and near-duplicate pixels of all {NUM} images. Not checked: lesions and "
        "patients (no column is known to name them; data.group names one). Continue with raysk tune --space supcon "
        f"data=csv data.path={table}"
    )
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
    assert last_line(capsys).endswith(f"raysk tune --space supcon data=parquet data.path={joined}")
    assert len(rows.read_text().splitlines()) == 3
    groups = pq.read_table(joined).column("group").to_pylist()
    assert groups[3] == groups[9] and len(set(groups)) == NUM - 1
    assert run("data=csv", f"data.path={joined}") == 0


def test_the_advice_on_leaks_works_as_it_is_typed(
    table: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its command joins the table, and its overrides read the result with all other settings."""
    monkeypatch.chdir(table.parent)
    (table.parent / "09.png").write_bytes((table.parent / "03.png").read_bytes())
    (table.parent / "11.png").write_bytes(b"")
    table.write_text(table.read_text().replace("label", "dx").replace("nv", "NV"))
    words = ["data=csv", "data.path=table.csv", "data.label=dx", "data.classes_map={NV: nv, mel: mel}", "folds.k=3"]
    assert run(*words, "data.classes=[nv,mel]", "data.on_error=skip", "data.bits=12") == 1
    advice = last_line(capsys)
    command, overrides = advice.partition(" with raysk data audit ")[2].split(", and use ")
    assert shlex.split(overrides) == [
        "data=parquet", "data.path=joined.parquet", "folds.k=3", "data.classes=[nv,mel]", "data.on_error=skip",
        "data.bits=12",
    ]  # fmt: skip
    assert run(*shlex.split(command)) == 1
    assert shlex.split(last_line(capsys).partition("--space supcon ")[2]) == shlex.split(overrides)
    assert run(*shlex.split(overrides)) == 0
    output = capsys.readouterr().out
    assert "gives the label away" not in output and "data.bits=12" not in output.splitlines()[0]


def test_pairs_are_drawn_on_several_sheets_leaks_first(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = table.parent
    for row in range(26):
        (folder / f"{row:02}b.png").write_bytes((folder / f"{row:02}.png").read_bytes())
    groups = [f"g{row}" for row in range(25)] + ["a", "b"]
    lines = [f"{row:02}.png,nv,{groups[row]}" for row in range(26)]
    lines += [f"{row:02}b.png,nv,{groups[row] if row < 25 else 'b'}" for row in range(26)]
    table.write_text("\n".join(["image,label,group", *lines, *(f"{row}.png,mel,m{row}" for row in range(26, 48))]))
    assert run("data=csv", f"data.path={table}", "--pairs", str(folder / "pairs.png")) == 1
    output = capsys.readouterr().out
    names = f"{folder / 'pairs.png'}, {folder / 'pairs-2.png'}"
    assert f"duplicates: 26 pairs, of which 1 leaks: {names}\n" in output
    with Image.open(folder / "pairs.png") as sheet, Image.open(folder / "25.png") as leak:
        shown = np.asarray(sheet.convert("RGB"))[34 : 34 + 160, 8 : 8 + 160].astype(int)
        assert np.abs(shown - np.asarray(leak.resize((160, 160), Image.Resampling.BICUBIC))).mean() < 2


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
    assert left_out == f"left out of {joined}: 1 train_only row whose groups have rows of other roles"
    assert advice.endswith(f"Continue with raysk tune --space supcon data=parquet 'data.path={joined}'")
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
    assert last_line(capsys) == (
        "Checked without a leak: image names; bytes and near-duplicate pixels of all 48 images. Not checked: lesions "
        "and patients (no column; --metadata FILE gives them)."
    )


def with_lesions(table: Path) -> list[str]:
    """Adds lesions of two images and patients of four to the table; returns its lines."""
    header, *rows = table.read_text().splitlines()
    lines = [f"{header},lesion_id,PatientNo", *(f"{row},L{n // 2},{n // 4}" for n, row in enumerate(rows))]
    table.write_text("\n".join(lines) + "\n")
    return lines


def test_the_last_sentence_names_the_columns_that_were_checked(
    table: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with_lesions(table)
    assert run("data=csv", f"data.path={table}") == 0
    assert "table.csv: groups: lesion_id + PatientNo (data.group=none to refuse)" in caplog.text
    groups = "lesions and patients by lesion_id + PatientNo"
    checked = f"Checked without a leak: {groups}; bytes and near-duplicate pixels of all {NUM} images. Continue with "
    assert last_line(capsys).startswith(checked)
    run("data=csv", f"data.path={table}", "data.group=lesion_id")
    line = last_line(capsys)
    assert line.startswith("Checked without a leak: lesions by lesion_id; bytes")
    assert "Not checked: PatientNo (folds would cut 12 values of it). Continue" in line
    run("data=csv", f"data.path={table}", "data.group=none")
    unknown = "lesion_id (folds would cut 24 values of it); PatientNo (folds would cut 12 values of it)"
    assert f"images. Not checked: {unknown}. Continue" in last_line(capsys)


def test_patients_count_as_checked_where_groups_do_not_cut_them(
    table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_lesions(table)
    run("data=csv", f"data.path={table}", "data.group=PatientNo")
    assert "Not checked" not in last_line(capsys)


def test_rows_without_a_lesion_are_counted(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [line.replace(",L3,", ",unknown,") for line in with_lesions(table)]
    table.write_text("\n".join(line.rpartition(",")[0] for line in lines))
    assert run("data=csv", f"data.path={table}") == 0
    line = last_line(capsys)
    assert "leak: lesions by lesion_id (46 of 48 rows); bytes" in line and "Not checked: patients (no column)." in line


def test_each_of_several_collections_states_its_groups(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = table.parent / "other"
    other.mkdir()
    random = np.random.default_rng(1)
    for row in range(4):
        rough = Image.fromarray(random.integers(0, 256, (12, 12, 3), dtype=np.uint8))
        rough.resize((64, 64), Image.Resampling.BICUBIC).save(other / f"o{row}.png")
    (other / "o.csv").write_text("image,label\no0.png,nv\no1.png,mel\no2.png,nv\no3.png,mel\n")
    with_lesions(table)
    paths = [f"data.a.path={table}", f"data.b.path={other / 'o.csv'}"]
    run("data=[a:csv,b:csv]", *paths)
    line = last_line(capsys)
    assert "lesions and patients by lesion_id + PatientNo of a/table.csv; bytes" in line
    assert (
        "Not checked: lesions and patients of b/o.csv (no column is known to name them; data.b.group names one)" in line
    )
    # A folder has no column that a setting could name.
    for label in ("nv", "mel"):
        (other / "classes" / label).mkdir(parents=True)
        (other / f"o{label == 'mel':d}.png").rename(other / "classes" / label / "0.png")
    run("data=folder", f"data.path={other / 'classes'}")
    assert "Not checked: lesions and patients (no column is known to name them)" in last_line(capsys)


def test_lists_with_lesions_of_their_own_leak_without_metadata(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    header, *rows = with_lesions(table)
    (table.parent / "train.csv").write_text("\n".join([header, *rows[:21]]))
    (table.parent / "test.csv").write_text("\n".join([header.replace("lesion_id", "Lesion ID"), *rows[21:]]))
    split = [f"{part}={table.parent / part}.csv" for part in ("train", "test")]
    assert run("--split", *split) == 1
    output = capsys.readouterr().out
    assert "the same lesion_id in two parts: 2 rows in 1 case" in output
    assert "the same PatientNo in two parts: 4 rows in 1 case" in output
    (table.parent / "train.csv").write_text("\n".join([header, *rows[:20]]))
    (table.parent / "test.csv").write_text(
        "\n".join(["image,label,lesion_id", *(r.rpartition(",")[0] for r in rows[20:])])
    )
    assert run("--split", *split) == 0
    assert last_line(capsys) == (
        "Checked without a leak: image names; lesions by lesion_id; bytes and near-duplicate pixels of all 48 images. "
        "Not checked: PatientNo (only train has values)."
    )


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


@pytest.mark.parametrize(
    ("columns", "words", "checked", "unchecked"),
    [
        ({"group": "g{n}"}, [], None, "group (no two rows share a value). "),
        ({"lesion": "L{n}"}, ["data.group=lesion"], None, "lesion (no two rows share a value); patients (no column)"),
        ({"lesion_id": "L{half}", "patient_id": "P{n}"}, [], "lesions by lesion_id", "patient_id (no two rows share"),
        ({"patient_id": "P{n}"}, [], None, "patient_id (no two rows share a value). "),
        ({"MRN": "{half}"}, [], None, "lesions and patients (no column is known to name them; data.group names one)"),
        ({"lesion": "{label}"}, [], None, "lesions and patients (no column is known to name them"),
        (
            {"patient": "{case}{quarter}"},
            [],
            "patients by patient",
            "groups whose names differ only in case or spaces (24",
        ),
    ],
)
def test_the_last_sentence_is_exact(
    table: Path, capsys: pytest.CaptureFixture[str], columns: dict[str, str], words: list[str], checked: str | None,
    unchecked: str,
) -> None:  # fmt: skip
    header, *rows = table.read_text().splitlines()
    lines = [",".join([header, *columns])]
    for n, row in enumerate(rows):
        facts = {"n": n, "half": n // 2, "quarter": n // 4, "label": row.split(",")[1], "case": "Pp"[n % 2]}
        lines.append(",".join([row, *(value.format(**facts) for value in columns.values())]))
    table.write_text("\n".join(lines))
    assert run("data=csv", f"data.path={table}", *words) == 0
    line = last_line(capsys)
    said, _, unsaid = line.partition("Not checked: ")
    assert unsaid.startswith(unchecked)
    assert (
        said
        == f"Checked without a leak: {f'{checked}; ' * bool(checked)}bytes and near-duplicate pixels of all 48 images. "
    )


def test_a_copy_of_the_label_gives_nothing_away(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    header, *rows = table.read_text().splitlines()
    table.write_text("\n".join([f"{header},dx,kind", *(f"{r},{r.split(',')[1].upper()},k{r[-1]}" for r in rows)]))
    assert run("data=csv", f"data.path={table}") == 0
    output = capsys.readouterr().out
    assert "kind gives the label away" in output and "dx gives the label away" not in output


def test_errors_in_the_rows_are_not_answered_with_the_setting_for_files(
    table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table.write_text(
        "\n".join(
            [f"{table.read_text().splitlines()[0]},group", *(f"{n:02}.png,{'ab'[n % 2]},g{n % 2}" for n in range(48))]
        )
    )
    assert run("data=csv", f"data.path={table}") == 0
    assert last_line(capsys).endswith("But there are errors: correct the rows that --out FILE lists.")
