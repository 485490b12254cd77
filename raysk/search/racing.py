"""Which recipes go on to the next fold: a pure function of predictions of the same rows."""

import numpy as np

from raysk.evaluation.metrics import macro_f1_score, resampled_scores

# A recipe is stopped when fewer than this share of the resampled comparisons favour it.
LEAST_CHANCE = 0.05


def may_still_win(candidate: np.ndarray, incumbent: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> bool:
    """Returns whether a recipe may still be the better one: whether another fold is worth its price.

    A paired bootstrap of macro-F1 over whole groups. Both recipes are compared on the same lesions, so what makes a
    fold hard or easy cancels out, and photographs of one lesion do not count as independent.

    Args:
        candidate: Probabilities (N, C) of the recipe in question.
        incumbent: Probabilities (N, C) of the best recipe so far, on the same rows.
        labels: (N,).
        groups: (N,).
    """
    ours, theirs = (resampled_scores(macro_f1_score, recipe, labels, groups) for recipe in (candidate, incumbent))
    return bool(np.mean(ours >= theirs) >= LEAST_CHANCE)
