"""Attributes that give a label away: how well each predicts it alone."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from raysk.data.manifest import IntArray

NUM_FOLDS = 3
MOST_ROWS = 10_000  # a sample of them is enough to tell a strong attribute from a weak one
MOST_VALUES = 30  # of an attribute of words; rarer ones count as one
DEPTH = 8
# The share of the way from chance to certainty. On HAM10000 the age goes 0.09 of it, and dx_type 0.18.
GIVEN_AWAY = 0.15
NUM_DEVIATIONS = 3  # above chance, so that few groups say nothing by accident
CERTAIN_SHARE = 0.02  # of the rows, which a value must have before it is said to be always of one class


class Giveaway(NamedTuple):
    """An attribute that predicts the label.

    Attributes:
        name: The attribute.
        score: The balanced accuracy of a small tree that sees nothing else, on groups that it has not learnt from.
        chance: What guessing scores.
        certain: The most frequent value that only one class has, and that class; None where there is none.
    """

    name: str
    score: float
    chance: float
    certain: tuple[str, str] | None


def find_giveaways(
    attributes: Mapping[str, Sequence[Any]], labels: Sequence[str], groups: Sequence[str]
) -> list[Giveaway]:
    """Returns the attributes that predict the label, the strongest first.

    Rows without a label and classes with fewer than three groups are left out.

    Args:
        attributes: Columns of N values; None and "" are unknown, which may be telling too.
        labels: The label of each row, "" where unknown.
        groups: What must not be parted between learning and scoring.
    """
    rows = _scored_rows(labels, groups)
    classes, codes = np.unique([labels[row] for row in rows], return_inverse=True)
    if len(classes) < 2:
        return []
    members = np.unique([groups[row] for row in rows], return_inverse=True)[1]
    found = []
    for name, values in attributes.items():
        inputs = _inputs([values[row] for row in rows])
        if inputs is not None:
            certain = _certain([values[row] for row in rows], [labels[row] for row in rows])
            found.append(Giveaway(name, _score(inputs, codes, members), 1 / len(classes), certain))
    least = NUM_DEVIATIONS * _deviation(codes, members)
    telling = [one for one in found if one.score - one.chance >= max(GIVEN_AWAY * (1 - one.chance), least)]
    return sorted(telling, key=lambda one: -one.score)


def _scored_rows(labels: Sequence[str], groups: Sequence[str]) -> list[int]:
    num_groups = Counter(label for label, _ in set(zip(labels, groups, strict=True)))
    rows = [row for row, label in enumerate(labels) if label and num_groups[label] >= NUM_FOLDS]
    if len(rows) > MOST_ROWS:
        rows = np.random.default_rng(0).choice(rows, MOST_ROWS, replace=False).tolist()
    return rows


def _inputs(values: Sequence[Any]) -> npt.NDArray[np.float64] | None:
    """Returns the columns by which a tree sees an attribute, (N, F), or None of one that says nothing or only names."""
    texts = ["" if value is None else str(value).strip() for value in values]
    counts = Counter(texts)
    if len(counts) < 2:
        return None
    numbers = [_number(text) for text in texts]
    if sum(number is None for number in numbers) <= 0.02 * len(texts):
        known = np.array([np.nan if number is None else number for number in numbers])
        # A tree reads 32 bits and asks for order alone: ranks keep the largest numbers, and near ones apart.
        ranks = np.unique(np.nan_to_num(known, nan=0.0), return_inverse=True)[1]
        return np.stack([ranks, np.isnan(known)], axis=1).astype(np.float64)
    if len(counts) > len(texts) / 2:
        return None
    frequent = [text for text, _ in counts.most_common(MOST_VALUES)]
    return np.stack([[text == one for text in texts] for one in frequent], axis=1).astype(np.float64)


def _deviation(codes: IntArray, members: IntArray) -> float:
    """Returns the largest standard deviation that balanced accuracy can have over groups that are drawn by chance."""
    num_groups = [len(np.unique(members[codes == code])) for code in range(codes.max() + 1)]
    return float(np.sqrt(sum(0.25 / num for num in num_groups)) / len(num_groups))


def _certain(values: Sequence[Any], labels: Sequence[str]) -> tuple[str, str] | None:
    texts = ["" if value is None else str(value) for value in values]
    classes: dict[str, set[str]] = {}
    for text, label in zip(texts, labels, strict=True):
        classes.setdefault(text, set()).add(label)
    for text, count in Counter(texts).most_common():
        if count < max(10, CERTAIN_SHARE * len(texts)):
            return None
        if len(classes[text]) == 1:
            return text, next(iter(classes[text]))
    return None


def _number(text: str) -> float | None:
    """Returns a number, NaN for no value, or None for a word."""
    try:
        return float(text) if text else np.nan
    except ValueError:
        return None


def _score(inputs: npt.NDArray[np.float64], codes: IntArray, members: IntArray) -> float:
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
    from sklearn.tree import DecisionTreeClassifier

    tree = DecisionTreeClassifier(max_depth=DEPTH, min_samples_leaf=3, class_weight="balanced", random_state=0)
    folds = StratifiedGroupKFold(NUM_FOLDS, shuffle=True, random_state=0)
    predicted = cross_val_predict(tree, inputs, codes, groups=members, cv=folds)
    return float(balanced_accuracy_score(codes, predicted))
