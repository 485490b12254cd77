"""The bootstrap over whole groups: photographs of one lesion are alike, so resampling rows would be too sure."""

import numpy as np

from raysk.evaluation.metrics import Metric
from raysk.evaluation.metrics.base import check_match

# Resamples are drawn in blocks that fit the processor's caches.
BLOCK_DRAWS = 1 << 16


def resampled_scores(
    metric: Metric,
    probabilities: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    num_samples: int = 1000,
    seed: int = 0,
) -> np.ndarray:
    """Returns the score on each bootstrap resample of whole groups, (S,), NaN where it is not defined.

    The resamples depend only on the groups and the seed, so the scores of two recipes on the same rows are paired, and
    so are those of two metrics.

    Args:
        metric: Any metric; a resample costs a weighting of the rows, not a copy of them.
        probabilities: (N, C).
        labels: (N,) classes from 0 to C - 1.
        groups: (N,) the group of each row, as integers or names.
        num_samples: S.
        seed: Seed of the resamples.

    Raises:
        DataError: The labels do not match the probabilities.
    """
    check_match(probabilities, labels)
    names, codes = np.unique(groups, return_inverse=True)
    num_groups, random = len(names), np.random.default_rng(seed)
    score = metric.resampler(probabilities, labels, codes)
    size = max(1, BLOCK_DRAWS // num_groups)
    blocks = []
    for start in range(0, num_samples, size):
        # A block draws the same numbers as its samples would one after another.
        drawn = random.integers(num_groups, size=(min(size, num_samples - start), num_groups))
        bins = drawn + num_groups * np.arange(len(drawn))[:, np.newaxis]
        blocks.append(score(np.bincount(bins.ravel(), minlength=drawn.size).reshape(drawn.shape)))
    return np.concatenate(blocks)


def bootstrap_interval(
    metric: Metric,
    probabilities: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    num_samples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float]:
    """Returns the percentile bootstrap interval of a score: the ends of the middle `level` of `resampled_scores`.

    Resamples in which the score is undefined are left out; both ends are NaN if it is undefined in all. Arguments as
    in `resampled_scores`.
    """
    values = resampled_scores(metric, probabilities, labels, groups, num_samples, seed)
    defined = values[~np.isnan(values)]
    if not len(defined):
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
