"""The choice among the settings that a search of stage two tried, and an honest score of that choice."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from raysk.evaluation.comparison import cross_fitted_choice, scores_elsewhere
from raysk.evaluation.goals import Goal
from raysk.recipe import Recipe


@dataclass
class Tried:
    """A setting, and its scores on the held-out rows of each fold.

    Args:
        recipe: The recipe that the setting gives.
        scores: (S, R k) scores by all metrics of the goal; NaN on a fold where it diverged.
    """

    recipe: Recipe
    scores: np.ndarray

    @property
    def has_diverged(self) -> bool:
        """Whether it diverged on any fold."""
        return bool(np.isnan(self.scores).any())

    def filled(self, goal: Goal) -> np.ndarray:
        """Returns the scores, with the worst of each metric on all folds if it diverged on any."""
        worst = np.array([metric.worst for metric in goal.metrics])[:, np.newaxis]
        return np.broadcast_to(worst, self.scores.shape) if self.has_diverged else self.scores


def best_settings(tried: Sequence[Tried], goal: Goal) -> list[Tried]:
    """Returns distinct settings by the merit of their means over the folds, best first, without any that diverged.

    Two settings with equal scores on every fold usually predict the same, and an ensemble has no use for both.
    """
    sound = [setting for setting in tried if not setting.has_diverged]
    means = np.array([setting.scores.mean(axis=1) for setting in sound]).reshape(-1, len(goal.metrics))
    best: dict[tuple[float, ...], Tried] = {}
    for index in np.argsort(-goal.merits(means), kind="stable"):
        best.setdefault(tuple(sound[index].scores[0]), sound[index])
    return list(best.values())


@dataclass(frozen=True)
class CrossFit:
    """The choice that the other folds make for each fold.

    Args:
        merits: (M, R k) the merit of each setting on the other folds.
        scores: (R k) the score on each fold of the setting that the other folds choose.
    """

    merits: np.ndarray
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
        merits = goal.merits(np.stack([scores_elsewhere(of_metric, k) for of_metric in scores], axis=2))
        chosen = cross_fitted_choice(goal.metric.oriented(scores[0]), k, merits)
        return cls(merits, np.asarray(goal.metric.oriented(chosen)))
