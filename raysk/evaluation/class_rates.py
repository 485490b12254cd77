"""Recall and precision of each class, with intervals that few images do not make narrow."""

from collections.abc import Sequence

import numpy as np

from raysk.evaluation.intervals import wilson_interval


def class_rates(
    probabilities: np.ndarray, labels: np.ndarray, groups: np.ndarray, class_names: Sequence[str]
) -> dict[str, float]:
    """Returns recall and precision of each class, with the ends of their 95 % intervals.

    The interval is `wilson_interval`. Its number of trials is the number of groups among the rows, as if all rows of a
    group were one: that is the cautious end.

    Args:
        probabilities: (N, C).
        labels: (N,) classes from 0 to C - 1.
        groups: (N,) the group of each row.
        class_names: The C names.

    Returns:
        "recall_<class>", "recall_<class>_low", "recall_<class>_high" and the same for "precision". Undefined values
        are left out.
    """
    predicted = probabilities.argmax(axis=1)
    rates: dict[str, float] = {}
    for label, class_name in enumerate(class_names):
        for name, rows in (("recall", labels == label), ("precision", predicted == label)):
            if rows.any():
                rate = float((labels == predicted)[rows].mean())
                low, high = wilson_interval(rate, len(np.unique(groups[rows])))
                key = f"{name}_{class_name}"
                rates |= {key: rate, f"{key}_low": low, f"{key}_high": high}
    return rates
