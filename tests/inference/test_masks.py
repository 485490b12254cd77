"""Masks of new pictures: those of the test part again, pictures of any size, and files that cannot be read."""

import csv
import os
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import raysk
from raysk.data.sources import DataSettings, load_manifest
from raysk.data.store.region_store import build_regions
from raysk.errors import ConfigError
from raysk.evaluation.ensemble import GREEDY
from raysk.evaluation.leaderboard import Leaderboard
from raysk.inference.masks import Masker, squares_of
from raysk.mask_sheet import SHEET, sheet_images
from raysk.scoring import probabilities_on_test
from tests.command_line import refused, said
from tests.conftest import SIZE


@pytest.fixture(scope="module")
def masker(finished_mask_run):
    return Masker(finished_mask_run, GREEDY, "cpu")


@pytest.fixture(scope="module")
def board(finished_mask_run):
    return Leaderboard.read(finished_mask_run.folder / "leaderboard.json")


@pytest.fixture
def pictures(finished_mask_run):
    return [finished_mask_run.manifest.paths[row] for row in finished_mask_run.folds.test_rows]


@pytest.mark.parametrize("place", [1, 2, 3])
def test_the_test_part_is_predicted_as_in_the_study(place, board, finished_mask_run, pictures):
    masker = Masker(finished_mask_run, str(place), "cpu")
    found = np.stack([shares.ravel() for shares in masker.of(pictures)])
    expected = probabilities_on_test(finished_mask_run, board.rows[place - 1])
    np.testing.assert_allclose(found, expected, atol=2e-3)  # the study keeps 16 bits
    assert found.std() > 0.05


def test_a_wide_picture_is_the_mean_of_the_squares_that_cover_it(masker, pictures, tmp_path):
    left, right = (np.asarray(Image.open(path)) for path in pictures[:2])
    wide = np.concatenate([left, right], axis=1)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    Image.fromarray(wide.transpose(1, 0, 2)).save(tmp_path / "high.png")
    Image.fromarray(wide).save(tmp_path / "wide.jpg", quality=95, subsampling=0)
    for place, of_square in enumerate((left, right)):
        Image.fromarray(of_square).save(tmp_path / f"{place}.png")
    names = ("wide.png", "wide.jpg", "high.png", "0.png", "1.png")
    of_wide, of_jpeg, of_high, *of_squares = masker.of([tmp_path / name for name in names])
    assert of_wide.shape == (SIZE, 2 * SIZE)
    assert of_high.shape == (2 * SIZE, SIZE)
    assert np.abs(of_jpeg - of_wide).mean() < 0.05
    np.testing.assert_allclose(of_wide, np.concatenate(of_squares, axis=1), atol=1e-5)


@given(st.integers(1, 500), st.integers(1, 500))
def test_windows_cover_every_pixel(width, height):
    covered = np.zeros((height, width), bool)
    windows = squares_of(width, height)
    for left, top, side in windows:
        assert min(left, top) >= 0
        assert (left + side <= width) and (top + side <= height)
        covered[top : top + side, left : left + side] = True
    assert covered.all()
    assert len(windows) == -(-max(width, height) // min(width, height))


def test_a_file_that_is_no_picture_has_a_reason(masker, pictures, tmp_path):
    (tmp_path / "no.png").write_text("no picture")
    os.mkfifo(tmp_path / "pipe.png")
    names = ("no.png", "none.png", "pipe.png", "a\0b.png")
    good, bad, missing, pipe, null, again = masker.of([pictures[0], *(tmp_path / name for name in names), pictures[0]])
    assert "cannot identify image file" in bad
    assert "FileNotFoundError" in missing
    assert "not a regular file" in pipe, "reading it would wait for ever"
    assert "null byte" in null
    np.testing.assert_allclose(good, again, atol=1e-6)


def test_a_run_of_classes_has_no_masks(finished_run):
    with pytest.raises(ConfigError, match=r"masks must come from a run with task\.name=segmentation"):
        Masker(finished_run)


def test_the_sheet_has_the_best_the_median_and_the_worst(finished_mask_run, board):
    images = sheet_images(finished_mask_run, board.rows[0])
    captions = [image.lines[0] for image in images]
    dice = [float(caption.rpartition(" ")[2]) for caption in captions]
    assert [caption.partition(":")[0] for caption in captions] == ["best"] * 6 + ["median"] * 6 + ["worst"] * 6
    assert dice == sorted(dice, reverse=True)
    assert dice[0] > dice[-1]
    assert all(image.found.shape == (SIZE, SIZE) and image.region.mask.exists() for image in images)
    with Image.open(finished_mask_run.folder / SHEET) as sheet:
        counts = {colour: count for count, colour in sheet.convert("RGB").getcolors(1 << 24)}
    assert counts[255, 190, 40] > 18 * 50


def lines_of(folder):
    with (folder / "masks.csv").open() as file:
        return list(csv.DictReader(file))


def test_predict_writes_a_mask_of_each_picture(finished_mask_run, masker, pictures, tmp_path, capfd):
    (tmp_path / "no.png").write_text("no picture")
    words = ["predict", finished_mask_run.folder, *pictures[:3], tmp_path / "no.png", pictures[0]]
    output = said([*words, "--output", tmp_path / "new" / "masks"], capfd)
    assert output.startswith(f"{tmp_path}/new/masks/masks.csv: 4 masks by {GREEDY}; 1 cannot be read")
    lines = lines_of(tmp_path / "new" / "masks")
    assert [line["image"] for line in lines] == [str(path.resolve()) for path in (*pictures[:3], pictures[0])]
    assert lines[3]["mask"] == f"{pictures[0].stem}-2.png"
    for line, shares in zip(lines, masker.of([*pictures[:3], pictures[0]]), strict=True):
        mask = np.asarray(Image.open(tmp_path / "new" / "masks" / line["mask"]))
        assert np.array_equal(mask, np.where(shares >= 0.5, 255, 0))
        rows, columns = np.nonzero(mask)
        assert [float(line[name]) for name in ("x0", "y0", "x1", "y1")] == [
            columns.min(), rows.min(), columns.max() + 1, rows.max() + 1,
        ]  # fmt: skip
        assert float(line["area"]) == pytest.approx((mask > 0).mean(), abs=1e-6)
    assert "no.png" in (tmp_path / "new" / "masks" / "unreadable.csv").read_text()


def test_a_table_with_its_masks_takes_the_place_of_the_table(finished_mask_run, cache, tmp_path, capfd):
    table = cache / "drawn" / "metadata.csv"
    said(["predict", finished_mask_run.folder, table, "--output", tmp_path / "masks"], capfd)
    settings = DataSettings(source="csv", path=str(tmp_path / "masks" / "masks.csv"), group="group")
    manifest = load_manifest(settings, cache)
    given = finished_mask_run.manifest
    assert manifest.class_names == given.class_names
    assert manifest.class_counts.tolist() == given.class_counts.tolist()
    masks = build_regions(manifest, SIZE, cache).masks
    by_name = dict(zip([path.name for path in given.paths], finished_mask_run.regions(SIZE).masks, strict=True))
    true = np.stack([by_name[path.name] for path in manifest.paths])
    assert ((masks > 0) & (true > 0)).sum() / (true > 0).sum() > 0.5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--output", "taken"], "--output must be a new folder for masks, but got taken: it exists"),
        (["--output", "masks.csv"], "--output must be a new folder for masks, but got masks.csv: it is named like"),
        (["--output", "new", "--address", "auto"], "--address must be left out for masks"),
        (["--output", "new", "--row", "none"], "ROW must be a place, a name or a key of one row, but got 'none'"),
        (["--output", "new", "--refitted"], "a row must be refitted before its refitted models are used"),
        (["--output", "new", "--device", "tpu"], "device must be one of this machine"),
        (["--output", "new", "--column", "image"], "--column must name a column of a table"),
    ],
)
def test_wrong_requests_are_refused(words, message, finished_mask_run, pictures, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").mkdir()
    assert message in refused(["predict", finished_mask_run.folder, pictures[0], *words], capfd)
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_pictures_of_which_none_can_be_read_leave_nothing(finished_mask_run, tmp_path, capfd):
    (tmp_path / "no.png").write_text("no picture")
    line = refused(["predict", finished_mask_run.folder, tmp_path / "no.png", "--output", tmp_path / "masks"], capfd)
    assert "a picture must be readable, but none of 1 is" in line
    assert not (tmp_path / "masks").exists()


def test_a_run_of_masks_makes_no_bundle(finished_mask_run, tmp_path, capfd):
    line = refused(["bundle", finished_mask_run.folder, "--output", tmp_path / "m.raysk"], capfd)
    assert "a bundle must be of classifiers, but ensemble: greedy predicts masks" in line


def test_a_finished_run_of_masks_is_ranked_anew_by_another_score_of_masks(finished_mask_run, board, capfd):
    output = said(["leaderboard", finished_mask_run.folder, "--metric", "hausdorff95", "--format", "csv"], capfd)
    lines = list(csv.DictReader(output.splitlines()))
    distances = [float(line["oof_hausdorff95"]) for line in lines]
    assert distances == sorted(distances)
    assert sorted(line["name"] for line in lines) == sorted(row.name for row in board.rows)
    line = refused(["leaderboard", finished_mask_run.folder, "--metric", "macro_f1"], capfd)
    assert "metric must score masks, which the run predicts, but got macro_f1: choose for example dice" in line


def test_a_notebook_has_the_scores_of_each_picture(finished_mask_run, board):
    frame = raysk.open_run(finished_mask_run.folder).test_part(1)
    assert frame.columns.tolist() == [
        "image", "group", "label", "dice", "jaccard", "thresholded_jaccard", "hausdorff95", "surface_distance",
    ]  # fmt: skip
    for name in ("dice", "hausdorff95"):
        assert frame[name].mean() == pytest.approx(board.rows[0].scores[f"test_{name}"])


@pytest.mark.parametrize("suffix", ["md", "html", "tex", "csv", "json"])
def test_a_board_of_masks_has_no_table_of_classes(suffix, finished_mask_run):
    text = (finished_mask_run.folder / f"leaderboard.{suffix}").read_text()
    assert "Hausdorff" in text or "hausdorff95" in text
    assert "balanced" not in text
    assert "recall" not in text


def test_a_refitted_row_predicts_and_its_encoder_is_written(finished_mask_run, pictures, tmp_path, capfd):
    run = tmp_path / "run"
    shutil.copytree(finished_mask_run.folder, run)
    said(["refit", run, "--row", "convnext"], capfd)
    for name, more in (("folds", []), ("whole", ["--refitted"])):
        said(["predict", run, *pictures, "--row", "convnext", *more, "--output", tmp_path / name], capfd)
    of_folds, of_whole = (
        np.stack([np.asarray(Image.open(tmp_path / name / line["mask"])) for line in lines_of(tmp_path / name)])
        for name in ("folds", "whole")
    )
    assert 0 < (of_folds != of_whole).mean() < 0.3
    output = said(["encoder", run, "convnext", "--output", tmp_path / "e.safetensors"], capfd)
    assert "e.safetensors" in output


@pytest.mark.parametrize("command", ["explain", "export", "serve"])
def test_commands_for_classifiers_name_those_for_masks(command, finished_mask_run, tmp_path, capfd):
    words = {"explain": ["--output", tmp_path / "x"], "export": ["--onnx", tmp_path / "x.onnx"], "serve": []}[command]
    line = refused([command, finished_mask_run.folder, *words], capfd)
    assert "predicts masks: use raysk predict or raysk evaluate with the run itself" in line
    assert not list(tmp_path.iterdir())
