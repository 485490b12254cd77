"""Class shares that differ from those of training: their estimate from predictions, and the corrected predictions.

Saerens, Latinne, Decaestecker 2002, "Adjusting the Outputs of a Classifier to New a Priori Probabilities: A Simple
Procedure". They assume that the images of a class look alike in both places, and only the shares of the classes differ.
"""

import numpy as np
from scipy.stats import chi2

# A probability of exactly 0 could never be corrected.
_LEAST = 1e-12
_MOST_STEPS = 10_000
_TOLERANCE = 1e-7


def corrected(probabilities: np.ndarray, assumed: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Returns the probabilities where the classes have other shares (equation 2.4), (N, C).

    Args:
        probabilities: (N, C).
        assumed: (C,) the shares that these probabilities assume, each above 0.
        shares: (C,) the shares of the classes among the images; a class that does not occur has 0.
    """
    weighted = np.maximum(probabilities, _LEAST) * (shares / assumed)
    result: np.ndarray = weighted / weighted.sum(axis=1, keepdims=True)
    return result


def estimated_shares(probabilities: np.ndarray, assumed: np.ndarray) -> np.ndarray:
    """Returns the shares of the classes among unlabelled images by expectation-maximisation (equation 2.9), (C,).

    The likelihood of the images grows with every step. Arguments as in `corrected`.
    """
    shares = assumed / assumed.sum()
    for _ in range(_MOST_STEPS):
        before, shares = shares, corrected(probabilities, assumed, shares).mean(axis=0)
        if np.abs(shares - before).max() < _TOLERANCE:
            break
    return shares


def shift_p_value(
    probabilities: np.ndarray, assumed: np.ndarray, before: np.ndarray, estimated: np.ndarray, num_groups: int
) -> float:
    """Returns the p-value of the hypothesis that the classes have the shares `before` (section 2.4).

    It is a likelihood ratio test with C - 1 degrees of freedom. Predictions that hardly depend on the image fit any
    shares, and the estimate from them is arbitrary: this test says so.

    Args:
        probabilities: (N, C).
        assumed: (C,) the shares that these probabilities assume, each above 0.
        before: (C,) the shares of the hypothesis, such as those of training.
        estimated: (C,) as from `estimated_shares`.
        num_groups: Number of groups among the images: those of a group count as one.
    """
    odds = np.maximum(probabilities, _LEAST) / assumed
    log_ratio = float(np.log((odds @ estimated) / (odds @ before)).sum())
    statistic = 2 * log_ratio * num_groups / len(probabilities)
    return float(chi2.sf(statistic, probabilities.shape[1] - 1))


def assumed_shares(probabilities: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Returns the class shares that the probabilities of a classifier assume, (C,).

    A classifier that was trained on balanced batches assumes equal shares, whatever the shares of its rows. On images
    that it did not learn from, with known shares, the corrected probabilities must have these shares as their mean.
    Alternately scaling columns and rows finds the correction (Sinkhorn 1967, "Diagonal Equivalence to Matrices with
    Prescribed Row and Column Sums").

    Args:
        probabilities: (N, C) of such images.
        shares: (C,) of the classes among them, each above 0.
    """
    weights = np.ones(len(shares))
    for _ in range(_MOST_STEPS):
        # `corrected` scales rows; the factors scale columns.
        means = corrected(probabilities, np.ones(len(shares)), weights).mean(axis=0)
        weights = weights * shares / means
        weights /= weights.sum()
        if np.abs(means - shares).max() < _TOLERANCE:
            break
    assumed = shares / weights
    result: np.ndarray = assumed / assumed.sum()
    return result
