"""Scores of rankings against scikit-learn, and against thresholds tried one by one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from raysk.evaluation.metrics import parse_metric
from tests.evaluation.metrics.tasks import Task, make_task, tasks

NAMES = tuple("abcdef")
FLOORS = (0.07, 0.3, 0.5, 0.8, 0.9, 1.0)


def with_both_kinds(labels: np.ndarray, num_classes: int) -> list[int]:
    return [label for label in range(num_classes) if 0 < (labels == label).sum() < len(labels)]


@settings(max_examples=80, deadline=None)
@given(tasks)
def test_auc_agrees_with_scikit_learn_on_the_classes_that_occur(task: Task) -> None:
    probabilities, labels = task
    present = with_both_kinds(labels, probabilities.shape[1])
    areas = {label: reference.roc_auc_score(labels == label, probabilities[:, label]) for label in present}
    expected = np.mean(list(areas.values())) if areas else np.nan
    assert parse_metric("macro_auc")(probabilities, labels) == pytest.approx(expected, nan_ok=True)
    for label in range(probabilities.shape[1]):
        area = parse_metric(f"auc@{NAMES[label]}", NAMES)(probabilities, labels)
        assert area == pytest.approx(areas.get(label, np.nan), nan_ok=True)


def as_isic_2024(is_positive: np.ndarray, probability: np.ndarray, floor: float) -> float:
    """The scorer of the challenge: with classes and scores turned around, the area up to a false positive rate."""
    largest = 1 - floor
    scaled = reference.roc_auc_score(~is_positive, -probability, max_fpr=largest)
    least = largest**2 / 2
    return least + (scaled - 0.5) * (largest - least) / 0.5


@settings(max_examples=120, deadline=None)
@given(tasks, st.sampled_from(FLOORS[:-1]))
def test_partial_auc_agrees_with_the_scorer_of_isic_2024(task: Task, floor: float) -> None:
    probabilities, labels = task
    for label in with_both_kinds(labels, probabilities.shape[1]):
        expected = as_isic_2024(labels == label, probabilities[:, label], floor)
        actual = parse_metric(f"pauc@{NAMES[label]}:{floor}", NAMES)(probabilities, labels)
        assert actual == pytest.approx(expected, abs=1e-12)


def test_partial_auc_above_zero_is_the_auc_and_chance_is_half_a_square() -> None:
    probabilities, labels = make_task(60, 3, seed=0, decimals=1)
    whole, part = (parse_metric(name, NAMES)(probabilities, labels) for name in ("auc@b", "pauc@b:0"))
    assert whole == part
    uninformed = np.full((10, 2), 0.5)
    assert parse_metric("pauc@a:0.8", NAMES)(uninformed, np.arange(10) % 2) == pytest.approx(0.02)


@settings(max_examples=80, deadline=None)
@given(tasks)
def test_average_precision_agrees_with_scikit_learn(task: Task) -> None:
    probabilities, labels = task
    present = np.unique(labels)
    expected = {label: reference.average_precision_score(labels == label, probabilities[:, label]) for label in present}
    actual = parse_metric("average_precision")(probabilities, labels)
    assert actual == pytest.approx(np.mean(list(expected.values())))
    for label in range(probabilities.shape[1]):
        alone = parse_metric(f"average_precision@{NAMES[label]}", NAMES)(probabilities, labels)
        assert alone == pytest.approx(expected.get(label, np.nan), nan_ok=True)


@settings(max_examples=80, deadline=None)
@given(tasks, st.sampled_from(FLOORS))
def test_a_rate_at_another_rate_agrees_with_thresholds_tried_one_by_one(task: Task, floor: float) -> None:
    probabilities, labels = task
    for label in range(probabilities.shape[1]):
        values, is_positive = probabilities[:, label], labels == label
        sensitivities, specificities = [0.0], [0.0]
        for threshold in [*values, 2.0]:
            decided = values >= threshold
            sensitivity = decided[is_positive].mean() if is_positive.any() else np.nan
            specificity = (~decided[~is_positive]).mean() if not is_positive.all() else np.nan
            if specificity >= floor - 1e-9:
                sensitivities.append(sensitivity)
            if sensitivity >= floor - 1e-9:
                specificities.append(specificity)
        defined = 0 < is_positive.sum() < len(labels)
        for name, best in ((f"sensitivity@{NAMES[label]}|specificity:{floor}", max(sensitivities)),
                           (f"specificity@{NAMES[label]}|sensitivity:{floor}", max(specificities))):  # fmt: skip
            actual = parse_metric(name, NAMES)(probabilities, labels)
            assert actual == pytest.approx(best if defined else np.nan, nan_ok=True)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=50))
def test_auc_of_hard_labels_of_two_classes_is_the_balanced_accuracy(pairs: list[tuple[bool, bool]]) -> None:
    labels, predicted = np.array(pairs, dtype=int).T
    labels[:2] = 0, 1
    hard = np.eye(2)[predicted]
    auc, balanced = (parse_metric(name)(hard, labels) for name in ("macro_auc", "balanced_accuracy"))
    assert auc == pytest.approx(balanced)


def test_auc_sees_an_order_that_predicted_classes_hide() -> None:
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]])
    labels = np.array([0, 0, 1, 1])
    assert parse_metric("macro_auc")(probabilities, labels) == 1
    assert parse_metric("balanced_accuracy")(probabilities, labels) == 0.5
