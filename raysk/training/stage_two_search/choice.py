"""The choice among the settings that a search of stage two tried, and an honest score of that choice.

The best of hundreds of scores on few rows is partly luck. So a plain setting that was fixed before any score was seen,
the anchor, stays the choice until another one is better by more than a standard error: the rule of one standard error
(Breiman et al. 1984, section 3.4.3), with the anchor as the simplest.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

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


def best_settings(tried: Sequence[Tried], anchor: str, goal: Goal, k: int) -> list[Tried]:
    """Returns distinct settings, best first, without any that diverged.

    Two settings with equal scores on every fold usually predict the same, and an ensemble has no use for both.

    Args:
        tried: The settings.
        anchor: Key of the anchor's recipe; none of the settings needs to have it.
        goal: The study's goal.
        k: Folds of a division of the rows.
    """
    sound = _sound(tried, anchor)
    if not sound:
        return []
    best: dict[tuple[float, ...], Tried] = {}
    for place in _ranked(_stacked(sound), sound[0].recipe.key == anchor, goal, k):
        best.setdefault(tuple(sound[place].scores[0]), sound[place])
    return list(best.values())


@dataclass(frozen=True)
class CrossFit:
    """The choice that the other folds make for each fold.

    Args:
        scores: (R k,) the score on each fold of the setting that the other folds of its division choose.
        merits: (R k,) the merit of that setting on these other folds.
    """

    scores: np.ndarray
    merits: np.ndarray

    @classmethod
    def of(cls, tried: Sequence[Tried], anchor: str, goal: Goal, k: int) -> "CrossFit":
        """Chooses for each fold; no score on a fold affects the choice for it.

        Args:
            tried: The settings, of which at least one has not diverged; which ones were tried must not depend on any
                score.
            anchor: Key of the anchor's recipe; none of the settings needs to have it.
            goal: The study's goal.
            k: Folds of a division of the rows.
        """
        sound = _sound(tried, anchor)
        scores = _stacked(sound)
        of_choice, merits = [], []
        for fold in range(scores.shape[2]):
            division = np.arange(fold - fold % k, fold - fold % k + k)
            others = scores[..., division[division != fold]]
            choice = _ranked(others, sound[0].recipe.key == anchor, goal, k - 1)[0]
            of_choice.append(scores[0, choice, fold])
            merits.append(goal.merits(others[:, choice].mean(axis=1)))
        return cls(np.array(of_choice), np.array(merits))


def _sound(tried: Sequence[Tried], anchor: str) -> list[Tried]:
    """Returns the settings that did not diverge, the anchor first."""
    return sorted((setting for setting in tried if not setting.has_diverged), key=lambda one: one.recipe.key != anchor)


def _stacked(sound: Sequence[Tried]) -> np.ndarray:
    return np.stack([setting.scores for setting in sound], axis=1)  # (S, M, F)


def _ranked(scores: np.ndarray, has_anchor: bool, goal: Goal, num_independent: int) -> np.ndarray:
    """Returns the places of settings, the choice first, then by merit.

    Args:
        scores: (S, M, F) by all metrics of the goal.
        has_anchor: Whether the first setting is the anchor.
        goal: The study's goal.
        num_independent: Number of folds that share no rows.
    """
    merits = goal.merits(scores.mean(axis=2).T)
    ranked: np.ndarray = np.argsort(-merits, kind="stable")
    if has_anchor and merits[ranked[0]] - merits[0] <= _standard_error(scores[0], num_independent):
        ranked = np.concatenate([[0], ranked[ranked != 0]])
    return ranked


def _standard_error(scores: np.ndarray, num_independent: int) -> float:
    """Returns the standard error of the difference between the means of two settings over the folds.

    The noise is what is left of scores = setting + fold + noise.

    Args:
        scores: (M, F).
        num_independent: Number of folds that share no rows.
    """
    of_settings, of_folds = scores.mean(axis=1, keepdims=True), scores.mean(axis=0)
    freedom = (scores.shape[0] - 1) * (scores.shape[1] - 1)
    noise = np.square(scores - of_settings - of_folds + scores.mean()).sum() / max(1, freedom)
    return float(np.sqrt(2 * noise / num_independent))
