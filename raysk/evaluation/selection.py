"""Greedy selection of ensemble members, and its cross-fitted score (Caruana et al. 2004)."""

from dataclasses import dataclass

import numpy as np

from raysk.errors import ConfigError, DataError
from raysk.evaluation.metrics import count_classes, macro_f1_score

# Scores that differ by less are equal up to rounding.
TIE = 1e-12

# Candidates are tried in blocks whose sums fit the processor's caches.
BLOCK_VALUES = 1 << 20


@dataclass(frozen=True)
class Selection:
    """The course of a greedy selection.

    Attributes:
        picks: The member picked in each step; a member can be picked again.
        scores: Macro-F1 of the average after each step.
        num_members: Number of candidates.
    """

    picks: tuple[int, ...]
    scores: tuple[float, ...]
    num_members: int

    @property
    def num_kept(self) -> int:
        """Number of picks up to the best score; the fewest of equals."""
        return int(np.argmax(self.scores)) + 1

    @property
    def weights(self) -> np.ndarray:
        """How often each member occurs among the kept picks, (M,) int64."""
        return np.bincount(self.picks[: self.num_kept], minlength=self.num_members)


def greedy_selection(probabilities: np.ndarray, labels: np.ndarray, num_picks: int = 25) -> Selection:
    """Adds, in each step, the member that gives the average the highest macro-F1.

    The first pick is the best single member. Members can be picked again, which gives them larger weights. Ties go to
    the lower log loss, then to the earlier member.

    Args:
        probabilities: (M, N, C), one candidate per member.
        labels: (N,) classes.
        num_picks: Number of steps; the selection keeps the picks up to the best score.

    Raises:
        ConfigError: `num_picks` is below 1.
        DataError: There is no member or no row, or the number of labels is not N.
    """
    if num_picks < 1:
        raise ConfigError(f"an ensemble needs at least 1 pick, but got {num_picks}: 25 is usual")
    if probabilities.ndim != 3 or not probabilities.size or labels.shape != probabilities.shape[1:2]:
        raise DataError(
            "a selection needs probabilities (members, rows, classes) and a label for each row, "
            f"but got shapes {probabilities.shape} and {labels.shape}: pass both for the same rows"
        )
    total = np.zeros(probabilities.shape[1:])
    picks: list[int] = []
    scores: list[float] = []
    for _ in range(num_picks):
        candidate_scores = _scores_with_each(total, probabilities, labels)
        best = candidate_scores.max()
        tied = np.flatnonzero(candidate_scores >= best - TIE)
        pick = int(tied[np.argmin(_losses_with_each(total, probabilities, labels, tied))])
        picks.append(pick)
        scores.append(float(candidate_scores[pick]))
        total += probabilities[pick]
    return Selection(tuple(picks), tuple(scores), len(probabilities))


def _scores_with_each(total: np.ndarray, probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns (M,) macro-F1 of `total` plus each member; a sum predicts the same classes as its mean."""
    num_members, num_rows, num_classes = probabilities.shape
    size = max(1, BLOCK_VALUES // (num_rows * num_classes))
    blocks = []
    for start in range(0, num_members, size):
        predicted = (total + probabilities[start : start + size]).argmax(axis=2)
        blocks.append(count_classes(predicted, labels, num_classes).macro_f1())
    return np.concatenate(blocks)


def _losses_with_each(
    total: np.ndarray, probabilities: np.ndarray, labels: np.ndarray, members: np.ndarray
) -> np.ndarray:
    """Returns the log loss of `total` plus each of `members`, up to a constant."""
    rows = np.arange(len(labels))
    likelihood = total[rows, labels] + probabilities[members[:, np.newaxis], rows, labels]
    return -np.log(np.maximum(likelihood, np.finfo(np.float32).tiny)).mean(axis=1)


def cross_fitted_predictions(
    probabilities: np.ndarray, labels: np.ndarray, fold_of_row: np.ndarray, num_picks: int = 25
) -> np.ndarray:
    """Predicts each fold with the ensemble that is selected on the other folds.

    The score of these predictions is an honest estimate for the ensemble, since no row influences its own weights.

    Args:
        probabilities: (M, N, C) out-of-fold probabilities, one candidate per member.
        labels: (N,) classes.
        fold_of_row: (N,) folds, at least two different ones.
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
        selection = greedy_selection(probabilities[:, ~held_out], labels[~held_out], num_picks)
        assembled[held_out] = weighted_mean(probabilities[:, held_out], selection.weights)
    return assembled


def cross_fitted_score(
    probabilities: np.ndarray, labels: np.ndarray, fold_of_row: np.ndarray, num_picks: int = 25
) -> float:
    """Returns macro-F1 of `cross_fitted_predictions` over all rows at once; same arguments."""
    return macro_f1_score(cross_fitted_predictions(probabilities, labels, fold_of_row, num_picks), labels)


def weighted_mean(probabilities: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Returns the mean of (M, N, C) probabilities with (M,) weights, as (N, C) float64."""
    used = np.flatnonzero(weights)
    return np.tensordot(weights[used] / weights.sum(), probabilities[used], axes=1)
