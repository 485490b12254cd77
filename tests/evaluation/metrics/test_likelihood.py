"""The log loss against scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from sklearn.metrics import log_loss

from raysk.evaluation.metrics import parse_metric
from tests.evaluation.metrics.tasks import Task, tasks


@settings(max_examples=80, deadline=None)
@given(tasks)
def test_the_log_loss_agrees_with_scikit_learn(task: Task) -> None:
    probabilities, labels = task
    probabilities = ((probabilities + 1e-3) / (probabilities + 1e-3).sum(axis=1, keepdims=True)).astype(np.float32)
    expected = log_loss(labels, probabilities, labels=range(probabilities.shape[1]))
    assert parse_metric("log_loss")(probabilities, labels) == pytest.approx(expected, abs=1e-6)


def test_certainty_in_a_wrong_class_has_a_price() -> None:
    metric = parse_metric("log_loss")
    certain = np.array([[0.0, 1.0], [0.0, 1.0]], np.float32)
    assert metric(certain, np.array([0, 0])) == metric.worst == pytest.approx(15.94, abs=0.01)
    assert metric(certain, np.array([0, 0])) == pytest.approx(log_loss([0, 0], certain, labels=[0, 1]))
    assert metric(certain, np.array([1, 1])) == 0


def test_a_smaller_loss_is_better() -> None:
    metric = parse_metric("log_loss")
    sure, unsure = np.array([[0.9, 0.1]]), np.array([[0.6, 0.4]])
    label = np.array([0])
    assert metric.oriented(float(metric(sure, label))) > metric.oriented(float(metric(unsure, label)))
    assert metric.oriented(metric.oriented(0.3)) == 0.3
