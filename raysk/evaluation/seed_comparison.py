"""Paired tests of recipes that were trained with several seeds: over other rows, and over other trainings."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
from scipy.special import stdtr, stdtrit

from raysk.evaluation.comparison import Difference, holm
from raysk.evaluation.intervals import degrees_of_freedom, groups_of_each_class
from raysk.evaluation.metrics import Metric
from raysk.evaluation.resampling import resampled_scores, spread_of


def compare_over_seeds(
    contestants: Mapping[str, Sequence[np.ndarray]],
    labels: np.ndarray,
    groups: np.ndarray,
    metric: Metric,
    num_samples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> list[Difference]:
    """Compares each pair of contestants by their mean scores over training seeds.

    The difference of two means has two sources of chance, whose variances add up: the rows, by resamples of whole
    groups that score all trainings of both contestants; and the trainings, by the variance s^2 over the seeds of each,
    (s_1^2 / S_1 + s_2^2 / S_2). The test is Student's, with the degrees of freedom of Welch and Satterthwaite
    (Satterthwaite 1946) over these three parts. So a few seeds show only large differences: their spread is not known.

    Args:
        contestants: By name, the (N, C) probabilities of each training; at least two trainings.
        labels: (N,) classes from 0 to C - 1.
        groups: (N,) the group of each row, as integers or names.
        metric: The metric to compare by.
        num_samples: Number of resamples.
        seed: Seed of the resamples.
        level: Confidence level of the intervals.

    Returns:
        One difference per pair, in the order of the contestants.
    """
    scores, resampled = {}, {}
    for name, trainings in contestants.items():
        scores[name] = np.array([metric(probabilities, labels) for probabilities in trainings])
        resampled[name] = np.mean(
            [resampled_scores(metric, each, labels, groups, num_samples, seed) for each in trainings], axis=0
        )
    of_rows = degrees_of_freedom(groups_of_each_class(metric, labels, groups))
    pairs = list(combinations(contestants, 2))
    differences, errors, freedoms = [], [], []
    for first, second in pairs:
        of_trainings = [_of_mean(scores[name]) for name in (first, second)]
        variances = np.array([spread_of(resampled[first] - resampled[second]) ** 2, *of_trainings])
        error, freedom = _combined(variances, np.array([of_rows, len(scores[first]) - 1, len(scores[second]) - 1]))
        differences.append(float(scores[first].mean() - scores[second].mean()))
        errors.append(error)
        freedoms.append(freedom)
    p_values = [_p_value(*parts) for parts in zip(differences, errors, freedoms, strict=True)]
    corrected = holm(np.array(p_values))
    halves = [float(stdtrit(freedom, (1 + level) / 2)) * error for error, freedom in zip(errors, freedoms, strict=True)]
    return [
        Difference(*pair, d, d - half, d + half, p, float(p_holm))
        for pair, d, half, p, p_holm in zip(pairs, differences, halves, p_values, corrected, strict=True)
    ]


def _p_value(difference: float, error: float, freedom: float) -> float:
    return float(2 * stdtr(freedom, -abs(difference) / error)) if error else float(difference == 0)


def _of_mean(values: np.ndarray) -> float:
    """Returns the variance of a mean."""
    return float(values.var(ddof=1) / len(values))


def _combined(variances: np.ndarray, freedoms: np.ndarray) -> tuple[float, float]:
    """Returns the standard error and the degrees of freedom of a sum of independent parts, by Satterthwaite."""
    total = float(variances.sum())
    if not total:
        return 0.0, 1.0
    return total**0.5, float(total**2 / (variances**2 / freedoms).sum())
