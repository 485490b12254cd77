"""Scores of predicted classes against scikit-learn."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from sklearn import metrics as reference

from raysk.evaluation.metrics import parse_metric
from raysk.evaluation.metrics.class_counts import count_classes
from tests.evaluation.metrics.tasks import Task, tasks


@settings(max_examples=80, deadline=None)
@given(tasks)
def test_scores_of_predicted_classes_agree_with_scikit_learn(task: Task) -> None:
    probabilities, labels = task
    predicted = probabilities.argmax(axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns of classes that are predicted but not labelled
        expected = {
            "macro_f1": reference.f1_score(labels, predicted, average="macro", zero_division=0),
            "macro_precision": reference.precision_score(labels, predicted, average="macro", zero_division=0),
            "balanced_accuracy": reference.balanced_accuracy_score(labels, predicted),
            "accuracy": reference.accuracy_score(labels, predicted),
            "kappa": reference.cohen_kappa_score(labels, predicted),
        }
    for name, score in expected.items():
        assert parse_metric(name)(probabilities, labels) == pytest.approx(score, nan_ok=True), name


@settings(max_examples=80, deadline=None)
@given(tasks)
def test_scores_of_each_class_agree_with_scikit_learn_where_they_are_defined(task: Task) -> None:
    probabilities, labels = task
    predicted = probabilities.argmax(axis=1)
    classes = np.arange(probabilities.shape[1])
    expected = reference.precision_recall_fscore_support(labels, predicted, labels=classes, zero_division=0)
    labelled, seen = np.isin(classes, labels), np.isin(classes, np.union1d(labels, predicted))
    counts = count_classes(predicted, labels, len(classes))
    for actual, wanted, defined in (
        (counts.precision(), expected[0], seen),
        (counts.recall(), expected[1], labelled),
        (counts.f1(), expected[2], seen),
    ):
        np.testing.assert_allclose(actual, np.where(defined, wanted, np.nan))


@settings(max_examples=80, deadline=None)
@given(tasks)
def test_sensitivity_and_specificity_agree_with_a_count_by_hand(task: Task) -> None:
    probabilities, labels = task
    names = [f"c{label}" for label in range(probabilities.shape[1])]
    for label, name in enumerate(names):
        decided = [row.argmax() == label for row in probabilities]
        of_class = [hit for hit, truth in zip(decided, labels, strict=True) if truth == label]
        of_others = [not hit for hit, truth in zip(decided, labels, strict=True) if truth != label]
        for rate, hits in (("sensitivity", of_class), ("specificity", of_others)):
            expected = np.mean(hits) if hits else np.nan
            actual = parse_metric(f"{rate}@{name}", names)(probabilities, labels)
            assert actual == pytest.approx(expected, nan_ok=True)


def test_a_class_that_is_never_predicted_counts_as_zero() -> None:
    probabilities, labels = np.array([[0.9, 0.1], [0.8, 0.2]]), np.array([0, 1])
    assert parse_metric("macro_f1")(probabilities, labels) == pytest.approx((2 / 3 + 0) / 2)
    assert parse_metric("macro_precision")(probabilities, labels) == 0.25
    assert parse_metric("sensitivity@b", ("a", "b"))(probabilities, labels) == 0
    assert parse_metric("specificity@b", ("a", "b"))(probabilities, labels) == 1


def test_a_tie_goes_to_the_first_class() -> None:
    assert parse_metric("accuracy")(np.array([[0.5, 0.5]]), np.array([0])) == 1


def test_counts_of_many_candidates_equal_the_counts_of_each() -> None:
    random = np.random.default_rng(0)
    labels, predicted = random.integers(4, size=30), random.integers(4, size=(2, 3, 30))
    together = count_classes(predicted, labels, 4)
    for place in np.ndindex(2, 3):
        alone = count_classes(predicted[place], labels, 4)
        np.testing.assert_array_equal(together.f1()[place], alone.f1())
        np.testing.assert_array_equal(together.recall()[place], alone.recall())
