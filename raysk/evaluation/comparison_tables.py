"""Comparison tables: the ablation, the expected best of each budget, and the significance of differences."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, isnan
from typing import Any

import numpy as np

from raysk.errors import ArtifactError
from raysk.evaluation.comparison import Difference, expected_best, sentence
from raysk.evaluation.metrics import Metric

Cell = str | float | None

# The columns of published ablation tables, and the scores behind them.
ABLATION = {"accuracy": "accuracy", "precision": "macro_precision", "recall": "balanced_accuracy", "F1": "macro_f1"}

# The columns of tables of differences.
_DIFFERENCES = ("first", "second", "difference", "low", "high", "p", "p corrected")

# The most budgets that fit a page.
MOST_BUDGETS = 10


@dataclass(frozen=True)
class ComparisonTable:
    """A further table of a leaderboard, in plain text that each format escapes.

    Attributes:
        title: Its title.
        label: Its name among the tables of a leaderboard, in lowercase letters, digits and hyphens.
        headings: One per column.
        num_text: Number of text columns, which come first; the others hold numbers.
        cells: The lines. Numbers are printed with three decimals, text as it is, None as missing.
        note: How to read it.

    Raises:
        ArtifactError: The label has other characters, a line has the wrong number of cells, or a number is not finite.
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
                f"a table's label must be of lowercase letters, digits and hyphens, but got {self.label!r}: "
                "choose another"
            )
        for line in self.cells:
            if len(line) != len(self.headings) or any(isinstance(cell, float) and not isfinite(cell) for cell in line):
                raise ArtifactError(
                    f"each line of table {self.label} must have {len(self.headings)} cells with text, finite numbers "
                    f"or None, but got {line}: write None for undefined values"
                )

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> "ComparisonTable":
        """Reads the JSON form that `dataclasses.asdict` gives."""
        cells = tuple(tuple(line) for line in plain["cells"])
        return cls(**{**plain, "headings": tuple(plain["headings"]), "cells": cells})


def grid_table(scores_by_name: Mapping[str, Mapping[str, float]]) -> ComparisonTable:
    """Returns the ablation table in its published form: in percent, on the test part.

    Args:
        scores_by_name: The scores of each `Row` by its name, in print order. The points of the space `focal_ablation`
            give the table of Le et al. 2020, row for row. A row that failed has no scores.
    """
    cells = tuple(
        (name, *(_percent(scores.get(f"test_{score}")) for score in ABLATION.values()))
        for name, scores in scores_by_name.items()
    )
    note = "In percent, on the test part. Precision, recall and F1 are means over the classes."
    return ComparisonTable("Ablation", "ablation", ("", *ABLATION), 1, cells, note)


def choices_table(scores_by_point: Mapping[tuple[str, str], Mapping[str, float]], metric: Metric) -> ComparisonTable:
    """Returns the table of a grid's methods by the choices that each is tried with, such as shares of the labels.

    Args:
        scores_by_point: The scores of each `Row` by (method, choice), in print order. A row that failed has no scores.
        metric: Their metric.
    """
    methods, choices = (tuple(dict.fromkeys(point[place] for point in scores_by_point)) for place in (0, 1))
    column = f"test_{metric.name}"
    cells = tuple(
        (method, *(_with_interval(scores_by_point.get((method, choice), {}), column) for choice in choices))
        for method in methods
    )
    note = "In brackets: 95% interval for new lesions and these trained weights, from whole groups."
    return ComparisonTable(f"{metric.title} on the test part", "choices", ("", *choices), 1, cells, note)


def expected_best_table(scores_by_family: Mapping[str, Sequence[float]], metric: Metric) -> ComparisonTable:
    """Returns each family's expected best score of k recipes, with budgets up to the size of the smallest family.

    The best of 30 recipes of one family and the best of 5 of another are not comparable. See `expected_best`.

    Args:
        scores_by_family: The out-of-fold scores of all tried recipes by family, in any order.
        metric: Their metric.

    Raises:
        ArtifactError: There is no family, or a family has no recipe.
    """
    sizes = {family: len(scores) for family, scores in scores_by_family.items()}
    smallest = min(sizes.values(), default=0)
    if not smallest:
        raise ArtifactError(f"families must have at least one scored recipe each, but got {sizes}: drop empty ones")
    cells: list[tuple[Cell, ...]] = []
    for family, scores in scores_by_family.items():
        values = metric.oriented(np.array(scores))
        best = (metric.oriented(expected_best(values, k)) for k in _budgets(smallest))
        cells.append((family, str(len(values)), *best))
    note = (
        "The expected best score of k recipes drawn at random, without replacement, from all tried recipes; one that "
        "failed has the worst possible score. "
        "The same folds choose and score here: the table compares budgets and does not score the best recipe."
    )
    headings = ("family", "recipes", *(f"k = {k}" for k in _budgets(smallest)))
    return ComparisonTable("Expected best of k recipes", "expected-best", headings, 1, tuple(cells), note)


def seeds_table(scores_by_row: Sequence[Mapping[str, float]], metrics: Sequence[Metric]) -> ComparisonTable:
    """Returns the spread of the scores of one recipe over training seeds, out of fold and on the test part.

    Args:
        scores_by_row: The scores of the `Row` of each seed, at least two.
        metrics: The metrics to show.
    """
    cells: list[tuple[Cell, ...]] = []
    for metric in metrics:
        for prefix, part in (("oof", "out of fold"), ("test", "test part")):
            values = np.array([scores[f"{prefix}_{metric.name}"] for scores in scores_by_row])
            spread = (values.mean(), values.std(ddof=1), values.min(), values.max())
            cells.append((metric.title, part, *map(float, spread)))
    note = (
        f"Over {len(scores_by_row)} training seeds on the same folds and the same test part. The intervals of the "
        "rows are about other lesions; this spread is about other seeds, and comes on top of them."
    )
    headings = ("score", "on", "mean", "standard deviation", "lowest", "highest")
    return ComparisonTable("Spread over training seeds", "seeds", headings, 2, tuple(cells), note)


def finalists_table(
    out_of_fold: Mapping[str, Sequence[float]], on_test: Mapping[str, Sequence[float]], metric: Metric
) -> ComparisonTable:
    """Returns the mean and the spread of the finalists' scores over training seeds.

    Args:
        out_of_fold: The scores out of fold of each training, by finalist.
        on_test: Those on the test part.
        metric: Their metric.
    """
    cells = tuple(
        (name, str(len(scores)), *_mean_and_spread(scores), *_mean_and_spread(on_test[name]))
        for name, scores in out_of_fold.items()
    )
    note = (
        "The best recipes of the search, trained with several seeds on the same folds. The first seed is the one by "
        "which the held-out folds chose them, so its score out of fold is too high, and that of the others is not."
    )
    headings = ("recipe", "seeds", "out of fold", "standard deviation", "test part", "standard deviation of it")
    title = f"Finalists over training seeds, {metric.title}"
    return ComparisonTable(title, "finalists", headings, 1, cells, note)


def seed_significance_table(differences: Sequence[Difference], metric: Metric, level: float = 0.95) -> ComparisonTable:
    """Returns the table of differences from `compare_over_seeds`."""
    note = (
        f"{sentence(differences, metric, level)} The difference is that of the means over the seeds; its interval and "
        "p count both the other lesions and the other trainings that might have been drawn; p corrected is p after "
        "Holm's correction for all lines of the table."
    )
    title = f"Differences in {metric.title} over rows and seeds"
    return ComparisonTable(title, "seed-significance", _DIFFERENCES, 2, _lines(differences), note)


def significance_table(
    differences: Sequence[Difference], metric: Metric, level: float = 0.95, part: str = "the test part"
) -> ComparisonTable:
    """Returns the table of differences from `compare`; its note names the significant ones in words.

    Args:
        differences: At least one.
        metric: As in `compare`.
        level: As in `compare`.
        part: The rows.
    """
    note = (
        f"{sentence(differences, metric, level)} The difference is the first score minus the second on the same rows; "
        f"low and high are the ends of its {100 * level:g}% interval from resamples of whole groups; p is two-sided, "
        "from swapping the two in random groups; p corrected is p after Holm's correction for all lines of the table. "
        "Both are about these trained weights, not about other training seeds."
    )
    title = f"Differences in {metric.title} on {part}"
    return ComparisonTable(title, "significance", _DIFFERENCES, 2, _lines(differences), note)


def _lines(differences: Sequence[Difference]) -> tuple[tuple[Cell, ...], ...]:
    return tuple(
        (
            difference.first,
            difference.second,
            difference.difference,
            _defined(difference.low),
            _defined(difference.high),
            _p(difference.p),
            _p(difference.p_holm),
        )
        for difference in differences
    )


def _mean_and_spread(scores: Sequence[float]) -> tuple[float | None, float | None]:
    return _defined(float(np.mean(scores))), _defined(float(np.std(scores, ddof=1))) if len(scores) > 1 else None


def _budgets(largest: int) -> list[int]:
    """Returns all budgets up to the largest, thinned out to fit a page."""
    if largest <= MOST_BUDGETS:
        return list(range(1, largest + 1))
    # The first recipes gain the most, so budgets grow by equal ratios rather than by equal steps.
    return [int(k) for k in np.unique(np.geomspace(1, largest, MOST_BUDGETS).round())]


def _with_interval(scores: Mapping[str, float], column: str) -> str | None:
    if column not in scores:
        return None
    value, low, high = (scores.get(f"{column}{end}") for end in ("", "_low", "_high"))
    return f"{value:.3f}" if low is None or high is None else f"{value:.3f} [{low:.3f}, {high:.3f}]"


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{100 * share:.1f}"


def _defined(value: float) -> float | None:
    return None if isnan(value) else value


def _p(value: float) -> str:
    # Resampling never yields a p of 0, so none is printed.
    return "<0.001" if value < 0.001 else f"{value:.3f}"
