"""Tables beside those of the rows: an ablation, what a budget buys, which differences hold."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, isnan
from typing import Any

import numpy as np

from raysk.errors import ArtifactError
from raysk.evaluation.comparison import Difference, expected_best, sentence

Cell = str | float | None

# The columns of an ablation, as the published tables have them, and the scores that they are.
ABLATION = {"accuracy": "accuracy", "precision": "macro_precision", "recall": "balanced_accuracy", "F1": "macro_f1"}

# How many budgets a page has room for.
MOST_BUDGETS = 10


@dataclass(frozen=True)
class ComparisonTable:
    """A table of its own on a leaderboard; its texts are plain, and each format escapes them.

    Attributes:
        title: What it shows.
        label: Names it among the tables of a leaderboard, in small letters, digits and hyphens.
        headings: One a column.
        num_text: How many columns at the left hold words; the others hold numbers.
        cells: The lines. A number is printed with three decimals, text as it is, None as what is missing.
        note: How to read it.

    Raises:
        ArtifactError: The label cannot be one, a line has another number of cells, or a number is not finite.
    """

    title: str
    label: str
    headings: tuple[str, ...]
    num_text: int
    cells: tuple[tuple[Cell, ...], ...]
    note: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9-]*", self.label):
            raise ArtifactError(
                f"a table's label must be of small letters, digits and hyphens, but got {self.label!r}: choose another"
            )
        for line in self.cells:
            if len(line) != len(self.headings) or any(isinstance(cell, float) and not isfinite(cell) for cell in line):
                raise ArtifactError(
                    f"each line of table {self.label} must have {len(self.headings)} cells with text, finite numbers "
                    f"or None, but got {line}: write None for what is not defined"
                )

    @classmethod
    def from_json(cls, known: Mapping[str, Any]) -> "ComparisonTable":
        """Returns the table that `dataclasses.asdict` and JSON made this of."""
        cells = tuple(tuple(line) for line in known["cells"])
        return cls(**{**known, "headings": tuple(known["headings"]), "cells": cells})


def grid_table(scores_by_name: Mapping[str, Mapping[str, float]]) -> ComparisonTable:
    """Returns the table in which a study of leaving parts out is published: in percent, on the test part.

    Args:
        scores_by_name: The scores of a `Row` by what to call it, in the order to print; with the points of the space
            `focal_ablation`, this is the table of Le et al. 2020, row for row. A row that failed has none.
    """
    cells = tuple(
        (name, *(_percent(scores.get(f"test_{score}")) for score in ABLATION.values()))
        for name, scores in scores_by_name.items()
    )
    note = "In percent, on the test part. Precision, recall and F1 are means over the classes."
    return ComparisonTable("Ablation", "ablation", ("", *ABLATION), 1, cells, note)


def expected_best_table(scores_by_family: Mapping[str, Sequence[float]]) -> ComparisonTable:
    """Returns what the best of k recipes is expected to score: families at the same budget, up to the smallest family.

    The best of 30 recipes of one family and of 5 of another is no comparison. See `expected_best`.

    Args:
        scores_by_family: The out-of-fold scores of all recipes that were tried, by family, in any order.

    Raises:
        ArtifactError: There is no family, or one without a recipe.
    """
    sizes = {family: len(scores) for family, scores in scores_by_family.items()}
    smallest = min(sizes.values(), default=0)
    if not smallest:
        raise ArtifactError(f"families must have at least one scored recipe each, but got {sizes}: drop empty ones")
    cells: list[tuple[Cell, ...]] = []
    for family, scores in scores_by_family.items():
        values = np.array(scores)
        cells.append((family, str(len(values)), *(expected_best(values, k) for k in _budgets(smallest))))
    note = (
        "The expected best score of k recipes drawn blindly, without replacement, from those that were tried. "
        "The same folds choose and score here: read it as what a budget buys, not as what the best is worth."
    )
    headings = ("family", "recipes", *(f"k = {k}" for k in _budgets(smallest)))
    return ComparisonTable("Expected best of k recipes", "expected-best", headings, 1, tuple(cells), note)


def significance_table(
    differences: Sequence[Difference], level: float = 0.95, score: str = "macro-F1 on the test part"
) -> ComparisonTable:
    """Returns all differences that `compare` found in a score at a level, and below them in words which hold.

    Args:
        differences: At least one.
        level: As in `compare`.
        score: What a reader calls the score.
    """
    cells = tuple(
        (one.first, one.second, one.difference, _defined(one.low), _defined(one.high), _p(one.p), _p(one.p_holm))
        for one in differences
    )
    note = (
        f"{sentence(differences, level)} The difference is the score of the first less that of the second on the same "
        f"rows; low and high end its {100 * level:g}% interval from resamples of whole groups; p is two-sided from the "
        "same resamples, and corrected for all lines of the table by Holm's method."
    )
    headings = ("first", "second", "difference", "low", "high", "p", "p corrected")
    return ComparisonTable(f"Differences in {score}", "significance", headings, 2, cells, note)


def _budgets(largest: int) -> list[int]:
    """Returns all budgets up to the largest, or as many as a page has room for."""
    if largest <= MOST_BUDGETS:
        return list(range(1, largest + 1))
    # The first recipes gain the most, so that equal ratios of budgets tell more than equal steps.
    return [int(k) for k in np.unique(np.geomspace(1, largest, MOST_BUDGETS).round())]


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{100 * share:.1f}"


def _defined(value: float) -> float | None:
    return None if isnan(value) else value


def _p(value: float) -> str:
    # Resampling never finds a p of 0, so none is printed.
    return "<0.001" if value < 0.001 else f"{value:.3f}"
