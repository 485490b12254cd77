"""Recall and precision of each class against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import precision_score, recall_score

from raysk.evaluation.class_rates import class_rates

NAMES = ("a", "b", "c", "never")


@pytest.fixture
def task():
    random = np.random.default_rng(0)
    labels = random.integers(3, size=60)
    probabilities = random.dirichlet([1, 1, 1], size=60) + 0.5 * np.eye(3)[labels]
    return np.pad(probabilities, ((0, 0), (0, 1))), labels


def test_rates_are_those_of_scikit_learn_and_undefined_ones_are_left_out(task):
    probabilities, labels = task
    rates = class_rates(probabilities, labels, np.arange(60), NAMES)
    predicted = probabilities.argmax(axis=1)
    for label, name in enumerate(NAMES[:3]):
        assert rates[f"recall_{name}"] == pytest.approx(recall_score(labels == label, predicted == label))
        assert rates[f"precision_{name}"] == pytest.approx(precision_score(labels == label, predicted == label))
    assert not [name for name in rates if "never" in name]


def test_the_interval_counts_groups_not_rows(task):
    probabilities, labels = task
    alone, paired = (class_rates(probabilities, labels, np.arange(60) // size, NAMES) for size in (1, 3))
    for name in ("recall_a", "precision_b"):
        widths = [rates[f"{name}_high"] - rates[f"{name}_low"] for rates in (alone, paired)]
        assert alone[name] == paired[name]
        assert widths[0] < widths[1]
