"""The choice among the settings that a search of stage two tried, and an honest score of that choice."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from raysk.evaluation.comparison import cross_fitted_choice, scores_elsewhere
from raysk.evaluation.goals import Goal
from raysk.evaluation.smoothing import smoothed
from raysk.recipe import Recipe


@dataclass
class Tried:
    """A setting, its parameter values, and its scores on the held-out rows of each fold.

    Args:
        recipe: The recipe that the setting gives.
        values: Its values by parameter.
        scores: (S, R k) scores by all metrics of the goal; NaN on a fold where it diverged.
    """

    recipe: Recipe
    values: dict[str, Any]
    scores: np.ndarray

    @property
    def has_diverged(self) -> bool:
        """Whether it diverged on any fold."""
        return bool(np.isnan(self.scores).any())

    def filled(self, goal: Goal) -> np.ndarray:
        """Returns the scores, with the worst of each metric on a fold where it diverged."""
        worst = np.array([metric.worst for metric in goal.metrics])
        return np.where(np.isnan(self.scores), worst[:, np.newaxis], self.scores)


def _expected(tried: Sequence[Tried], scores: np.ndarray, goal: Goal) -> np.ndarray:
    """Returns the expected score of each setting, (M,), from one score of each; the worst for one that diverged."""
    diverged = np.array([setting.has_diverged for setting in tried])
    expected = smoothed([setting.values for setting in tried], np.where(diverged, np.nan, scores))
    return np.where(diverged, goal.metric.worst, expected)


def best_settings(tried: Sequence[Tried], goal: Goal) -> list[Tried]:
    """Returns distinct settings with the highest expected scores, best first, without any that diverged.

    Those whose mean over the folds meets all requirements come first, then the closest ones. Two settings with equal
    scores on every fold usually predict the same, and an ensemble has no use for both.
    """
    if not tried:
        return []
    means = np.array([setting.filled(goal).mean(axis=1) for setting in tried])
    merits = goal.merits_of(_expected(tried, means[:, 0], goal), goal.shortfalls(means))
    best: dict[tuple[float, ...], Tried] = {}
    for index in np.argsort(-merits, kind="stable"):
        if not tried[index].has_diverged:
            best.setdefault(tuple(tried[index].scores[0]), tried[index])
    return list(best.values())


@dataclass(frozen=True)
class CrossFit:
    """The choice that the other folds make for each fold.

    Args:
        expected: (M, R k) the expected score of each setting according to the other folds.
        shortfalls: (M, R k) the sum of the requirements' shortfalls on the other folds.
        scores: (R k) the score on each fold of the setting that the other folds choose.
    """

    expected: np.ndarray
    shortfalls: np.ndarray
    scores: np.ndarray

    @classmethod
    def of(cls, tried: Sequence[Tried], goal: Goal, k: int) -> "CrossFit":
        """Chooses for each fold; no score on a fold affects the choice for it.

        Args:
            tried: The settings; which ones were tried must not depend on any score.
            goal: The study's goal.
            k: Folds of a division of the rows.
        """
        scores = np.stack([setting.filled(goal) for setting in tried], axis=1)  # (S, M, R k)
        elsewhere = np.stack([scores_elsewhere(of_metric, k) for of_metric in scores], axis=2)  # (M, R k, S)
        expected = np.stack([_expected(tried, column, goal) for column in elsewhere[..., 0].T], axis=1)
        shortfalls = goal.shortfalls(elsewhere)
        chosen = cross_fitted_choice(goal.metric.oriented(scores[0]), k, goal.merits_of(expected, shortfalls))
        return cls(expected, shortfalls, np.asarray(goal.metric.oriented(chosen)))
