"""The contract of every metric; a new metric is tested here as soon as it is registered."""

import inspect
import pickle
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysk.errors import DataError
from raysk.evaluation.metrics import Metric, metrics, parse_metric
from raysk.evaluation.metrics.base import CLASSES as OF_CLASSES
from raysk.evaluation.resampling import bootstrap_interval, resampled_scores

CLASSES = ("mel", "nv", "vasc")
FILLED_IN = [
    re.sub(r":[A-Z]+$", ":0.7", form.replace("CLASS", "mel"))
    for form in metrics
    if metrics[form].form == OF_CLASSES  # those of masks have tests of their own
]


@pytest.fixture(params=FILLED_IN)
def metric(request) -> Metric:
    return parse_metric(request.param, CLASSES)


every_metric = pytest.mark.parametrize("name", FILLED_IN)


def draw(num_rows, seed, decimals=6, leading=()):
    """Returns probabilities (..., N, 3) that are better than chance, with ties when decimals are few, and labels."""
    random = np.random.default_rng(seed)
    labels = random.choice(3, size=num_rows, p=random.dirichlet(np.ones(3)))
    values = random.random((*leading, num_rows, 3)) + np.eye(3)[labels]
    return (values / values.sum(axis=-1, keepdims=True)).round(decimals), labels


def test_every_metric_is_registered():
    pending, concrete = [*Metric.__subclasses__()], set()
    while pending:
        member = pending.pop()
        pending.extend(member.__subclasses__())
        if not inspect.isabstract(member) and "wording" in vars(member) and member.__module__.startswith("raysk."):
            concrete.add(member)
    assert {metrics[form] for form in metrics} == concrete


def test_a_metric_is_a_value_under_its_own_name(metric):
    assert parse_metric(metric.name, CLASSES) == metric
    assert pickle.loads(pickle.dumps(metric)) == metric
    assert len({metric, parse_metric(metric.name, CLASSES)}) == 1
    assert metric.title
    assert inspect.getdoc(type(metric))


def test_perfect_predictions_have_the_best_score(metric):
    labels = np.array([0, 1, 2, 2, 1, 0, 0])
    low, high = metric.range
    best = float(metric(np.eye(3)[labels], labels))
    assert best == pytest.approx(high if metric.larger_is_better else low)
    assert metric.worst == (low if metric.larger_is_better else high)


def test_predictions_that_are_always_wrong_are_worse_than_perfect_ones(metric):
    labels = np.array([0, 1, 2, 2, 1, 0, 0])
    perfect, wrong = (metric.oriented(float(metric(np.eye(3)[rows], labels))) for rows in (labels, (labels + 1) % 3))
    assert metric.oriented(metric.worst) <= wrong < perfect


@every_metric
@settings(max_examples=40, deadline=None)
@given(st.integers(1, 30), st.integers(0, 10_000), st.sampled_from([0, 1, 6]))
def test_a_score_is_in_its_range_and_ignores_the_order_of_rows(name, num_rows, seed, decimals):
    metric = parse_metric(name, CLASSES)
    probabilities, labels = draw(num_rows, seed, decimals)
    score = float(metric(probabilities, labels))
    order = np.random.default_rng(seed).permutation(num_rows)
    np.testing.assert_allclose(metric(probabilities[order], labels[order]), score, rtol=1e-12, atol=1e-12)
    low, high = metric.range
    assert np.isnan(score) or low - 1e-12 <= score <= high + 1e-12


@every_metric
@settings(max_examples=25, deadline=None)
@given(st.integers(1, 30), st.integers(0, 10_000), st.sampled_from([0, 1, 6]))
def test_candidates_on_a_leading_axis_score_as_each_alone(name, num_rows, seed, decimals):
    metric = parse_metric(name, CLASSES)
    probabilities, labels = draw(num_rows, seed, decimals, leading=(2, 3))
    together = metric(probabilities, labels)
    alone = [[metric(candidate, labels) for candidate in several] for several in probabilities]
    assert together.shape == (2, 3)
    np.testing.assert_array_equal(together, alone)


@every_metric
@settings(max_examples=25, deadline=None)
@given(st.integers(1, 30), st.integers(0, 10_000), st.sampled_from([0, 1, 6]))
def test_resamples_score_as_rows_that_are_repeated_by_hand(name, num_rows, seed, decimals):
    metric = parse_metric(name, CLASSES)
    probabilities, labels = draw(num_rows, seed, decimals)
    groups = np.random.default_rng(seed).integers(1 + num_rows // 2, size=num_rows)
    names = np.unique(groups)
    random, expected = np.random.default_rng(7), []
    for _ in range(20):
        drawn = names[random.integers(len(names), size=len(names))]
        rows = np.concatenate([np.flatnonzero(groups == group) for group in drawn])
        expected.append(metric(probabilities[rows], labels[rows]))
    actual = resampled_scores(metric, probabilities, labels, groups, num_samples=20, seed=7)
    np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-12)


def test_a_class_that_no_row_has_leaves_a_score_or_none_but_never_another_number(metric):
    probabilities = np.array([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.6, 0.3, 0.1]])
    labels = np.array([1, 1, 1])  # all rows are of one class, and the class of the metric has none
    score = float(metric(probabilities, labels))
    low, high = metric.range
    assert np.isnan(score) or low <= score <= high
    interval = bootstrap_interval(metric, probabilities, labels, np.arange(3), num_samples=10)
    assert np.isnan(interval).all() == np.isnan(score)


@pytest.mark.parametrize(
    ("labels", "message"),
    [([0, 1], "shapes"), ([0, 1, 3], "0 to 2, but got 0 to 3"), ([-1, 1, 2], "but got -1 to 2")],
)
def test_labels_that_do_not_match_are_refused(metric, labels, message):
    with pytest.raises(DataError, match=message):
        metric(np.eye(3), np.array(labels))
