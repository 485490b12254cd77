"""`raysk evaluate` with a run of masks: the promise on the test part, notes, and refusals."""

import csv
import json

import pytest
from PIL import Image

from raysk.evaluation.ensemble import GREEDY
from tests.command_line import refused, said


@pytest.fixture
def table(finished_mask_run, tmp_path):
    """Writes a table of rows of the study, with masks unless they are left out."""
    source = finished_mask_run.manifest

    def write(rows, without=(), name="table.csv"):
        with (tmp_path / name).open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["image", "label", "lesion_id", "mask"])
            masks = source.table.column("mask").to_pylist()
            for row in rows:
                mask = "" if row in without else source.root / masks[row]
                label = source.class_names[source.labels[row]]
                writer.writerow([source.paths[row], label, f"L{source.groups[row]}", mask])
        return ["data=csv", f"data.path={tmp_path / name}"]

    return write


def test_on_the_test_part_the_promise_is_kept(finished_mask_run, table, tmp_path, capfd):
    rows = finished_mask_run.folds.test_rows
    words = ["evaluate", finished_mask_run.folder, *table(rows), "--output", tmp_path / "new"]
    output = said(words, capfd)
    assert output.startswith(f"{GREEDY} on {len(rows)} images of data=csv")
    assert "too good" not in output
    assert "with the true shares" not in output
    content = json.loads((tmp_path / "new" / "evaluation.json").read_text())
    names = ["dice", "jaccard", "thresholded_jaccard", "hausdorff95", "surface_distance"]
    assert [line["name"] for line in content["scores"]] == names
    assert content["classes"] == []
    for line in content["scores"]:
        for end in ("value", "low", "high"):
            assert line["here"][end] == pytest.approx(line["promised"][end], abs=0.02)
    assert (tmp_path / "new" / "evaluation.md").read_text().count("| dice |") == 1
    assert "dice,here," in (tmp_path / "new" / "evaluation.csv").read_text()


def test_pictures_without_a_mask_and_those_that_trained_are_said(finished_mask_run, table, capfd):
    train = finished_mask_run.folds.train_rows(0)[:20]
    output = said(["evaluate", finished_mask_run.folder, *table(train, without=train[:5])], capfd)
    assert "Left out: 5 without a mask, or with an empty one." in output
    assert "15 of 15 images were among the rows that trained" in " ".join(output.split())


def test_pictures_without_masks_are_refused(finished_mask_run, table, capfd):
    rows = finished_mask_run.folds.test_rows
    line = refused(["evaluate", finished_mask_run.folder, *table(rows, without=rows)], capfd)
    assert "pictures must have masks to be evaluated, but none of" in line


def test_what_cannot_be_read_is_refused_or_said(finished_mask_run, table, tmp_path, capfd):
    rows = finished_mask_run.folds.test_rows
    words = table(rows)
    Image.new("L", (5, 5), 255).save(tmp_path / "small.png")
    Image.new("L", (32, 32)).save(tmp_path / "empty.png")
    lines = (tmp_path / "table.csv").read_text().splitlines()
    for place, mask in ((1, "small.png"), (2, "empty.png")):
        lines[place] = f"{lines[place].rpartition(',')[0]},{tmp_path / mask}"
    (tmp_path / "table.csv").write_text("\n".join(lines))
    line = refused(["evaluate", finished_mask_run.folder, *words], capfd)
    assert "every picture and its mask must be readable, but" in line
    assert "a mask must have the size of its picture, 32 by 32" in line
    output = said(["evaluate", finished_mask_run.folder, *words, "data.on_error=skip"], capfd)
    assert "Left out: 1 without a mask, or with an empty one." in output
    assert "Left out: 1 of which the picture or the mask cannot be read." in output
    assert f"on {len(rows) - 2} images" in output
