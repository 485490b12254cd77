"""Predictions: what is refused, what is read back from a file, and how folds are combined."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysk.data.folds.assignment import TEST, TRAIN_ONLY, Folds
from raysk.data.manifest import make_manifest
from raysk.data.parquet import read_parquet, write_parquet
from raysk.errors import ArtifactError
from raysk.evaluation.predictions import OutOfFold, Part, Predictions, fold_average

VIEWS = ("identity", "rot90")
CLASSES = ("akiec", "mel", "nävus", "a.b / c")
FOLDS = Folds(np.array([[0, 1, TEST, 2, 0, TRAIN_ONLY, 1, 2, 0, TEST]]), 3, 0, "manifest")


def make_probabilities(rows: np.ndarray, seed: int = 0) -> np.ndarray:
    """Returns (2, N, 4) probabilities that are different for every row, whatever the order of the rows."""
    table = np.random.default_rng(seed).dirichlet(np.ones(4), size=(len(VIEWS), len(FOLDS.fold)))
    return table[:, rows].astype(np.float32)


def make_predictions(fold: int, part: Part = "held_out", seed: int = 0) -> Predictions:
    rows = FOLDS.scored_rows(fold, part)
    probabilities = make_probabilities(rows, seed)
    return Predictions(rows, images_of(rows), CLASSES, VIEWS, probabilities, "recipe", fold, FOLDS.digest, part)


def images_of(rows: np.ndarray) -> tuple[str, ...]:
    return tuple(f"images/{row}.png" for row in rows)


def with_rows(predictions: Predictions, rows: np.ndarray) -> Predictions:
    return replace(predictions, rows=rows, images=images_of(rows), probabilities=make_probabilities(rows))


def test_written_predictions_are_read_back_exactly(tmp_path: Path) -> None:
    predictions = make_predictions(1)
    predictions.write(tmp_path / "a.parquet")
    reread = Predictions.read(tmp_path / "a.parquet")
    np.testing.assert_array_equal(reread.rows, predictions.rows)
    np.testing.assert_array_equal(reread.probabilities, predictions.probabilities)
    assert reread.probabilities.dtype == np.float32
    for name in ("images", "class_names", "views", "recipe_key", "fold", "folds_digest", "part"):
        assert getattr(reread, name) == getattr(predictions, name)


def test_a_file_names_images_and_classes_for_other_programs(tmp_path: Path) -> None:
    make_predictions(1).write(tmp_path / "a.parquet")
    table = pq.read_table(tmp_path / "a.parquet")
    assert table.column_names == ["row", "image", "identity", "rot90"]
    assert table.column("image").to_pylist() == ["images/1.png", "images/6.png"]
    assert json.loads(table.schema.metadata[b"raysk.predictions"])["class_names"] == list(CLASSES)


def test_predictions_of_a_fold_take_rows_images_and_classes_from_the_manifest() -> None:
    labels = ["b", "a"] * 5
    manifest = make_manifest([f"images/{row}.png" for row in range(10)], labels, root=Path(), class_names=["b", "a"])
    for part, rows in (("held_out", [0, 4, 8]), ("test", [2, 9])):
        probabilities = np.full((1, len(rows), 2), 0.5, np.float32)
        made = Predictions.of_fold(
            manifest,
            FOLDS,
            fold=0,
            part=part,
            recipe_key="r",
            views=["identity"],
            probabilities=probabilities,
            class_names=manifest.class_names,
        )
        assert made.rows.tolist() == rows
        assert made.images == images_of(np.array(rows))
        assert (made.class_names, made.views) == (("b", "a"), ("identity",))
        made.check(FOLDS)


def spoiled_file(path: Path, table: pa.Table, facts: dict[str, Any]) -> Path:
    write_parquet(path, "predictions", table, facts)
    return path


def test_a_file_without_images_or_class_names_is_refused_in_one_line(tmp_path: Path) -> None:
    make_predictions(1).write(tmp_path / "now")
    table, facts = read_parquet(tmp_path / "now", "predictions")
    of_schema_3_1 = {name: value for name, value in facts.items() if name != "class_names"}
    for number, spoiled in enumerate([
        spoiled_file(tmp_path / "a", table.drop_columns("image"), of_schema_3_1),
        spoiled_file(tmp_path / "b", table, of_schema_3_1),
        spoiled_file(tmp_path / "c", table.drop_columns("image"), facts),
        spoiled_file(tmp_path / "d", table, facts | {"calibrated": True}),
        spoiled_file(tmp_path / "e", table.select(["row", "image"]), facts),
    ]):  # fmt: skip
        with pytest.raises(ArtifactError, match="another version of raysk wrote it") as caught:
            Predictions.read(spoiled)
        assert "\n" not in str(caught.value), number


def test_predictions_of_no_row_keep_their_shape(tmp_path: Path) -> None:
    empty = np.array([], dtype=np.int64)
    with_rows(make_predictions(1), empty).write(tmp_path / "a.parquet")
    assert Predictions.read(tmp_path / "a.parquet").probabilities.shape == (2, 0, 4)


def test_the_mean_is_over_views() -> None:
    predictions = make_predictions(0)
    expected = (predictions.probabilities[0] + predictions.probabilities[1]) / 2
    np.testing.assert_allclose(predictions.mean(), expected, rtol=1e-6)


def spoil(value: float) -> Callable[[Predictions], dict[str, Any]]:
    def change(predictions: Predictions) -> dict[str, Any]:
        probabilities = predictions.probabilities.copy()
        probabilities[1, 2, 0] = value
        return {"probabilities": probabilities}

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (spoil(np.nan), "row 8, view 'rot90' are .nan"),
        (spoil(np.inf), "sum to 1"),
        (spoil(0.99), "sum to 1"),
        (lambda p: {"probabilities": p.probabilities - np.array([0.5, -0.5, 0, 0], np.float32)}, "0 or more"),
        (lambda p: {"probabilities": p.probabilities.astype(np.float16)}, "float32, but got int64 and float16"),
        (lambda p: {"rows": p.rows.astype(np.int32)}, "but got int32"),
        (lambda p: {"rows": np.array([0, 4, 0])}, "row 0 occurs 2 times"),
        (lambda p: {"rows": p.rows[:2]}, "2 views and 2 rows"),
        (lambda p: {"images": p.images[:2]}, "3 rows and each of 4 classes, but got 2 images and 4 class names"),
        (lambda p: {"class_names": p.class_names[:3]}, "but got 3 images and 3 class names"),
        (lambda p: {"probabilities": p.probabilities[0]}, "shape"),
        (lambda p: {"views": ()}, "shape"),
        (lambda p: {"views": ("identity", "identity")}, "views must differ"),
        (lambda p: {"part": "train"}, "but got 'train'"),
    ],
)
def test_invalid_predictions_are_refused(change: Callable[[Predictions], dict[str, Any]], message: str) -> None:
    predictions = make_predictions(0)
    with pytest.raises(ArtifactError, match=message):
        replace(predictions, **change(predictions))


@pytest.mark.parametrize("row", [1, 5, 2])
def test_held_out_predictions_of_another_row_are_refused(row: int) -> None:
    predictions = make_predictions(0)
    predictions.check(FOLDS)
    with pytest.raises(ArtifactError, match=f"first row {row}"):
        with_rows(predictions, np.append(predictions.rows, row)).check(FOLDS)


def test_test_predictions_of_a_row_in_a_fold_are_refused() -> None:
    predictions = make_predictions(0, "test")
    predictions.check(FOLDS)
    with pytest.raises(ArtifactError, match="first row 0"):
        with_rows(predictions, np.array([2, 0])).check(FOLDS)


def test_predictions_on_other_folds_are_refused() -> None:
    other = Folds(np.roll(FOLDS.divisions, 1), 3, 0, "manifest")
    with pytest.raises(ArtifactError, match=other.digest):
        make_predictions(0).check(other)


def test_out_of_fold_has_each_row_once_in_order() -> None:
    shuffled = make_predictions(0)
    shuffled = with_rows(shuffled, shuffled.rows[::-1].copy())
    out_of_fold = OutOfFold.from_folds([make_predictions(2), shuffled, make_predictions(1)], FOLDS)
    np.testing.assert_array_equal(out_of_fold.rows, [0, 1, 3, 4, 6, 7, 8])
    np.testing.assert_array_equal(out_of_fold.fold_of_row, [0, 1, 2, 0, 1, 2, 0])
    np.testing.assert_array_equal(out_of_fold.probabilities, make_probabilities(out_of_fold.rows))
    assert (out_of_fold.views, out_of_fold.recipe_key, out_of_fold.folds_digest) == (VIEWS, "recipe", FOLDS.digest)


def test_with_repeats_a_row_has_the_mean_of_the_models_that_did_not_learn_from_it() -> None:
    division = np.array([0, 1, TEST, 0, 1])
    folds = Folds(np.stack([division, np.where(division == TEST, TEST, 1 - division)]), 2, 0, "manifest")
    random = np.random.default_rng(0)

    def of_fold(fold: int) -> Predictions:
        rows = folds.held_out_rows(fold)
        probabilities = random.dirichlet(np.ones(3), size=(2, len(rows))).astype(np.float32)
        return Predictions(
            rows, images_of(rows), CLASSES[:3], VIEWS[:2], probabilities, "recipe", fold, folds.digest, "held_out"
        )

    predictions = [of_fold(fold) for fold in (3, 0, 2, 1)]
    out_of_fold = OutOfFold.from_folds(predictions, folds)
    np.testing.assert_array_equal(out_of_fold.rows, [0, 1, 3, 4])
    np.testing.assert_array_equal(out_of_fold.fold_of_row, [0, 1, 0, 1])
    for place, row in enumerate(out_of_fold.rows):
        of_models = [p.probabilities[:, p.rows.tolist().index(row)] for p in predictions if row in p.rows]
        assert len(of_models) == 2
        np.testing.assert_allclose(out_of_fold.probabilities[:, place], np.mean(of_models, axis=0), rtol=1e-6)
    with pytest.raises(ArtifactError, match="from 0 to 3 once"):
        OutOfFold.from_folds(predictions[1:], folds)


@pytest.mark.parametrize(
    ("spoiled", "message"),
    [
        (lambda ps: ps[:2], r"got \[0, 1\]"),
        (lambda ps: [*ps, ps[0]], r"got \[0, 0, 1, 2\]"),
        (lambda ps: [], r"got \[\]"),
        (lambda ps: [with_rows(ps[0], ps[0].rows[:-1]), *ps[1:]], "1 are missing, first row 8"),
        (lambda ps: [replace(ps[0], recipe_key="other"), *ps[1:]], "one recipe"),
        (lambda ps: [replace(ps[0], views=("identity", "rot180")), *ps[1:]], "same views"),
        (lambda ps: [replace(ps[0], class_names=CLASSES[::-1]), *ps[1:]], "same views and classes"),
        (lambda ps: [make_predictions(0, "test"), *ps[1:]], "part held_out, but got test"),
        (lambda ps: [replace(ps[0], folds_digest="other"), *ps[1:]], "but got other"),
        (lambda ps: [replace(ps[0], fold=1), ps[1], ps[2]], "model of fold 1"),
    ],
)
def test_incomplete_or_mixed_folds_are_refused(
    spoiled: Callable[[list[Predictions]], list[Predictions]], message: str
) -> None:
    with pytest.raises(ArtifactError, match=message):
        OutOfFold.from_folds(spoiled([make_predictions(fold) for fold in range(3)]), FOLDS)


def test_the_fold_average_is_the_mean_over_models_row_by_row() -> None:
    parts = [make_predictions(fold, "test", seed=fold) for fold in range(3)]
    swapped = replace(parts[1], rows=parts[1].rows[::-1].copy(), probabilities=parts[1].probabilities[:, ::-1])
    average = fold_average([parts[0], swapped, parts[2]], FOLDS)
    np.testing.assert_array_equal(average.rows, [2, 9])
    expected = np.mean([make_probabilities(FOLDS.test_rows, seed) for seed in range(3)], axis=0)
    np.testing.assert_allclose(average.probabilities, expected, rtol=1e-6)
    np.testing.assert_allclose(average.mean().sum(axis=1), 1, rtol=1e-6)


def test_the_fold_average_needs_every_model_and_row() -> None:
    parts = [make_predictions(fold, "test") for fold in range(3)]
    with pytest.raises(ArtifactError, match=r"got \[0, 2\]"):
        fold_average([parts[0], parts[2]], FOLDS)
    with pytest.raises(ArtifactError, match="first row 2"):
        fold_average([*parts[:2], with_rows(parts[2], np.array([9]))], FOLDS)


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="missing"):
        Predictions.read(tmp_path / "missing")
    (tmp_path / "text").write_text("row")
    with pytest.raises(ArtifactError, match="cannot be read"):
        Predictions.read(tmp_path / "text")
    pq.write_table(pa.table({"row": [1]}), tmp_path / "other")
    with pytest.raises(ArtifactError, match="another Parquet file"):
        Predictions.read(tmp_path / "other")


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    make_predictions(0).write(tmp_path / "a")
    content = (tmp_path / "a").read_bytes()
    (tmp_path / "a").write_bytes(content[: len(content) // 2])
    with pytest.raises(ArtifactError, match="cannot be read"):
        Predictions.read(tmp_path / "a")
