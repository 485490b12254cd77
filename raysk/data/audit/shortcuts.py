"""Finds shortcuts: attributes that predict the label alone."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from raysk.data.manifest import IntArray

NUM_FOLDS = 3
MOST_ROWS = 10_000  # a sample of this size is enough to tell a strong attribute from a weak one
MOST_VALUES = 30  # of a text attribute; rarer values count as one
DEPTH = 8
# Least gain over chance, as a share of the largest possible gain. On HAM10000 age reaches 0.09 and dx_type 0.18.
LEAST_GAIN = 0.15
NUM_DEVIATIONS = 3  # above chance, so that a few groups do not reach it by accident
CERTAIN_SHARE = 0.02  # least share of the rows with a value that is reported as certain


class Shortcut(NamedTuple):
    """An attribute that predicts the label.

    Attributes:
        name: The attribute.
        score: Balanced accuracy of a small tree that sees only this attribute, on groups that it did not learn from.
        chance: The score of guessing.
        certain: The most frequent value that only one class has, and that class; None if no value is certain.
    """

    name: str
    score: float
    chance: float
    certain: tuple[str, str] | None


def find_shortcuts(
    attributes: Mapping[str, Sequence[Any]], labels: Sequence[str], groups: Sequence[str]
) -> list[Shortcut]:
    """Returns the attributes that predict the label, the strongest first.

    Rows without a label, classes with fewer than three groups, and copies of the label are left out.

    Args:
        attributes: Columns of N values; None and "" are unknown, which may be informative too.
        labels: The label of each row, "" where unknown.
        groups: The group of each row; learning and scoring never share a group.
    """
    rows = _scored_rows(labels, groups)
    classes, codes = np.unique([labels[row] for row in rows], return_inverse=True)
    if len(classes) < 2:
        return []
    members = np.unique([groups[row] for row in rows], return_inverse=True)[1]
    shortcuts = []
    for name, values in attributes.items():
        inputs = _inputs([values[row] for row in rows])
        if inputs is not None and not _repeats([values[row] for row in rows], [labels[row] for row in rows]):
            certain = _certain([values[row] for row in rows], [labels[row] for row in rows])
            shortcuts.append(Shortcut(name, _score(inputs, codes, members), 1 / len(classes), certain))
    least = NUM_DEVIATIONS * _deviation(codes, members)
    strong = [g for g in shortcuts if g.score - g.chance >= max(LEAST_GAIN * (1 - g.chance), least)]
    return sorted(strong, key=lambda shortcut: -shortcut.score)


def _repeats(values: Sequence[Any], labels: Sequence[str]) -> bool:
    """Returns whether a column is a copy of the label, whatever its case."""
    return all(str(value).strip().casefold() == label.casefold() for value, label in zip(values, labels, strict=True))


def _scored_rows(labels: Sequence[str], groups: Sequence[str]) -> list[int]:
    num_groups = Counter(label for label, _ in set(zip(labels, groups, strict=True)))
    rows = [row for row, label in enumerate(labels) if label and num_groups[label] >= NUM_FOLDS]
    if len(rows) > MOST_ROWS:
        rows = np.random.default_rng(0).choice(rows, MOST_ROWS, replace=False).tolist()
    return rows


def _inputs(values: Sequence[Any]) -> npt.NDArray[np.float64] | None:
    """Returns the input columns of a tree, (N, F); None if the attribute is constant or mostly distinct texts."""
    texts = ["" if value is None else str(value).strip() for value in values]
    counts = Counter(texts)
    if len(counts) < 2:
        return None
    numbers = [_number(text) for text in texts]
    if sum(number is None for number in numbers) <= 0.02 * len(texts):
        floats = np.array([np.nan if number is None else number for number in numbers])
        # The tree reads 32-bit floats and uses only their order: ranks keep large numbers and small differences.
        ranks = np.unique(np.nan_to_num(floats, nan=0.0), return_inverse=True)[1]
        return np.stack([ranks, np.isnan(floats)], axis=1).astype(np.float64)
    if len(counts) > len(texts) / 2:
        return None
    frequent = [text for text, _ in counts.most_common(MOST_VALUES)]
    return np.stack([[text == value for text in texts] for value in frequent], axis=1).astype(np.float64)


def _deviation(codes: IntArray, members: IntArray) -> float:
    """Returns the largest possible standard deviation of balanced accuracy over randomly drawn groups."""
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
    """Reads a number; returns NaN for an empty text and None for any other text."""
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
