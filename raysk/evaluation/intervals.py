"""Intervals around scores: Wilson's, with as many trials as the spread of the resamples is worth."""

import numpy as np
from scipy.special import ndtri, stdtrit

from raysk.evaluation.metrics import Metric

# Resamples of one score differ by less, from rounding.
_ROUNDING = 1e-9


def wilson_interval(rate: float, num_trials: float, quantile: float = float(ndtri(0.975))) -> tuple[float, float]:
    """Returns Wilson's interval of a rate of independent trials.

    Wilson 1927, "Probable Inference, the Law of Succession, and Statistical Inference". Unlike an interval of
    resamples, it stays open where all trials have one outcome.

    Args:
        rate: The share of successes.
        num_trials: The number of trials; a fraction is fine.
        quantile: Half its width in standard deviations; that of the normal distribution for 95 %.
    """
    squared = quantile**2 / num_trials
    centre = (rate + squared / 2) / (1 + squared)
    half = quantile * (rate * (1 - rate) / num_trials + squared / (4 * num_trials)) ** 0.5 / (1 + squared)
    return max(0.0, centre - half), min(1.0, centre + half)


def score_interval(
    score: float, spread: float, class_groups: np.ndarray, limits: tuple[float, float], level: float
) -> tuple[float, float]:
    """Returns the interval of a score, whose ends stay within its limits.

    On the scale from 0 to 1, a score s of standard deviation d is as sure as a rate of s (1 - s) / d^2 independent
    trials. The interval is Wilson's for that many, with Student's quantile, since few groups show d only roughly.
    Where resampling shows no spread at all, the number of trials is that of a mean over the classes.
    benchmarks/coverage.py compares it with other intervals.

    Args:
        score: The score.
        spread: Its standard deviation over resamples of whole groups.
        class_groups: (K,) number of groups of each class; see `groups_of_each_class`.
        limits: The smallest and the largest possible score.
        level: Confidence level.
    """
    low, high = limits
    rate, deviation = min(max((score - low) / (high - low), 0.0), 1.0), spread / (high - low)
    if deviation > _ROUNDING and 0 < rate < 1:
        num_trials = rate * (1 - rate) / deviation**2
        quantile = student_quantile(class_groups, level)
    else:
        num_trials = float(len(class_groups) ** 2 / (1 / class_groups).sum())
        quantile = float(ndtri((1 + level) / 2))
    ends = wilson_interval(rate, num_trials, quantile)
    return low + (high - low) * ends[0], low + (high - low) * ends[1]


def student_quantile(class_groups: np.ndarray, level: float) -> float:
    """Returns the quantile of Student's distribution for the middle `level` of a mean over the classes."""
    return float(stdtrit(degrees_of_freedom(class_groups), (1 + level) / 2))


def degrees_of_freedom(class_groups: np.ndarray) -> float:
    """Returns the degrees of freedom of the spread of a mean over K classes; the rarest classes decide.

    Welch and Satterthwaite's (Satterthwaite 1946), for classes whose means have variances in proportion to 1 / n:
    (sum 1 / n)^2 / sum 1 / (n^2 (n - 1)).

    Args:
        class_groups: (K,) number n of groups of each class.
    """
    variances = 1 / class_groups
    return float(variances.sum() ** 2 / (variances**2 / np.maximum(class_groups - 1, 1)).sum())


def groups_of_each_class(metric: Metric, labels: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Returns the number of groups with rows of each class, (K,), for the classes that a metric is about.

    A metric of one class is about its rows and those of all other classes together, or about one of the two.

    Args:
        metric: The metric.
        labels: (N,) classes.
        groups: (N,) the group of each row, as integers or names.
    """
    kinds = metric.kinds(labels) if metric.label < 0 else (labels == metric.label).astype(int)
    if metric.share_of is not None:
        counted = kinds == (1 if metric.share_of == "class" else 0)
        kinds, groups = kinds[counted], groups[counted]
    _, codes = np.unique(groups, return_inverse=True)
    num_kinds = int(kinds.max()) + 1
    counts = np.bincount(np.unique(codes * num_kinds + kinds) % num_kinds, minlength=num_kinds)
    return counts[counts > 0]
