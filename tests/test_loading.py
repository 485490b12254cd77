import csv
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from rich.console import Console

from raysk.config import Config
from raysk.data.folds.dividing import FoldSettings
from raysk.data.sources import DataSettings
from raysk.errors import ConfigError, DataError
from raysk.loading import prepare_rows, read_rows
from raysk.recipe import Recipe
from tests.conftest import OF_MASKS


@pytest.fixture(scope="module")
def copied(manifest, tmp_path_factory) -> Path:
    """The drawn lesions as a table, with an unlabelled copy of each of the first twenty, mirrored."""
    folder = tmp_path_factory.mktemp("copied")
    with (folder / "lesions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "label", "group"])
        for row, path in enumerate(manifest.paths):
            writer.writerow([path, manifest.class_names[manifest.labels[row]], manifest.group_names[row]])
        for row, path in enumerate(manifest.paths[:20]):
            ImageOps.mirror(Image.open(path).convert("RGB")).save(folder / f"{row}.png")
            writer.writerow([f"{row}.png", "", ""])
    return folder / "lesions.csv"


def test_a_study_says_which_unlabelled_rows_it_leaves_out(copied, manifest, small_recipe, tmp_path):
    data = DataSettings(source="csv", path=str(copied), on_blank="unlabelled")
    config = Config(data=data, folds=FoldSettings(k=2), recipe=Recipe.from_plain(small_recipe()), cache=str(tmp_path))
    simclr = Recipe.from_plain(small_recipe({"stage_one.loss": {"name": "simclr"}}))

    def prepared(recipe: Recipe):
        console = Console(file=StringIO(), width=1000)
        rows, folds, facts = prepare_rows(read_rows(config, console), config, iter([recipe]), console)
        return rows, folds, facts, console.file.getvalue()

    rows, folds, facts, text = prepared(config.recipe)
    assert len(rows) == len(manifest) + 20
    locked = {row for row in folds.test_rows.tolist() if row < 20}
    held_out = [sum(row < 20 for row in folds.held_out_rows(fold).tolist()) for fold in range(2)]
    assert len(locked) + sum(held_out) == 20
    assert all(held_out), "both folds hold out originals of copies"
    assert ", unlabelled 20\n" in text
    assert f"{len(locked)} with the test part, and {held_out[0]}, {held_out[1]} with the held-out rows" in text
    assert "no recipe that is known at the start reads them; one with stage_one.loss.name=gravis or simclr does" in text
    _, again, facts_again, text = prepared(simclr)
    assert "no recipe" not in text
    assert (again.digest, facts_again.folds) == (folds.digest, facts.folds), "as --resume needs it"


def test_masks_and_boxes_are_read_only_where_they_guide_the_attention(cache, manifest, small_recipe, tmp_path):
    data = DataSettings(source="csv", path=str(cache / "drawn" / "metadata.csv"), image="file", group="group")
    guided = {"stage_two.frozen": False, "model.backbone": "test_resnet", "model.output_stride": 8}
    for region, is_read in (("fine_grained", False), ("mask", True)):
        care = {"name": "care", "region": region, "rare": 0.3}
        recipe = Recipe.from_plain(small_recipe({**guided, "stage_two.attention": care}))
        config = Config(data=data, folds=FoldSettings(k=2), recipe=recipe, cache=str(tmp_path))
        console = Console(file=StringIO(), width=1000)
        facts = prepare_rows(read_rows(config, console), config, [recipe], console)[2]
        assert (list(facts.regions) == ["32"]) == is_read == ("lesions at 32 pixels" in console.file.getvalue())


@pytest.fixture
def masked(cache, small_recipe, tmp_path):
    """Prepares the drawn lesions for masks, all of one class; some rows have none, and some are locked away."""

    def prepare(without, locked=(), by_column=False, label="lesion"):
        lines = list(csv.DictReader((cache / "drawn" / "metadata.csv").open()))
        table = tmp_path / "one.csv"
        with table.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["image", "label", "group", "mask", "part" if by_column else "role"])
            for row, line in enumerate(lines):
                image, mask = (cache / "drawn" / line[name] for name in ("file", "mask"))
                part = "test" if row in locked else str(row % 2) if by_column else ""
                writer.writerow([image, label or line["label"], row, "" if row in without else mask, part])
        recipe = Recipe.from_plain(small_recipe(OF_MASKS))
        config = Config(
            data=DataSettings(source="csv", path=str(table)),
            folds=FoldSettings(k=2, column="part" if by_column else None),
            recipe=recipe,
            cache=str(tmp_path / "cache"),
            metric="dice",
        )
        console = Console(file=StringIO(), width=1000)
        return *prepare_rows(read_rows(config, console), config, [recipe], console), console.file.getvalue()

    return prepare


def test_masks_need_no_second_class_and_rows_without_one_count_as_unlabelled(masked):
    rows, folds, facts, text = masked(range(7))
    assert rows.class_names == ("lesion",)
    assert rows.unlabelled_rows.tolist() == list(range(7))
    assert set(np.flatnonzero(folds.fold >= 0)) | set(folds.test_rows) == set(range(7, len(rows)))
    assert list(facts.regions) == ["32"]
    assert f"masks: {len(rows) - 7} of {len(rows)} pictures have a class and a mask" in text


def test_masks_are_not_learnt_without_any(masked):
    with pytest.raises(ConfigError, match=r"task\.name must be classification .* none of 110 labelled"):
        masked(range(110))


def test_classes_are_not_learnt_from_one(manifest, cache, tmp_path):
    table = tmp_path / "one.csv"
    table.write_text("image,label\n" + "".join(f"{path},nv\n" for path in manifest.paths))
    config = Config(data=DataSettings(source="csv", path=str(table)), cache=str(cache))
    with pytest.raises(DataError, match=r"at least two classes, but got nv: .* task\.name=segmentation metric=dice"):
        read_rows(config, Console(file=StringIO()))


@pytest.mark.parametrize("by_column", [False, True])
def test_nothing_learns_from_the_pictures_of_a_test_part_that_have_no_mask(masked, by_column):
    rows, folds, _, text = masked(range(7), range(4, 40), by_column)
    assert len(rows) == 110 - 3
    assert rows.unlabelled_rows.tolist() == list(range(4))
    assert len(folds.test_rows) == 33
    assert "and 3 of the test part without one are left out" in text


@pytest.mark.parametrize("by_column", [False, True])
def test_a_test_part_without_masks_is_not_drawn_anew(masked, by_column):
    with pytest.raises(ConfigError, match="the test part of the table must have masks, but none of its 36 pictures"):
        masked(range(40), range(4, 40), by_column)


def test_a_class_with_too_few_masks_is_named(masked, manifest):
    rare = int(np.argmin(manifest.class_counts))
    without = np.flatnonzero(manifest.labels == rare)[1:].tolist()
    with pytest.raises(DataError, match="among the pictures with a mask, every class must have a group"):
        masked(without, label="")
