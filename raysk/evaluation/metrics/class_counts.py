"""Metrics of predicted classes, which follow from counts of rows.

The predicted class of a row is its most probable one, the first of equals. A mean over classes leaves out undefined
values instead of counting them as 0: a recall needs rows with the label, an F1 or a precision needs rows with the label
or the prediction. With every class in the labels, as in each part of `Folds`, all means run over all classes.
"""

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np

from raysk.evaluation.metrics.base import Metric, Resampler, mean_of_defined, metrics, ratio


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

    @property
    def total(self) -> np.ndarray:
        """Number of rows, (...)."""
        total: np.ndarray = self.labelled.sum(axis=-1)
        return total

    def recall(self) -> np.ndarray:
        """Returns (..., C), NaN for a class without a label."""
        return ratio(self.hits, self.labelled, defined=self.labelled > 0)

    def specificity(self) -> np.ndarray:
        """Returns (..., C): the share of the rows of other classes that are not predicted as the class.

        NaN for a class that all rows have.
        """
        others = self.total[..., np.newaxis] - self.labelled
        return ratio(others - (self.predicted - self.hits), others, defined=others > 0)

    def precision(self) -> np.ndarray:
        """Returns (..., C), 0 for a class that is labelled but never predicted, NaN for one that is neither."""
        return ratio(self.hits, np.maximum(self.predicted, 1), defined=self.labelled + self.predicted > 0)

    def f1(self) -> np.ndarray:
        """Returns (..., C), NaN for a class that is neither labelled nor predicted."""
        total = self.labelled + self.predicted
        return ratio(2 * self.hits, total, defined=total > 0)


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


class CountMetric(Metric):
    """A metric that follows from the counts of rows by class."""

    @abstractmethod
    def of_counts(self, counts: ClassCounts) -> np.ndarray:
        """Returns the score, (...), from counts (..., C)."""

    def scores(self, probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Counts the predicted classes."""
        return self.of_counts(count_classes(probabilities.argmax(axis=-1), labels, probabilities.shape[-1]))

    def resampler(self, probabilities: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> Resampler:
        """Counts each group once: the counts of a resample are sums over its groups."""
        predicted = probabilities.argmax(axis=1)
        hit = predicted == labels
        num_groups, num_classes = int(groups.max()) + 1, probabilities.shape[1]
        by_group = np.zeros((num_groups, 3, num_classes))
        np.add.at(by_group[:, 0], (groups[hit], labels[hit]), 1)
        np.add.at(by_group[:, 1], (groups, labels), 1)
        np.add.at(by_group[:, 2], (groups, predicted), 1)
        flat = by_group.reshape(num_groups, -1)

        def resampled(times: np.ndarray) -> np.ndarray:
            counts = (np.asarray(times, dtype=float) @ flat).reshape(len(times), 3, num_classes)
            return self.of_counts(ClassCounts(*counts.transpose(1, 0, 2)))

        return resampled


@metrics.register("macro_f1")
class MacroF1(CountMetric):
    """The mean F1 of the classes; a rare class weighs as much as a common one."""

    wording = "macro-F1"

    def of_counts(self, counts: ClassCounts) -> np.ndarray:
        """Averages the defined F1."""
        return mean_of_defined(counts.f1())


@metrics.register("balanced_accuracy")
class BalancedAccuracy(CountMetric):
    """The mean recall of the classes that occur."""

    wording = "balanced accuracy"

    def of_counts(self, counts: ClassCounts) -> np.ndarray:
        """Averages the defined recalls."""
        return mean_of_defined(counts.recall())


@metrics.register("accuracy")
class Accuracy(CountMetric):
    """The share of correctly predicted rows."""

    wording = "accuracy"

    def of_counts(self, counts: ClassCounts) -> np.ndarray:
        """Divides the hits by all rows."""
        return ratio(counts.hits.sum(axis=-1), counts.total, defined=counts.total > 0)


@metrics.register("macro_precision")
class MacroPrecision(CountMetric):
    """The mean precision of the classes."""

    wording = "macro-precision"

    def of_counts(self, counts: ClassCounts) -> np.ndarray:
        """Averages the defined precisions."""
        return mean_of_defined(counts.precision())


@metrics.register("kappa")
class Kappa(CountMetric):
    """Cohen's kappa (1960), (p_o - p_e) / (1 - p_e): the agreement of predictions and labels beyond chance; -1 to 1.

    It is not defined where all labels and all predictions are one class.
    """

    wording = "kappa"

    @property
    def range(self) -> tuple[float, float]:
        """From -1 to 1; 0 is chance."""
        return -1.0, 1.0

    def of_counts(self, counts: ClassCounts) -> np.ndarray:
        """Computes n (n p_o - n p_e) / (n^2 - n^2 p_e), in which all products are whole numbers."""
        n = counts.total
        by_chance = (counts.labelled * counts.predicted).sum(axis=-1)
        return ratio(n * counts.hits.sum(axis=-1) - by_chance, n * n - by_chance, defined=n * n > by_chance)


@metrics.register("sensitivity@CLASS")
class Sensitivity(CountMetric):
    """The recall of a class: the share of its rows that are predicted as it."""

    wording = "sensitivity of {class_name}"
    share_of = "class"

    def of_counts(self, counts: ClassCounts) -> np.ndarray:
        """Takes the recall of the class."""
        return counts.recall()[..., self.label]


@metrics.register("specificity@CLASS")
class Specificity(CountMetric):
    """The share of the rows of other classes that are not predicted as the class."""

    wording = "specificity of {class_name}"
    share_of = "others"

    def of_counts(self, counts: ClassCounts) -> np.ndarray:
        """Takes the specificity of the class."""
        return counts.specificity()[..., self.label]


@metrics.register("f1@CLASS")
class ClassF1(CountMetric):
    """The F1 of a class: the harmonic mean of its recall and its precision."""

    wording = "F1 of {class_name}"

    def of_counts(self, counts: ClassCounts) -> np.ndarray:
        """Takes the F1 of the class."""
        return counts.f1()[..., self.label]
