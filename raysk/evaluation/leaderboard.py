"""The leaderboard: what every recipe and ensemble scored, on what, at which cost, and the command that repeats it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from raysk.artifacts import read_json
from raysk.errors import ArtifactError
from raysk.evaluation.comparison_tables import ComparisonTable
from raysk.evaluation.metrics import (
    balanced_accuracy_score,
    bootstrap_interval,
    macro_f1_score,
    scores,
)

Kind = Literal["two-stage", "one-stage", "ensemble"]
KINDS = ("two-stage", "one-stage", "ensemble")

# Tables show these scores, in this order, before those of single classes.
HEADLINE = ("macro_f1", "balanced_accuracy", "macro_auc", "accuracy", "macro_precision")

# What can stand behind the name of a headline score: the ends of its interval, its spread over folds, and what it is
# when each fold is scored with the choice of the other folds.
SUFFIXES = ("", "_low", "_high", "_sd", "_crossfit")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One recipe or ensemble.

    Attributes:
        key: The recipe's or the ensemble's key.
        name: What a reader calls it.
        kind: How it came about.
        scores: By flat name, such as "test_macro_f1", "test_macro_f1_low", "oof_macro_f1_sd"; see `scores_on_test`
            and `scores_out_of_fold`. One that is not known or not defined is not there. A row that the folds have
            chosen among others can have "oof_macro_f1_crossfit", an honest score of that choice.
        chosen_on: The rows that chose this recipe, its epoch or its weights.
        scored_on: The rows that the test scores, or else the out-of-fold scores, are of.
        seconds: What its training took over all folds, and the search of its stage two.
        images: How many images it was trained on, counting one again in each view, epoch and fold.
        commit: The version of the code.
        command: What to type to get this row again.
        settings: What sets this row apart, in a line.

    Raises:
        ArtifactError: A score is not a number or has an unknown prefix, or the kind is unknown.
    """

    key: str
    name: str
    kind: Kind
    scores: Mapping[str, float]
    chosen_on: str
    scored_on: str
    seconds: float
    images: int
    commit: str
    command: str
    settings: str

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ArtifactError(f"a row must be of kind {', '.join(KINDS)}, but got {self.kind!r}: name one of these")
        for name, value in self.scores.items():
            if not name.startswith(("oof_", "test_")) or not isfinite(value):
                raise ArtifactError(
                    f"a score must be a number under a name that starts with oof_ or test_, but got {name}={value} "
                    f"in row {self.key}: leave out what is not defined"
                )


def scores_out_of_fold(
    probabilities: np.ndarray, labels: np.ndarray, fold_of_row: np.ndarray, class_names: Sequence[str]
) -> dict[str, float]:
    """Returns the out-of-fold scores of a row: the mean of the single folds, and their spread.

    Args:
        probabilities: (N, C) each row from the model that did not learn from it.
        labels: (N,) classes.
        fold_of_row: (N,) folds.
        class_names: The C names.

    Returns:
        "oof_<score>", and "oof_<score>_sd": the standard deviation (ddof 1) over the folds.
    """
    by_fold = [
        scores(probabilities[fold_of_row == fold], labels[fold_of_row == fold], class_names)
        for fold in np.unique(fold_of_row)
    ]
    found = {}
    for name in dict.fromkeys(name for one in by_fold for name in one):
        values = [one[name] for one in by_fold if name in one]
        found[f"oof_{name}"] = float(np.mean(values))
        if len(values) > 1:
            found[f"oof_{name}_sd"] = float(np.std(values, ddof=1))
    return found


def scores_on_test(
    probabilities: np.ndarray, labels: np.ndarray, groups: np.ndarray, class_names: Sequence[str]
) -> dict[str, float]:
    """Returns the test scores of a row, with 95 % intervals of macro-F1 and balanced accuracy over whole groups.

    Args:
        probabilities: (N, C).
        labels: (N,) classes.
        groups: (N,) the group of each row.
        class_names: The C names.

    Returns:
        "test_<score>", "test_macro_f1_low", "test_macro_f1_high", and so for the balanced accuracy.
    """
    found = {f"test_{name}": value for name, value in scores(probabilities, labels, class_names).items()}
    for name, score in (("macro_f1", macro_f1_score), ("balanced_accuracy", balanced_accuracy_score)):
        low, high = bootstrap_interval(score, probabilities, labels, groups)
        found |= {f"test_{name}_low": low, f"test_{name}_high": high}
    return found


@dataclass(frozen=True)
class Leaderboard:
    """All rows of a study, the best first: by macro-F1 on the test part, then out of fold, then by key.

    Attributes:
        rows: The rows; given in any order, kept in the order of their scores. One without a test score follows those
            that have one.
        class_names: The classes, in the manifest's order.
        meta: What holds for all rows, such as the dataset or the date, as pairs to print.
        tables: Further tables, in the order in which they are printed.

    Raises:
        ArtifactError: Two rows have one key, or two tables one label.
    """

    rows: tuple[Row, ...]
    class_names: tuple[str, ...]
    meta: Mapping[str, str] = field(default_factory=dict)
    tables: tuple[ComparisonTable, ...] = ()

    def __post_init__(self) -> None:
        seen: dict[str, Row] = {}
        for row in self.rows:
            if row.key in seen:
                raise ArtifactError(
                    f"a leaderboard must have one row a key, but {row.key} has two, {seen[row.key].name!r} and "
                    f"{row.name!r}: keep one of them"
                )
            seen[row.key] = row
        labels = [table.label for table in self.tables]
        if len(set(labels)) != len(labels):
            raise ArtifactError(f"the tables of a leaderboard must have different labels, but got {labels}: rename one")
        object.__setattr__(self, "rows", tuple(sorted(self.rows, key=_rank)))

    @property
    def score_columns(self) -> tuple[str, ...]:
        """The names of all scores that a row has: headline scores first, test before out-of-fold."""
        return tuple(sorted({name for row in self.rows for name in row.scores}, key=_column_rank))

    def to_table(self) -> pa.Table:
        """Returns one row a row and one column a score, null where a row has none."""
        columns: dict[str, pa.Array] = {
            name: pa.array([getattr(row, name) for row in self.rows], pa.string())
            for name in ("key", "name", "kind", "settings")
        }
        for name in self.score_columns:
            columns[name] = pa.array([row.scores.get(name) for row in self.rows], pa.float64())
        for name in ("chosen_on", "scored_on"):
            columns[name] = pa.array([getattr(row, name) for row in self.rows], pa.string())
        columns["seconds"] = pa.array([row.seconds for row in self.rows], pa.float64())
        columns["images"] = pa.array([row.images for row in self.rows], pa.int64())
        for name in ("commit", "command"):
            columns[name] = pa.array([getattr(row, name) for row in self.rows], pa.string())
        return pa.table(columns)

    def to_json(self) -> dict[str, Any]:
        """Returns all there is, as plain JSON."""
        return {
            "rows": [asdict(row) | {"scores": dict(row.scores)} for row in self.rows],
            "class_names": list(self.class_names),
            "meta": dict(self.meta),
            "tables": [asdict(table) for table in self.tables],
        }

    @classmethod
    def read(cls, path: Path) -> "Leaderboard":
        """Reads leaderboard.json.

        Raises:
            ArtifactError: The file is missing or does not hold a leaderboard.
        """
        known = read_json(path)
        try:
            rows = tuple(Row(**row) for row in known["rows"])
            # A leaderboard of an older version has no tables.
            tables = tuple(ComparisonTable.from_json(table) for table in known.get("tables", []))
            return cls(rows, tuple(known["class_names"]), known["meta"], tables)
        except (KeyError, TypeError, AttributeError) as error:
            raise ArtifactError(f"{path} must hold a leaderboard, but {error}: write it again from its run") from error


def _rank(row: Row) -> tuple[float, float, str]:
    worst = float("inf")
    return -row.scores.get("test_macro_f1", -worst), -row.scores.get("oof_macro_f1", -worst), row.key


def _column_rank(column: str) -> tuple[int, bool, str]:
    part, name = column.split("_", 1)
    for place, score in enumerate(HEADLINE):
        suffix = name.removeprefix(score)
        if suffix in SUFFIXES:
            return place, part == "oof", str(SUFFIXES.index(suffix))
    return len(HEADLINE), part == "oof", name
