"""Greedy selection of ensemble members, and its cross-fitted score (Caruana et al. 2004)."""

from dataclasses import dataclass

import numpy as np

from raysk.errors import ConfigError, DataError
from raysk.evaluation.goals import Goal

# Scores that differ by less are equal up to rounding.
TIE = 1e-12

# Candidates are tried in blocks whose sums fit the processor's caches.
BLOCK_VALUES = 1 << 20


@dataclass(frozen=True)
class Selection:
    """The course of a greedy selection.

    Attributes:
        picks: The member picked in each step; a member can be picked again.
        scores: Score of the average after each step, by the metric of the goal.
        merits: Merit of the average after each step; see `Goal`.
        num_members: Number of candidates.
    """

    picks: tuple[int, ...]
    scores: tuple[float, ...]
    merits: tuple[float, ...]
    num_members: int

    @property
    def num_kept(self) -> int:
        """Number of picks up to the best average; the fewest of equals."""
        return int(np.argmax(self.merits)) + 1

    @property
    def weights(self) -> np.ndarray:
        """How often each member occurs among the kept picks, (M,) int64."""
        return np.bincount(self.picks[: self.num_kept], minlength=self.num_members)


def greedy_selection(probabilities: np.ndarray, labels: np.ndarray, goal: Goal, num_picks: int = 25) -> Selection:
    """Adds, in each step, the member that gives the average the highest merit.

    The first pick is the best single member. Members can be picked again, which gives them larger weights. Ties go to
    the lower log loss, then to the earlier member.

    Args:
        probabilities: (M, N, C), one candidate per member.
        labels: (N,) classes.
        goal: Averages that meet its requirements come before those that do not.
        num_picks: Number of steps; the selection keeps the picks up to the best average.

    Raises:
        ConfigError: `num_picks` is below 1.
        DataError: There is no member or no row, or the number of labels is not N.
    """
    if num_picks < 1:
        raise ConfigError(f"an ensemble needs at least 1 pick, but got {num_picks}: 25 is usual")
    if probabilities.ndim != 3 or not probabilities.size or len(labels) != probabilities.shape[1]:
        raise DataError(
            "a selection needs probabilities (members, rows, classes) and a label for each row, "
            f"but got shapes {probabilities.shape} and {labels.shape}: pass both for the same rows"
        )
    total = np.zeros(probabilities.shape[1:])
    picks: list[int] = []
    scores: list[float] = []
    merits: list[float] = []
    for _ in range(num_picks):
        with_each = _merits_with_each(total, len(picks), probabilities, labels, goal)
        tied = np.flatnonzero(with_each >= with_each.max() - TIE)
        if len(tied) > 1:
            tied = tied[[np.argmax(_likelihoods_with_each(total, len(picks), probabilities, labels, goal, tied))]]
        pick = int(tied[0])
        picks.append(pick)
        merits.append(float(with_each[pick]))
        total += probabilities[pick]
        scores.append(float(goal.metric(total / len(picks), labels)))
    return Selection(tuple(picks), tuple(scores), tuple(merits), len(probabilities))


def _merits_with_each(
    total: np.ndarray, num_picked: int, probabilities: np.ndarray, labels: np.ndarray, goal: Goal
) -> np.ndarray:
    """Returns (M,) the merit of the mean of the picked members, whose sum is `total`, and each member."""
    num_members, num_rows, num_classes = probabilities.shape
    size = max(1, BLOCK_VALUES // (num_rows * num_classes))
    blocks = []
    for start in range(0, num_members, size):
        means = total + probabilities[start : start + size]
        means /= num_picked + 1
        blocks.append(goal.merits(goal.scores(means, labels)))
    return np.concatenate(blocks)


def _likelihoods_with_each(
    total: np.ndarray,
    num_picked: int,
    probabilities: np.ndarray,
    labels: np.ndarray,
    goal: Goal,
    members: np.ndarray,
) -> np.ndarray:
    """Returns the mean log likelihood of the mean of the picked members and each of `members`."""
    means = ((total + probabilities[member]) / (num_picked + 1) for member in members)
    return np.array([goal.metric.log_likelihoods(each, labels).mean() for each in means])


def cross_fitted_predictions(
    probabilities: np.ndarray, labels: np.ndarray, fold_of_row: np.ndarray, goal: Goal, num_picks: int = 25
) -> np.ndarray:
    """Predicts each fold with the ensemble that is selected on the other folds.

    The score of these predictions is an honest estimate for the ensemble, since no row influences its own weights.

    Args:
        probabilities: (M, N, C) out-of-fold probabilities, one candidate per member.
        labels: (N,) classes.
        fold_of_row: (N,) folds, at least two different ones.
        goal: As in `greedy_selection`.
        num_picks: As in `greedy_selection`.

    Returns:
        (N, C) probabilities.

    Raises:
        DataError: There is only one fold.
    """
    folds = np.unique(fold_of_row)
    if len(folds) < 2:
        raise DataError(f"cross-fitting needs rows of at least two folds, but got {len(folds)}: run more folds")
    assembled = np.empty(probabilities.shape[1:])
    for fold in folds:
        held_out = fold_of_row == fold
        selection = greedy_selection(probabilities[:, ~held_out], labels[~held_out], goal, num_picks)
        assembled[held_out] = weighted_mean(probabilities[:, held_out], selection.weights)
    return assembled


def weighted_mean(probabilities: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Returns the mean of (M, N, C) probabilities with (M,) weights, as (N, C) float64."""
    used = np.flatnonzero(weights)
    return np.tensordot(weights[used] / weights.sum(), probabilities[used], axes=1)
