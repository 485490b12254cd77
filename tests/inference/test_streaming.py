"""`raysk predict`: the digits of the board, bounded memory, resumption without repetition, and what it cannot read."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import raysk
from raysk.evaluation.ensemble import GREEDY
from raysk.inference import predictor, streaming
from raysk.inference.images import read_ahead
from raysk.inference.parts import Parts
from tests.command_line import refused, said

ROOT = Path(__file__).parents[2]


def hidden(folder):
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


@pytest.fixture
def short(monkeypatch):
    """Batches, and so parts, of 16 images."""
    monkeypatch.setattr(predictor, "_MOST_IMAGES", 16)


@pytest.fixture
def decoded(monkeypatch):
    """The paths that were read."""
    paths = []
    monkeypatch.setattr(streaming, "read_ahead", lambda images, *rest: read_ahead(map(noted(paths), images), *rest))
    return paths


def noted(paths):
    return lambda path: paths.append(path) or path


@pytest.fixture(scope="session")
def drawn(cache):
    """The folder of the 110 drawn images."""
    return cache / "drawn" / "images"


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_it_predicts_the_test_part_as_the_board_does(finished_run, bundle_file, suffix, tmp_path, capfd, short):
    expected = raysk.open_run(finished_run.folder).test_part(GREEDY)
    table = finished_run.manifest.root / f"rows-{suffix}.csv"
    expected[["image"]].to_csv(table, index=False)
    output = tmp_path / f"out.{suffix}"
    assert f"{output}: {len(expected)} images by {GREEDY}\n" in said(
        ["predict", bundle_file, table, "--output", output, "--device", "cpu"], capfd
    )
    result = pd.read_csv(output) if suffix == "csv" else pd.read_parquet(output)
    names = list(finished_run.manifest.class_names)
    assert result.columns.tolist() == ["image", "label", "disagreement", *names]
    assert result["image"].tolist() == expected["image"].tolist()
    np.testing.assert_allclose(result[names], expected[names], atol=1e-6, rtol=0)
    assert result["label"].tolist() == result[names].idxmax(axis=1).tolist()
    assert result["disagreement"].between(0, 1).all()
    assert hidden(tmp_path) == []


def test_a_run_predicts_as_its_file(finished_run, bundle_file, drawn, tmp_path, capfd):
    for number, model in enumerate((finished_run.folder, bundle_file)):
        said(["predict", model, drawn, "--output", tmp_path / f"{number}.csv"], capfd)
    assert (tmp_path / "0.csv").read_text() == (tmp_path / "1.csv").read_text()
    said(["predict", finished_run.folder, "--row", "linear", drawn, "--output", tmp_path / "linear.csv"], capfd)
    assert (tmp_path / "linear.csv").read_text() != (tmp_path / "0.csv").read_text()


def test_images_may_stand_on_both_sides_of_an_option(bundle_file, drawn, tmp_path, capfd):
    first, second = sorted(drawn.iterdir())[:2]
    said(["predict", bundle_file, second, "--output", tmp_path / "out.csv", first, second], capfd)
    assert pd.read_csv(tmp_path / "out.csv")["image"].tolist() == [str(second), str(first), str(second)]


def test_a_command_that_was_killed_continues_where_it_stopped(bundle_file, drawn, tmp_path, capfd, short, decoded):
    output = tmp_path / "out.csv"
    words = ["predict", str(bundle_file), str(drawn), "--output", str(output), "--device", "cpu"]
    script = f"""
import os, signal
from raysk.cli.main import main
from raysk.inference import parts, predictor
predictor._MOST_IMAGES = 16
write = parts.Parts.write
def dying(self, number, *result):
    write(self, number, *result)
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
parts.Parts.write = dying
main({words!r})
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL
    assert not output.exists()
    assert len(hidden(tmp_path)) == 2, "the parts, and the lock of the dead process"
    said(words, capfd)
    everything = [str(path) for path in sorted(drawn.iterdir())]
    assert decoded == everything[48:], "finished parts are not repeated, and no image is read twice"
    assert pd.read_csv(output)["image"].tolist() == everything
    assert hidden(tmp_path) == []
    said(["predict", bundle_file, drawn, "--output", tmp_path / "at-once.csv", "--device", "cpu"], capfd)
    assert output.read_text() == (tmp_path / "at-once.csv").read_text()


def test_ctrl_c_says_how_to_continue(bundle_file, drawn, tmp_path, capfd, short, decoded, monkeypatch):
    output, write = tmp_path / "out.csv", Parts.write

    def interrupted(self, number, *result):
        if number == 3:
            raise KeyboardInterrupt
        write(self, number, *result)

    words = ["predict", bundle_file, drawn, "--output", output]
    monkeypatch.setattr(Parts, "write", interrupted)
    assert "run the same command again to continue" in said(words, capfd, status=130)
    assert not output.exists()
    assert len(decoded) <= 4 * 16 + 2 * 16 + 1, "only a few batches are decoded ahead"
    monkeypatch.setattr(Parts, "write", write)
    decoded.clear()
    said(words, capfd)
    assert len(decoded) == len(list(drawn.iterdir())) - 48


def test_changed_images_begin_anew_and_old_parts_are_removed(bundle_file, drawn, tmp_path, capfd, short, monkeypatch):
    folder = tmp_path / "photographs"
    folder.mkdir()
    for path in sorted(drawn.iterdir())[:20]:
        (folder / path.name).write_bytes(path.read_bytes())
    words = ["predict", bundle_file, folder, "--output", tmp_path / "out.csv"]
    with monkeypatch.context() as patch:
        patch.setattr(streaming, "closing", lambda generator: (_ for _ in ()).throw(KeyboardInterrupt))
        said(words, capfd, status=130)
    (tmp_path / ".out.csv.parts-0123").mkdir()
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(folder / path.name)
    said(words, capfd)
    result = pd.read_csv(tmp_path / "out.csv").set_index("image")
    black = raysk.load(bundle_file).predict_proba([np.zeros((40, 40, 3), np.uint8)])[0]
    np.testing.assert_allclose(result.loc[str(folder / path.name)].iloc[2:].astype(float), black, atol=1e-6)
    assert hidden(tmp_path) == []


def test_a_command_that_was_killed_after_writing_its_result_ends_well(bundle_file, drawn, tmp_path, capfd, monkeypatch):
    words = ["predict", bundle_file, drawn, "gone.png", "--output", tmp_path / "out.csv"]
    with monkeypatch.context() as patch:
        patch.setattr("raysk.inference.parts.Parts._remove", lambda parts: None)
        said(words, capfd)
    before = (tmp_path / "out.csv").read_text()
    said(words, capfd)
    assert (tmp_path / "out.csv").read_text() == before
    assert hidden(tmp_path) == []


def test_unreadable_images_are_listed_with_the_reason(bundle_file, drawn, tmp_path, capfd, short):
    (tmp_path / "broken.png").write_bytes(sorted(drawn.iterdir())[0].read_bytes()[:200])
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "table.csv").write_text("image\ngone.png\n")
    os.mkfifo(tmp_path / "pipe.png")
    names = ["x" * 5000 + ".png", "a\0b.png"]
    sources = [tmp_path / name for name in ("broken.png", "text.jpg", "pipe.png", "table.csv")]
    output = tmp_path / "out.csv"
    line = said(["predict", bundle_file, *sources, *names, drawn, "--output", output], capfd)
    assert f"{output}: 110 images by {GREEDY}; 6 cannot be read: {tmp_path / 'out-unreadable.csv'}" in line
    listed = pd.read_csv(tmp_path / "out-unreadable.csv")
    assert listed["image"].tolist() == [*map(str, sources[:3]), "gone.png", *names]
    assert listed["reason"].str.contains("Error|File name too long|null byte").all()
    assert len(pd.read_csv(output)) == 110


def test_without_a_readable_image_nothing_is_left_behind(bundle_file, tmp_path, capfd):
    line = refused(["predict", bundle_file, "gone.png", "--output", tmp_path / "out.csv"], capfd)
    assert "an image must be readable, but none of 1 is, first gone.png (FileNotFoundError" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("existing", ["out.csv", "out-unreadable.csv"])
def test_a_file_is_not_replaced(bundle_file, drawn, existing, tmp_path, capfd):
    (tmp_path / existing).write_text("mine")
    line = refused(["predict", bundle_file, drawn, "--output", tmp_path / "out.csv"], capfd)
    assert f"--output must be a new file, but {tmp_path / existing} exists" in line
    assert (tmp_path / existing).read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--output", "out.txt"], "--output must end in .csv or .parquet, but got out.txt: name it out.csv"),
        (["--output", "out"], "--output must end in .csv or .parquet"),
        (["--output", "out.csv", "--device", "gpu"], "device must be one of this machine"),
        (["--output", "out.csv", "--device", "cuda:99"], "device must be one of this machine"),
        (["--output", "out.csv", "--device", "meta"], "device must be one of this machine"),
        (["--output", "out.csv", "--row", "1"], "a row must be chosen when the bundle is made, but got --row 1"),
        (["--output", "out.csv", "--refitted"], "but got --refitted"),
        (["--output", "out.csv", "--column", "image"], "--column must name a column of a table"),
        (["--output", "file/out.csv"], "file/out.csv|file/.out.csv.lock must be writable"),
    ],
)
def test_wrong_requests_are_refused_in_one_line(words, message, bundle_file, drawn, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("no folder")
    line = refused(["predict", bundle_file, drawn, *words], capfd)
    assert any(part in line for part in message.split("|")), line
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_two_commands_do_not_write_one_output(bundle_file, drawn, tmp_path, capfd):
    from raysk.artifacts import locked

    with locked(tmp_path / ".out.csv.lock"):
        line = refused(["predict", bundle_file, drawn, "--output", tmp_path / "out.csv"], capfd)
    assert f"one writes {tmp_path / 'out.csv'}: wait for it" in line


def test_reading_ahead_keeps_the_order_and_a_bound(drawn):
    asked = []
    paths = (asked.append(path) or path for path in sorted(drawn.iterdir()))
    reader = read_ahead(paths, [24], ahead=5)
    first = next(reader)
    assert len(asked) == 6
    expected = [next(read_ahead([path], [24], 1))[0] for path in sorted(drawn.iterdir())]
    for got, wanted in zip([first, *reader], expected, strict=True):
        np.testing.assert_array_equal(got[0], wanted)


def test_batches_of_large_images_are_short():
    assert predictor.batch_length([32]) == 256
    assert predictor.batch_length([384]) * 384 * 384 * 3 <= 64 * 2**20
    assert predictor.batch_length([4096, 4096]) == 1
