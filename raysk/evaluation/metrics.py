"""Scores of probabilities against labels; larger is better.

A mean over classes leaves out undefined values instead of counting them as 0: a recall or an AUC needs rows with the
label, an F1 or a precision needs rows with the label or the prediction. With every class in the labels, as in each part
of `Folds`, all means run over all classes. The predicted class of a row is its most probable one, the first of equals.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from raysk.errors import DataError
from raysk.registry import Registry

Score = Callable[[np.ndarray, np.ndarray], float]

metrics: Registry[Score] = Registry("metric")

# Resamples are drawn in blocks that fit the processor's caches.
BLOCK_DRAWS = 1 << 16


@dataclass(frozen=True, eq=False)
class ClassCounts:
    """Counts of rows by class, from which all scores of predicted classes follow.

    The last axis is the class; axes before it, such as candidates or resamples, pass through every method.

    Attributes:
        hits: (..., C) rows with the class as label and as prediction.
        labelled: (..., C) rows with the label.
        predicted: (..., C) rows with the prediction.
    """

    hits: np.ndarray
    labelled: np.ndarray
    predicted: np.ndarray

    def recall(self) -> np.ndarray:
        """Returns (..., C), NaN for a class without a label."""
        return _ratio(self.hits, self.labelled, defined=self.labelled > 0)

    def precision(self) -> np.ndarray:
        """Returns (..., C), 0 for a class that is labelled but never predicted, NaN for one that is neither."""
        return _ratio(self.hits, np.maximum(self.predicted, 1), defined=self.labelled + self.predicted > 0)

    def f1(self) -> np.ndarray:
        """Returns (..., C), NaN for a class that is neither labelled nor predicted."""
        total = self.labelled + self.predicted
        return _ratio(2 * self.hits, total, defined=total > 0)

    def macro_f1(self) -> np.ndarray:
        """Returns (...): the mean of the defined F1."""
        return _mean_of_defined(self.f1())

    def macro_precision(self) -> np.ndarray:
        """Returns (...): the mean of the defined precisions."""
        return _mean_of_defined(self.precision())

    def balanced_accuracy(self) -> np.ndarray:
        """Returns (...): the mean of the defined recalls."""
        return _mean_of_defined(self.recall())

    def accuracy(self) -> np.ndarray:
        """Returns (...): the share of correctly predicted rows."""
        total = self.labelled.sum(axis=-1)
        return _ratio(self.hits.sum(axis=-1), total, defined=total > 0)


def count_classes(predicted: np.ndarray, labels: np.ndarray, num_classes: int) -> ClassCounts:
    """Counts classes for many candidates at once.

    Args:
        predicted: (..., N) predicted classes.
        labels: (N,) classes.
        num_classes: C.
    """
    candidates = predicted.reshape(-1, len(labels))
    # Each candidate has its own bins, so one bincount serves all of them.
    bins = np.arange(len(candidates))[:, np.newaxis] * num_classes + candidates
    num_bins = len(candidates) * num_classes
    hits = np.bincount(bins[candidates == labels], minlength=num_bins)
    shape = (*predicted.shape[:-1], num_classes)
    return ClassCounts(
        hits.reshape(shape),
        np.broadcast_to(np.bincount(labels, minlength=num_classes), shape),
        np.bincount(bins.ravel(), minlength=num_bins).reshape(shape),
    )


@metrics.register("macro_f1")
def macro_f1_score(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Returns the mean F1 of the classes; a rare class weighs as much as a common one.

    Args:
        probabilities: (N, C).
        labels: (N,) classes from 0 to C - 1.

    Raises:
        DataError: The labels do not match the probabilities.
    """
    return float(_counts(probabilities, labels).macro_f1())


@metrics.register("balanced_accuracy")
def balanced_accuracy_score(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Returns the mean recall of the classes that occur; arguments as in `macro_f1_score`."""
    return float(_counts(probabilities, labels).balanced_accuracy())


@metrics.register("macro_precision")
def macro_precision_score(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Returns the mean precision of the classes; arguments as in `macro_f1_score`."""
    return float(_counts(probabilities, labels).macro_precision())


@metrics.register("accuracy")
def accuracy_score(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Returns the share of correctly predicted rows; arguments as in `macro_f1_score`."""
    return float(_counts(probabilities, labels).accuracy())


@metrics.register("macro_auc")
def macro_auc_score(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Returns the mean one-vs-rest area under the ROC curve over the classes.

    The area is the chance that a row of the class has a higher probability for the class than a row of another class;
    ties count one half (Mann-Whitney). A class that no row has, or every row has, is left out; the score is NaN if all
    are. On probabilities of 0 and 1 of two classes it equals the balanced accuracy, so it is never computed from
    predicted classes here. Arguments as in `macro_f1_score`.
    """
    _check(probabilities, labels)
    num_classes = probabilities.shape[1]
    ranks = rankdata(probabilities, axis=0)
    positives = np.bincount(labels, minlength=num_classes)
    pairs = positives * (len(labels) - positives)
    rank_sums = np.bincount(labels, weights=ranks[np.arange(len(labels)), labels], minlength=num_classes)
    wins = rank_sums - positives * (positives + 1) / 2
    return float(_mean_of_defined(_ratio(wins, pairs, defined=pairs > 0)))


def recall_scores(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns (C,) the recall of each class, NaN where it is not defined; arguments as in `macro_f1_score`."""
    return _counts(probabilities, labels).recall()


def precision_scores(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns (C,) the precision of each class, NaN where it is not defined; arguments as in `macro_f1_score`."""
    return _counts(probabilities, labels).precision()


def f1_scores(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns (C,) the F1 of each class, NaN where it is not defined; arguments as in `macro_f1_score`."""
    return _counts(probabilities, labels).f1()


def scores(probabilities: np.ndarray, labels: np.ndarray, class_names: Sequence[str]) -> dict[str, float]:
    """Returns all scores by name: the `metrics`, then precision, recall and F1 of each class as "recall_<class>".

    Undefined scores are left out, so the result is plain JSON. Arguments as in `macro_f1_score`.
    """
    by_name = {name: metrics[name](probabilities, labels) for name in metrics}
    for name, per_class in (("precision", precision_scores), ("recall", recall_scores), ("f1", f1_scores)):
        values = per_class(probabilities, labels)
        by_name |= {f"{name}_{label}": float(value) for label, value in zip(class_names, values, strict=True)}
    return {name: value for name, value in by_name.items() if not np.isnan(value)}


# Scores that class counts determine: their resamples need only sums over groups.
_FROM_COUNTS: dict[Score, Callable[[ClassCounts], np.ndarray]] = {
    macro_f1_score: ClassCounts.macro_f1,
    balanced_accuracy_score: ClassCounts.balanced_accuracy,
    macro_precision_score: ClassCounts.macro_precision,
    accuracy_score: ClassCounts.accuracy,
}


def resampled_scores(
    score: Score,
    probabilities: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    num_samples: int = 1000,
    seed: int = 0,
) -> np.ndarray:
    """Returns the score on each bootstrap resample of whole groups, (S,), NaN where it is not defined.

    Photographs of one lesion are alike, so resampling rows would make the spread too narrow. The resamples depend only
    on the groups and the seed, so the scores of two recipes on the same rows are paired.

    Args:
        score: Any score of probabilities and labels; scores of predicted classes take a fast path to the same numbers.
        probabilities: (N, C).
        labels: (N,) classes from 0 to C - 1.
        groups: (N,) the group of each row, as integers or names.
        num_samples: S.
        seed: Seed of the resamples.
    """
    _check(probabilities, labels)
    names, codes = np.unique(groups, return_inverse=True)
    random = np.random.default_rng(seed)
    if score in _FROM_COUNTS:
        return _FROM_COUNTS[score](_resampled_counts(probabilities, labels, codes, random, num_samples))
    rows_by_group = np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))[:-1])
    draws = (random.integers(len(names), size=len(names)) for _ in range(num_samples))
    resamples = (np.concatenate([rows_by_group[group] for group in drawn]) for drawn in draws)
    return np.array([score(probabilities[rows], labels[rows]) for rows in resamples])


def bootstrap_interval(
    score: Score,
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
    values = resampled_scores(score, probabilities, labels, groups, num_samples, seed)
    defined = values[~np.isnan(values)]
    if not len(defined):
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _resampled_counts(
    probabilities: np.ndarray, labels: np.ndarray, groups: np.ndarray, random: np.random.Generator, num_samples: int
) -> ClassCounts:
    """Returns the counts of each resample, (S, C), from sums over groups."""
    num_groups, num_classes = int(groups.max()) + 1, probabilities.shape[1]
    predicted = probabilities.argmax(axis=1)
    hit = predicted == labels
    by_group = np.zeros((3, num_groups, num_classes))
    np.add.at(by_group[0], (groups[hit], labels[hit]), 1)
    np.add.at(by_group[1], (groups, labels), 1)
    np.add.at(by_group[2], (groups, predicted), 1)
    counts = np.empty((3, num_samples, num_classes))
    size = max(1, BLOCK_DRAWS // num_groups)
    for start in range(0, num_samples, size):
        # A block draws the same numbers as its samples would one after another.
        drawn = random.integers(num_groups, size=(min(size, num_samples - start), num_groups))
        bins = drawn + num_groups * np.arange(len(drawn))[:, np.newaxis]
        times = np.bincount(bins.ravel(), minlength=drawn.size).reshape(drawn.shape)
        counts[:, start : start + size] = times.astype(float) @ by_group
    return ClassCounts(*counts)


def _check(probabilities: np.ndarray, labels: np.ndarray) -> None:
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1] or not len(labels):
        raise DataError(
            "a score needs probabilities (rows, classes) and a label for each row, "
            f"but got shapes {probabilities.shape} and {labels.shape}: pass both for the same rows"
        )
    if labels.min() < 0 or labels.max() >= probabilities.shape[1]:
        raise DataError(
            f"labels must be classes from 0 to {probabilities.shape[1] - 1}, but got {labels.min()} to {labels.max()}: "
            "score predictions with the labels of their own manifest"
        )


def _counts(probabilities: np.ndarray, labels: np.ndarray) -> ClassCounts:
    _check(probabilities, labels)
    return count_classes(probabilities.argmax(axis=1), labels, probabilities.shape[1])


def _ratio(part: np.ndarray, whole: np.ndarray, defined: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=defined)


def _mean_of_defined(values: np.ndarray) -> np.ndarray:
    defined = ~np.isnan(values)
    num_defined = defined.sum(axis=-1)
    return _ratio(np.where(defined, values, 0.0).sum(axis=-1), num_defined, defined=num_defined > 0)
