"""Predicted probabilities: of one fold's model, out of fold, and averaged over the folds on the test part."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from raysk.data.folds.assignment import Folds
from raysk.data.manifest import Manifest
from raysk.data.parquet import read_parquet, write_parquet
from raysk.errors import ArtifactError
from raysk.evaluation.prediction_checks import check_arrays, check_names, check_values
from raysk.records import Part

# The columns of a file before those of the views, and the facts in its schema.
_COLUMNS = ["row", "image"]
_FACTS = ("class_names", "recipe_key", "fold", "folds_digest", "part")


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predictions of one fold's model on rows that it did not learn from.

    Attributes:
        rows: (N,) int64 rows of the manifest.
        images: The image of each row, N names as in the manifest.
        class_names: The C names; none for masks.
        views: The names of the V test-time views.
        probabilities: (V, N, C) float32; each row of each view sums to 1. Of masks, (V, N, P) float16: the probability
            of the lesion at each pixel.
        recipe_key: Key of the recipe.
        fold: The held-out fold of the model.
        folds_digest: Digest of the folds.
        part: Whether the rows are the held-out fold or the locked test part.

    Raises:
        ArtifactError: Shapes do not match, a row occurs twice, or a probability is invalid.
    """

    rows: np.ndarray
    images: tuple[str, ...]
    class_names: tuple[str, ...]
    views: tuple[str, ...]
    probabilities: np.ndarray
    recipe_key: str
    fold: int
    folds_digest: str
    part: Part

    def __post_init__(self) -> None:
        if self.part not in ("held_out", "test"):
            raise ArtifactError(f"predictions must be of the part held_out or test, but got {self.part!r}: name one")
        check_arrays(self.rows, self.views, self.probabilities, "float32" if self.class_names else "float16")
        check_values(self.rows, self.views, self.probabilities, is_of_classes=bool(self.class_names))
        check_names(self.images, self.class_names, self.probabilities)

    @classmethod
    def of_fold(
        cls,
        manifest: Manifest,
        folds: Folds,
        *,
        fold: int,
        part: Part,
        recipe_key: str,
        views: Sequence[str],
        probabilities: np.ndarray,
        class_names: tuple[str, ...],
    ) -> "Predictions":
        """Makes the predictions of one fold's model on all rows of a part, in the order of `folds.scored_rows`."""
        rows = folds.scored_rows(fold, part)
        images = tuple(manifest.table.column("image").take(rows).to_pylist())
        return cls(rows, images, class_names, tuple(views), probabilities, recipe_key, fold, folds.digest, part)

    def check(self, folds: Folds) -> None:
        """Checks that the rows may score this fold's model.

        Raises:
            ArtifactError: The predictions are of other folds, or of a row that the model learnt from.
        """
        if self.folds_digest != folds.digest:
            raise ArtifactError(
                f"predictions must be of folds {folds.digest}, but got {self.folds_digest}: predict on these folds"
            )
        foreign = np.setdiff1d(self.rows, folds.scored_rows(self.fold, self.part))
        if len(foreign):
            raise ArtifactError(
                f"predictions of part {self.part} must be of rows that the model of fold {self.fold} is scored on, "
                f"but got {len(foreign)} others, first row {foreign[0]}: predict that part only"
            )

    def mean(self) -> np.ndarray:
        """Returns the mean over the views, (N, C) float32."""
        return self.probabilities.mean(axis=0, dtype=np.float32)

    def write(self, path: Path) -> None:
        """Writes a Parquet file: the columns "row" and "image", then one column per view with lists of C probabilities.

        The facts in the schema name the classes. A column for each class and view would be slow for many classes.
        """
        columns = {"row": pa.array(self.rows), "image": pa.array(self.images, pa.string())}
        for view, values in zip(self.views, self.probabilities, strict=True):
            columns[view] = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
        facts = {name: getattr(self, name) for name in _FACTS}
        write_parquet(path, "predictions", pa.table(columns), facts)

    @classmethod
    def read(cls, path: Path) -> "Predictions":
        """Reads the file that `write` wrote.

        Raises:
            ArtifactError: The file is missing, or does not hold predictions.
        """
        table, facts = read_parquet(path, "predictions")
        views = tuple(table.column_names[2:])
        if table.column_names[:2] != _COLUMNS or facts.keys() != set(_FACTS) or not views:
            raise ArtifactError(
                f"{path} must hold predictions with the image of each row and the names of the classes, but another "
                "version of raysk wrote it: read it with that version"
            )
        lists = [table.column(view).combine_chunks() for view in views]
        # An explicit shape, since -1 cannot be resolved when there are no rows.
        shape = (table.num_rows, lists[0].type.list_size)
        probabilities = np.stack([column.flatten().to_numpy().reshape(shape) for column in lists])
        images = tuple(table.column("image").to_pylist())
        class_names = tuple(facts.pop("class_names"))
        return cls(table.column("row").to_numpy(), images, class_names, views, probabilities, **facts)


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """One recipe's predictions on all rows of the folds, each from a model that did not learn from the row.

    With R repeats, each row has the mean of its R models.

    Attributes:
        rows: (N,) rows of the manifest, ascending.
        fold_of_row: (N,) the fold of each row in the first division.
        views: The names of the V test-time views.
        probabilities: (V, N, C) float32; of masks (V, N, P) float16.
        recipe_key: Key of the recipe.
        folds_digest: Digest of the folds.
    """

    rows: np.ndarray
    fold_of_row: np.ndarray
    views: tuple[str, ...]
    probabilities: np.ndarray
    recipe_key: str
    folds_digest: str

    @classmethod
    def from_folds(cls, predictions: Sequence[Predictions], folds: Folds) -> "OutOfFold":
        """Combines the held-out predictions of all folds.

        Args:
            predictions: Of one recipe, one for each fold, in any order.
            folds: The folds of the predictions.

        Raises:
            ArtifactError: A fold or row is missing or occurs twice, or the predictions do not match one another.
        """
        _check_together(predictions, folds, "held_out")
        expected = np.flatnonzero(folds.fold >= 0)
        by_fold = sorted(predictions, key=lambda fold_predictions: fold_predictions.fold)
        divisions = [by_fold[start : start + folds.k] for start in range(0, len(folds), folds.k)]
        probabilities = np.stack([_of_division(division, expected) for division in divisions]).mean(axis=0)
        first = predictions[0]
        return cls(expected, folds.fold[expected], first.views, probabilities, first.recipe_key, folds.digest)

    def mean(self) -> np.ndarray:
        """Returns the mean over the views, (N, C) float32."""
        return self.probabilities.mean(axis=0, dtype=np.float32)


@dataclass(frozen=True, eq=False)
class TestPredictions:
    """One recipe's predictions on the locked test part: the mean over its fold models.

    Attributes:
        rows: (N,) rows of the manifest, ascending.
        views: The names of the V test-time views.
        probabilities: (V, N, C) float32; of masks (V, N, P) float16.
        recipe_key: Key of the recipe.
        folds_digest: Digest of the folds.
    """

    rows: np.ndarray
    views: tuple[str, ...]
    probabilities: np.ndarray
    recipe_key: str
    folds_digest: str

    def mean(self) -> np.ndarray:
        """Returns the mean over the views, (N, C) float32."""
        return self.probabilities.mean(axis=0, dtype=np.float32)


def fold_average(predictions: Sequence[Predictions], folds: Folds) -> TestPredictions:
    """Returns the mean prediction of all fold models on the test part.

    Args:
        predictions: Of one recipe, one for each fold, in any order.
        folds: The folds of the predictions.

    Raises:
        ArtifactError: A fold or a test row is missing or occurs twice, or the predictions do not match one another.
    """
    _check_together(predictions, folds, "test")
    total = np.zeros(predictions[0].probabilities.shape)
    for fold_predictions in predictions:
        _check_complete(fold_predictions.rows, folds.test_rows)
        total += fold_predictions.probabilities[:, np.argsort(fold_predictions.rows)]
    probabilities = (total / len(predictions)).astype(predictions[0].probabilities.dtype)
    first = predictions[0]
    return TestPredictions(folds.test_rows, first.views, probabilities, first.recipe_key, folds.digest)


def _of_division(predictions: Sequence[Predictions], expected: np.ndarray) -> np.ndarray:
    """Returns the probabilities (V, N, C) of one division's folds, in the order of the rows."""
    rows = np.concatenate([fold_predictions.rows for fold_predictions in predictions])
    _check_complete(rows, expected)
    stacked = np.concatenate([fold_predictions.probabilities for fold_predictions in predictions], axis=1)
    return stacked[:, np.argsort(rows)]


def _check_together(predictions: Sequence[Predictions], folds: Folds, part: Part) -> None:
    for fold_predictions in predictions:
        fold_predictions.check(folds)
    wrong = sorted({fold_predictions.part for fold_predictions in predictions} - {part})
    if wrong:
        raise ArtifactError(f"predictions must be of the part {part}, but got {wrong[0]}: choose that part's files")
    numbers = sorted(fold_predictions.fold for fold_predictions in predictions)
    if numbers != list(range(len(folds))):
        raise ArtifactError(
            f"predictions must be of each fold from 0 to {len(folds) - 1} once, but got {numbers}: "
            "run the folds that are missing"
        )
    kinds = {
        (fold_predictions.recipe_key, fold_predictions.views, fold_predictions.class_names)
        for fold_predictions in predictions
    }
    if len(kinds) > 1:
        raise ArtifactError(
            "predictions must be of one recipe with the same views and classes, "
            f"but got {sorted(kinds)}: group them by recipe first"
        )


def _check_complete(rows: np.ndarray, expected: np.ndarray) -> None:
    # The rows are unique and allowed by now, so only missing rows can remain.
    missing = np.setdiff1d(expected, rows)
    if len(missing):
        raise ArtifactError(
            f"predictions must cover all {len(expected)} rows, but {len(missing)} are missing, first row {missing[0]}: "
            "predict that part again"
        )
