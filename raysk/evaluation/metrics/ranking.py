"""Metrics of the order in which a class's probability ranks the rows: one class against the rest.

They follow from counts of rows above each threshold, as scores of predicted classes follow from counts by class. Rows
with equal probabilities pass a threshold together. A mean over classes leaves out those whose score is not defined.
"""

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np

from raysk.evaluation.metrics.base import Metric, Resampler, mean_of_defined, metrics, ratio
from raysk.settings import Between

# A rate that misses its floor by less meets it: 0.07 * 100 is a little more than 7.
_ROUNDING = 1e-9


@dataclass(frozen=True, eq=False)
class ThresholdCounts:
    """Counts of rows above each threshold on a class's probability, the highest threshold first.

    The last axis is the threshold; the last one lets all rows pass, and repeated ones change nothing. Axes before it,
    such as candidates or resamples, pass through every method.

    Attributes:
        hits: (..., T) rows of the class above the threshold.
        false_alarms: (..., T) rows of other classes above the threshold.
    """

    hits: np.ndarray
    false_alarms: np.ndarray

    @property
    def positives(self) -> np.ndarray:
        """Number of rows of the class, (...)."""
        return self.hits[..., -1]

    @property
    def negatives(self) -> np.ndarray:
        """Number of rows of other classes, (...)."""
        return self.false_alarms[..., -1]

    def area(self, floor: float = 0.0) -> np.ndarray:
        """Returns the area between the ROC curve and a least sensitivity, (...); NaN without both kinds of rows.

        The curve is straight between thresholds, so that ties count one half (Mann-Whitney).
        """
        rise, width = _steps(self.hits), _steps(self.false_alarms)
        end = self.hits - floor * self.positives[..., np.newaxis] if floor else self.hits
        start = end - rise
        if floor:
            # Of a segment that crosses the floor, only the part above it counts.
            crosses = (start < 0) & (end > 0)
            width = width * np.divide(end, rise, out=np.ones_like(end), where=crosses)
            start, end = np.maximum(start, 0), np.maximum(end, 0)
        areas = width * (start + end) / 2
        pairs = self.positives * self.negatives
        return ratio(areas.sum(axis=-1), pairs, defined=pairs > 0)

    def average_precision(self) -> np.ndarray:
        """Returns the mean precision at the thresholds, weighted by the rise in recall, (...); NaN without positives.

        The precision is a step function of the recall, without interpolation.
        """
        passed = self.hits + self.false_alarms
        precision = np.divide(self.hits, passed, out=np.zeros(passed.shape), where=passed > 0)
        return ratio((_steps(self.hits) * precision).sum(axis=-1), self.positives, defined=self.positives > 0)

    def sensitivity_at(self, specificity: float) -> np.ndarray:
        """Returns the largest sensitivity of a threshold with a least specificity, (...); NaN without both kinds.

        A threshold above all probabilities has the specificity 1 and the sensitivity 0.
        """
        rejected = self.negatives[..., np.newaxis] - self.false_alarms
        fits = rejected >= specificity * self.negatives[..., np.newaxis] - _ROUNDING
        best = np.where(fits, self.hits, 0).max(axis=-1)
        return ratio(best, self.positives, defined=(self.positives > 0) & (self.negatives > 0))

    def specificity_at(self, sensitivity: float) -> np.ndarray:
        """Returns the largest specificity of a threshold with a least sensitivity, (...); NaN without both kinds."""
        fits = self.hits >= sensitivity * self.positives[..., np.newaxis] - _ROUNDING
        rejected = self.negatives[..., np.newaxis] - self.false_alarms
        best = np.where(fits, rejected, 0).max(axis=-1)
        return ratio(best, self.negatives, defined=(self.positives > 0) & (self.negatives > 0))


def _steps(counts: np.ndarray) -> np.ndarray:
    """Returns by how much counts (..., T) rise from each threshold to the next."""
    steps = counts.copy(order="K")
    steps[..., 1:] -= counts[..., :-1]
    return steps


def count_above_thresholds(values: np.ndarray, is_positive: np.ndarray) -> ThresholdCounts:
    """Counts the rows above each of N thresholds, one at each row.

    Args:
        values: (..., N) probabilities of the class.
        is_positive: (N,) whether each row is of the class.
    """
    order = np.argsort(-values, axis=-1)
    ends = _ends_of_ties(np.take_along_axis(values, order, axis=-1))
    hits = np.take_along_axis(is_positive[order].cumsum(axis=-1), ends, axis=-1)
    return ThresholdCounts(hits, ends + 1 - hits)


def _ends_of_ties(descending: np.ndarray) -> np.ndarray:
    """Returns for each of (..., N) sorted values the place of the last one that equals it."""
    num_rows = descending.shape[-1]
    is_last = np.ones(descending.shape, dtype=bool)
    is_last[..., :-1] = descending[..., 1:] != descending[..., :-1]
    places = np.where(is_last, np.arange(num_rows), num_rows)
    ends: np.ndarray = np.minimum.accumulate(places[..., ::-1], axis=-1)[..., ::-1]
    return ends


def _corners(ends: np.ndarray, is_positive: np.ndarray) -> np.ndarray:
    """Returns the ends of ties that decide the metrics of this file; without a rare class's rows, nearly none does.

    Between two rows of the class a threshold only lets more rows of other classes pass. The ROC curve is flat there,
    and no rate gets better, so that the first and the last of these thresholds suffice.

    Args:
        ends: (T,) places of the last row of each tie, in ascending order.
        is_positive: (N,) whether each row, the most probable first, is of the class.
    """
    num_hits = is_positive.cumsum()[ends]
    rises = np.diff(num_hits, prepend=0) > 0
    rises_next = np.append(rises[1:], True)
    return ends[rises | rises_next]


class RankingMetric(Metric):
    """A metric that follows from counts above thresholds: of one class, or the mean over all."""

    @abstractmethod
    def of_thresholds(self, counts: ThresholdCounts) -> np.ndarray:
        """Returns the score of one class, (...), from counts (..., T)."""

    def scores(self, probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Sorts the rows of each class and candidate."""
        by_class = [
            self.of_thresholds(count_above_thresholds(probabilities[..., label], labels == label))
            for label in self._classes(probabilities)
        ]
        return mean_of_defined(np.stack(by_class, axis=-1))

    def resampler(self, probabilities: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> Resampler:
        """Sorts the rows once: a resample only changes how often each of them counts."""
        sorted_rows = []
        for label in self._classes(probabilities):
            order = np.argsort(-probabilities[:, label])
            is_positive = labels[order] == label
            ends = _corners(np.unique(_ends_of_ties(probabilities[order, label])), is_positive)
            sorted_rows.append((groups[order], is_positive, ends))

        def resampled(times: np.ndarray) -> np.ndarray:
            by_class = []
            # Resamples lie side by side in memory, so that each step adds whole rows of them.
            of_group = np.ascontiguousarray(times.T, dtype=float)
            for sorted_groups, is_positive, ends in sorted_rows:
                weights = of_group[sorted_groups]
                starts = np.concatenate([[0], ends[:-1] + 1])
                passed = np.add.reduceat(weights, starts).cumsum(axis=0)
                weights[~is_positive] = 0
                hits = np.add.reduceat(weights, starts).cumsum(axis=0)
                by_class.append(self.of_thresholds(ThresholdCounts(hits.T, (passed - hits).T)))
            return mean_of_defined(np.stack(by_class, axis=-1))

        return resampled

    def _classes(self, probabilities: np.ndarray) -> list[int]:
        return [self.label] if self.label >= 0 else list(range(probabilities.shape[-1]))


class AreaUnderROC(RankingMetric):
    """The area under the ROC curve."""

    def of_thresholds(self, counts: ThresholdCounts) -> np.ndarray:
        """Takes the area above the floor."""
        return counts.area(self.floor)


@metrics.register("macro_auc")
class MacroAUC(AreaUnderROC):
    """The mean one-vs-rest area under the ROC curve over the classes.

    The area is the chance that a row of the class has a higher probability for the class than a row of another class.
    On probabilities of 0 and 1 of two classes it equals the balanced accuracy, so it is never computed from predicted
    classes here.
    """

    wording = "AUC"


@metrics.register("auc@CLASS")
class AUC(AreaUnderROC):
    """The area under the ROC curve of a class against the rest; ties count one half."""

    wording = "AUC of {class_name}"


@metrics.register("pauc@CLASS:SENSITIVITY")
class PartialAUC(AreaUnderROC):
    """The area under the ROC curve of a class above a least sensitivity, as ISIC 2024 scores it: 0 to 1 - SENSITIVITY.

    The chance level is (1 - SENSITIVITY)^2 / 2.
    """

    wording = "partial AUC of {class_name} (above sensitivity {floor:g})"
    floors = Between(0, 1, open_high=True)

    @property
    def range(self) -> tuple[float, float]:
        """From 0 to the height above the floor."""
        return 0.0, 1.0 - self.floor


class AveragePrecisionMetric(RankingMetric):
    """The average precision."""

    def of_thresholds(self, counts: ThresholdCounts) -> np.ndarray:
        """Takes the average precision."""
        return counts.average_precision()


@metrics.register("average_precision")
class MacroAveragePrecision(AveragePrecisionMetric):
    """The mean one-vs-rest average precision over the classes."""

    wording = "average precision"


@metrics.register("average_precision@CLASS")
class AveragePrecision(AveragePrecisionMetric):
    """The mean precision at all thresholds on a class's probability, weighted by the rise in recall."""

    wording = "average precision of {class_name}"


@metrics.register("sensitivity@CLASS|specificity:SPECIFICITY")
class SensitivityAtSpecificity(RankingMetric):
    """The largest sensitivity for a class of a threshold on its probability with at least this specificity."""

    wording = "sensitivity of {class_name} (at specificity {floor:g})"
    share_of = "class"

    def of_thresholds(self, counts: ThresholdCounts) -> np.ndarray:
        """Searches the thresholds."""
        return counts.sensitivity_at(self.floor)


@metrics.register("specificity@CLASS|sensitivity:SENSITIVITY")
class SpecificityAtSensitivity(RankingMetric):
    """The largest specificity for a class of a threshold on its probability with at least this sensitivity."""

    wording = "specificity of {class_name} (at sensitivity {floor:g})"
    share_of = "others"

    def of_thresholds(self, counts: ThresholdCounts) -> np.ndarray:
        """Searches the thresholds."""
        return counts.specificity_at(self.floor)
