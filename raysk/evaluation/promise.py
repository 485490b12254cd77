"""What a study promised, beside what labelled new images show, with and without a correction of the class shares."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan

import numpy as np

from raysk.evaluation.class_rates import class_rates
from raysk.evaluation.metrics import parse_metric
from raysk.evaluation.metrics.base import CLASSES
from raysk.evaluation.prior_shift import corrected, estimated_shares, shift_p_value
from raysk.evaluation.resampling import bootstrap_interval
from raysk.records import Record

# Shares are corrected if the hypothesis that they are those of training is refused at this level.
_LEVEL = 0.05
_SHIFTED = (
    "The predictions say that the class shares differ from those of training (likelihood ratio test, p = {:.2g})."
)
_NOT_SHIFTED = (
    "The predictions do not say that the class shares differ from those of training (likelihood ratio test, "
    "p = {:.2g}), so nothing is corrected; their estimate means little."
)


@dataclass(frozen=True, kw_only=True)
class Interval(Record):
    """A score with the ends of its 95 % interval; None where it is not defined or not known."""

    value: float | None = None
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, scores: Mapping[str, float], name: str) -> "Interval":
        """Returns the interval of a score of this name among the scores of a row."""
        return cls(value=scores.get(name), low=scores.get(f"{name}_low"), high=scores.get(f"{name}_high"))


@dataclass(frozen=True, kw_only=True)
class ScoreLine(Record):
    """One score.

    Args:
        name: Its name.
        promised: On the locked test part of the study.
        here: On the new images.
        corrected: There, with probabilities corrected for the shift of the class shares that the predictions show.
        best: There, corrected for the true shift: what a perfect estimate of it would give; without an interval.
    """

    name: str
    promised: Interval
    here: Interval
    corrected: Interval = Interval()
    best: Interval = Interval()


@dataclass(frozen=True, kw_only=True)
class ClassLine(Record):
    """One class.

    Args:
        name: Its name.
        num_images: Number of new images of this class.
        share_in_training: Its share of the training rows.
        share_here: Its share of the new images.
        share_estimated: The share that the predictions show, without the labels.
        promised: Its recall on the locked test part of the study.
        here: Its recall on the new images.
        corrected: There, with corrected probabilities.
    """

    name: str
    num_images: int
    share_in_training: float
    share_here: float
    share_estimated: float
    promised: Interval
    here: Interval
    corrected: Interval


@dataclass(frozen=True, kw_only=True)
class Evaluation(Record):
    """An evaluation of a classifier on labelled new images.

    Args:
        name: Name of the classifier.
        data: A line on the images.
        num_images: Number of images.
        num_groups: Number of groups, which intervals resample whole.
        scores: One line per score.
        classes: One line per class of the classifier; none for masks, whose scores are not corrected.
        notes: What a reader must know, in sentences.
    """

    name: str
    data: str
    num_images: int
    num_groups: int
    scores: tuple[ScoreLine, ...]
    classes: tuple[ClassLine, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Promise:
    """What is known of a classifier from its study.

    Attributes:
        name: Its name.
        class_names: Its C classes.
        metric: The metric of its study.
        scores: By the names of the leaderboard, such as "test_macro_f1_low" and "test_recall_mel".
        class_counts: (C,) number of training rows of each class, above 0.
        assumed_shares: (C,) the class shares that its probabilities assume.
    """

    name: str
    class_names: Sequence[str]
    metric: str
    scores: Mapping[str, float]
    class_counts: Sequence[int]
    assumed_shares: Sequence[float]


def compare(
    promise: Promise, probabilities: np.ndarray, labels: np.ndarray, groups: np.ndarray, data: str, notes: Sequence[str]
) -> Evaluation:
    """Returns the evaluation of predictions of labelled new images.

    Args:
        promise: What the study says.
        probabilities: (N, C).
        labels: (N,) classes from 0 to C - 1; some may be missing.
        groups: (N,) the group of each row.
        data: A line on the images.
        notes: Further sentences.
    """
    trained = np.array(promise.class_counts) / sum(promise.class_counts)
    shares = np.bincount(labels, minlength=len(trained)) / len(labels)
    # A classifier may assume other shares than those of its rows, on purpose. The estimate has to know them; the
    # correction is for the shift from training alone, so that without a shift nothing changes.
    assumed, num_groups = np.array(promise.assumed_shares), len(np.unique(groups))
    estimated = estimated_shares(probabilities, assumed)
    p_value = shift_p_value(probabilities, assumed, trained, estimated, num_groups)
    has_shifted = p_value < _LEVEL
    notes = [*notes, _SHIFTED.format(p_value) if has_shifted else _NOT_SHIFTED.format(p_value)]
    variants = {
        "here": probabilities,
        "corrected": corrected(probabilities, trained, estimated) if has_shifted else probabilities,
        "best": corrected(probabilities, trained, shares),
    }
    absent = [name for name, share in zip(promise.class_names, shares, strict=True) if not share]
    if absent:
        notes = [
            *notes,
            f"No image shows {', '.join(absent)}. An image that is given such a class counts as wrong.",
        ]
    return Evaluation(
        name=promise.name,
        data=data,
        num_images=len(labels),
        num_groups=num_groups,
        scores=tuple(
            _score_line(name, promise, variants, labels, groups)
            for name in dict.fromkeys((promise.metric, *CLASSES.usual))
        ),
        classes=_class_lines(promise, variants, labels, groups, shares, estimated),
        notes=tuple(notes),
    )


def _score_line(
    name: str, promise: Promise, variants: Mapping[str, np.ndarray], labels: np.ndarray, groups: np.ndarray
) -> ScoreLine:
    metric = parse_metric(name, promise.class_names)

    def measured(probabilities: np.ndarray) -> Interval:
        value = _defined(metric(probabilities, labels))
        if value is None:
            return Interval()
        low, high = bootstrap_interval(metric, probabilities, labels, groups)
        return Interval(value=value, low=low, high=high)

    return ScoreLine(
        name=name,
        promised=Interval.of(promise.scores, f"test_{name}"),
        here=measured(variants["here"]),
        corrected=measured(variants["corrected"]),
        best=Interval(value=_defined(metric(variants["best"], labels))),
    )


def _defined(value: float | np.ndarray) -> float | None:
    return None if isnan(value) else float(value)


def _class_lines(
    promise: Promise,
    variants: Mapping[str, np.ndarray],
    labels: np.ndarray,
    groups: np.ndarray,
    shares: np.ndarray,
    estimated: np.ndarray,
) -> tuple[ClassLine, ...]:
    names = promise.class_names
    rates = {variant: class_rates(variants[variant], labels, groups, names) for variant in ("here", "corrected")}
    return tuple(
        ClassLine(
            name=name,
            num_images=int((labels == label).sum()),
            share_in_training=promise.class_counts[label] / sum(promise.class_counts),
            share_here=float(shares[label]),
            share_estimated=float(estimated[label]),
            promised=Interval.of(promise.scores, f"test_recall_{name}"),
            here=Interval.of(rates["here"], f"recall_{name}"),
            corrected=Interval.of(rates["corrected"], f"recall_{name}"),
        )
        for label, name in enumerate(names)
    )
