"""Operating points: thresholds on a class's probability that give a row the rates that a study requires."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from raysk.evaluation.goals import Requirement
from raysk.records import Record

# A rate that misses its bound by less meets it: 0.07 * 100 is a little more than 7.
_ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class OperatingPoint(Record):
    """A threshold on the probability of a class, and the rates that it gives.

    A row whose probability reaches the threshold is decided to be of the class; any other row is decided to be of the
    most probable other class.

    Args:
        class_name: The class.
        requirements: The requirements that the threshold is chosen for.
        threshold: The threshold, chosen on all rows of the folds, out of fold; None if no threshold meets them there.
        sensitivity: Cross-fitted sensitivity: each fold is decided by the threshold that the other folds choose; None
            without a threshold, or if some of them have none.
        specificity: Cross-fitted specificity.
        test_sensitivity: Sensitivity of the threshold on the locked test part.
        test_specificity: Specificity of the threshold on the locked test part.
    """

    class_name: str
    requirements: tuple[str, ...]
    threshold: float | None
    sensitivity: float | None = None
    specificity: float | None = None
    test_sensitivity: float | None = None
    test_specificity: float | None = None


@dataclass(frozen=True, eq=False)
class LabelledRows:
    """Rows with their probabilities and labels.

    Args:
        probabilities: (N, C).
        labels: (N,) classes.
    """

    probabilities: np.ndarray
    labels: np.ndarray


def operating_points(
    requirements: Sequence[Requirement], out_of_fold: LabelledRows, fold_of_row: np.ndarray, test: LabelledRows
) -> tuple[OperatingPoint, ...]:
    """Returns the operating point of each class with a requirement on its sensitivity or specificity, in their order.

    Several requirements on one class share its operating point.

    Args:
        requirements: The requirements; those on other metrics have no operating point.
        out_of_fold: Rows that are predicted by models that did not learn from them.
        fold_of_row: (N,) their folds.
        test: The locked test part.
    """
    by_label: dict[int, list[Requirement]] = {}
    for requirement in requirements:
        if requirement.metric.share_of is not None:
            by_label.setdefault(requirement.metric.label, []).append(requirement)
    return tuple(
        _operating_point(label, of_class, out_of_fold, fold_of_row, test) for label, of_class in by_label.items()
    )


def _operating_point(
    label: int, requirements: list[Requirement], out_of_fold: LabelledRows, fold_of_row: np.ndarray, test: LabelledRows
) -> OperatingPoint:
    rates = [_least_rates(requirement) for requirement in requirements]
    least_sensitivity, least_specificity = (max(bounds) for bounds in zip(*rates, strict=True))
    values, is_positive = out_of_fold.probabilities[:, label], out_of_fold.labels == label

    def chosen_on(rows: np.ndarray) -> float | None:
        return choose_threshold(values[rows], is_positive[rows], least_sensitivity, least_specificity)

    point = OperatingPoint(
        class_name=requirements[0].metric.class_name,
        requirements=tuple(requirement.name for requirement in requirements),
        threshold=chosen_on(np.ones(len(values), dtype=bool)),
    )
    if point.threshold is None:
        return point
    by_fold = {fold: chosen_on(fold_of_row != fold) for fold in np.unique(fold_of_row)}
    thresholds = np.array([by_fold[fold] for fold in fold_of_row], dtype=float)  # None becomes NaN
    crossed = (None, None) if np.isnan(thresholds).any() else _rates(values >= thresholds, is_positive)
    on_test = _rates(test.probabilities[:, label] >= point.threshold, test.labels == label)
    return replace(
        point, sensitivity=crossed[0], specificity=crossed[1], test_sensitivity=on_test[0], test_specificity=on_test[1]
    )


def _least_rates(requirement: Requirement) -> tuple[float, float]:
    """Returns the least sensitivity and specificity that a requirement asks of a threshold; 0 asks nothing."""
    metric = requirement.metric
    rates = requirement.bound, metric.floor
    return rates if metric.share_of == "class" else rates[::-1]


def _rates(decided: np.ndarray, is_positive: np.ndarray) -> tuple[float | None, float | None]:
    """Returns the sensitivity and the specificity of decisions, None where there are no rows to compute it from."""
    sensitivity = float(decided[is_positive].mean()) if is_positive.any() else None
    specificity = float((~decided[~is_positive]).mean()) if not is_positive.all() else None
    return sensitivity, specificity


def choose_threshold(
    values: np.ndarray, is_positive: np.ndarray, least_sensitivity: float, least_specificity: float
) -> float | None:
    """Chooses a threshold on the probability of a class.

    Rows with equal probabilities pass a threshold together, so only the probabilities of rows are candidates. With one
    bound, the threshold is the one that meets it and leaves most of the other rate: the largest for a sensitivity, the
    smallest for a specificity. With both, it is the middle of the two, and there is none if they cross.

    Args:
        values: (N,) probabilities of the class.
        is_positive: (N,) whether each row is of the class.
        least_sensitivity: The least share of rows of the class at or above the threshold; 0 for no bound.
        least_specificity: The least share of other rows below the threshold; 0 for no bound.

    Returns:
        The threshold; None if no candidate meets the bounds, or there are no rows to compute a rate from.
    """
    positives, negatives = np.sort(values[is_positive])[::-1], np.sort(values[~is_positive])
    highest = lowest = None
    if least_sensitivity > 0:
        if not len(positives):
            return None
        num_found = max(1, int(np.ceil(least_sensitivity * len(positives) - _ROUNDING)))
        highest = float(positives[num_found - 1])
    if least_specificity > 0:
        if not len(negatives):
            return None
        num_rejected = max(1, int(np.ceil(least_specificity * len(negatives) - _ROUNDING)))
        above = values[values > negatives[num_rejected - 1]]
        if not len(above):
            return None
        lowest = float(above.min())
    if highest is None or lowest is None:
        return highest if lowest is None else lowest
    return (lowest + highest) / 2 if lowest <= highest else None


def decide(probabilities: np.ndarray, thresholds: dict[int, float]) -> np.ndarray:
    """Returns the classes, (N,), that operating points decide on.

    A row is of the first class whose threshold it reaches. A row that reaches none is of the most probable class
    without a threshold, or of the most probable class if all have one.

    Args:
        probabilities: (N, C).
        thresholds: The thresholds by class, in their order.
    """
    others = probabilities.copy()
    if len(thresholds) < probabilities.shape[1]:
        others[:, list(thresholds)] = -np.inf
    decided: np.ndarray = others.argmax(axis=1)
    for label, threshold in reversed(thresholds.items()):
        decided = np.where(probabilities[:, label] >= threshold, label, decided)
    return decided
