"""The bootstrap over whole groups: photographs of one lesion are alike, so resampling rows would be too sure."""

from collections.abc import Iterator, Sequence

import numpy as np

from raysk.evaluation.intervals import groups_of_each_class, score_interval
from raysk.evaluation.metrics import Metric

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
    scores: np.ndarray = _resampled([metric], probabilities, labels, groups, num_samples, seed)[0]
    return scores


def bootstrap_interval(
    metric: Metric,
    probabilities: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    num_samples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float]:
    """Returns the interval of one score; see `bootstrap_intervals`."""
    return bootstrap_intervals([metric], probabilities, labels, groups, num_samples, seed, level)[0]


def bootstrap_intervals(
    metrics: Sequence[Metric],
    probabilities: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    num_samples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> list[tuple[float, float]]:
    """Returns the interval of each score, by `score_interval` with the spread of `resampled_scores`.

    Resamples in which a score is undefined are left out; both ends are NaN if the score itself is undefined. Other
    arguments as in `resampled_scores`.

    Args:
        level: Confidence level.
    """
    resampled = _resampled(metrics, probabilities, labels, groups, num_samples, seed)
    intervals = []
    for metric, values in zip(metrics, resampled, strict=True):
        score = float(metric(probabilities, labels))
        if np.isnan(score):
            intervals.append((float("nan"), float("nan")))
            continue
        class_groups = groups_of_each_class(metric, labels, groups)
        intervals.append(score_interval(score, spread_of(values), class_groups, metric.range, level))
    return intervals


def mean_interval(
    values: np.ndarray, groups: np.ndarray, num_samples: int = 1000, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Returns the interval of the mean of values of rows, as `bootstrap_intervals` gives that of a score.

    Args:
        values: (N,), at least one, in [0, 1].
        groups: (N,) the group of each row, as integers or names.
        num_samples: Number of resamples.
        seed: Seed of the resamples.
        level: Confidence level.
    """
    names, codes = np.unique(groups, return_inverse=True)
    sums, counts = np.bincount(codes, values), np.bincount(codes)
    means = [times @ sums / (times @ counts) for times in _draws(len(names), num_samples, seed)]
    spread = spread_of(np.concatenate(means))
    return score_interval(float(values.mean()), spread, np.array([len(names)]), (0.0, 1.0), level)


def swapped_differences(
    metric: Metric,
    first: np.ndarray,
    second: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    num_samples: int,
    seed: int = 0,
) -> np.ndarray:
    """Returns the differences of two recipes' scores after swapping them in random groups, (S,).

    Each group is swapped with a probability of one half. Undefined differences are left out. The swaps depend only on
    the groups and the seed.

    Args:
        metric: Any metric.
        first: (N, C) probabilities of one recipe.
        second: (N, C) those of the other.
        labels: (N,) classes from 0 to C - 1.
        groups: (N,) the group of each row, as integers or names.
        num_samples: S.
        seed: Seed of the swaps.
    """
    names, codes = np.unique(groups, return_inverse=True)
    num_groups, random = len(names), np.random.default_rng(seed)
    # Both recipes' rows side by side, in groups of their own: a sample takes each group from one of the two.
    score = metric.resampler(
        np.concatenate([first, second]), np.concatenate([labels, labels]), np.concatenate([codes, num_groups + codes])
    )
    size = max(1, BLOCK_DRAWS // num_groups)
    blocks = []
    for start in range(0, num_samples, size):
        kept = random.integers(2, size=(min(size, num_samples - start), num_groups))
        blocks.append(score(np.hstack([kept, 1 - kept])) - score(np.hstack([1 - kept, kept])))
    differences = np.concatenate(blocks)
    return differences[~np.isnan(differences)]


def spread_of(values: np.ndarray) -> float:
    """Returns the standard deviation of the defined ones of resampled values; 0 if there are none."""
    defined = values[~np.isnan(values)]
    return float(defined.std()) if len(defined) else 0.0


def _resampled(
    metrics: Sequence[Metric],
    probabilities: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    num_samples: int,
    seed: int,
) -> np.ndarray:
    """Returns the score by each metric on each resample, (M, S)."""
    metrics[0].check(probabilities, labels)
    names, codes = np.unique(groups, return_inverse=True)
    resamplers = [metric.resampler(probabilities, labels, codes) for metric in metrics]
    blocks = [[score(times) for score in resamplers] for times in _draws(len(names), num_samples, seed)]
    return np.concatenate(blocks, axis=1)


def _draws(num_groups: int, num_samples: int, seed: int) -> Iterator[np.ndarray]:
    """Yields how often each of some resamples has each group, (block, G), until all S are drawn."""
    random = np.random.default_rng(seed)
    size = max(1, BLOCK_DRAWS // num_groups)
    for start in range(0, num_samples, size):
        # A block draws the same numbers as its samples would one after another.
        drawn = random.integers(num_groups, size=(min(size, num_samples - start), num_groups))
        bins = drawn + num_groups * np.arange(len(drawn))[:, np.newaxis]
        yield np.bincount(bins.ravel(), minlength=drawn.size).reshape(drawn.shape)
