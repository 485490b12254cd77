"""Intervals of scores against scipy, and by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from scipy.stats import t as student

from raysk.evaluation.intervals import (
    degrees_of_freedom,
    groups_of_each_class,
    score_interval,
    student_quantile,
    wilson_interval,
)
from raysk.evaluation.metrics import parse_metric

NAMES = ("mel", "nv", "df")


@pytest.mark.parametrize(("hits", "trials"), [(0, 3), (2, 2), (7, 10), (40, 300)])
def test_the_interval_of_a_rate_is_that_of_wilson(hits: int, trials: int) -> None:
    expected = binomtest(hits, trials).proportion_ci(method="wilson")
    assert wilson_interval(hits / trials, trials) == pytest.approx((expected.low, expected.high))


def test_a_spread_is_worth_the_trials_of_a_rate_with_that_spread() -> None:
    spread = (0.7 * 0.3 / 50) ** 0.5
    expected = wilson_interval(0.7, 50, student_quantile(np.array([20, 30]), 0.9))
    assert score_interval(0.7, spread, np.array([20, 30]), (0, 1), 0.9) == pytest.approx(expected)


def test_other_limits_stretch_the_interval() -> None:
    low, high = score_interval(0.4, 0.2, np.array([9, 9]), (-1, 1), 0.95)
    inner = score_interval(0.7, 0.1, np.array([9, 9]), (0, 1), 0.95)
    assert ((low + 1) / 2, (high + 1) / 2) == pytest.approx(inner)


@settings(max_examples=100, deadline=None)
@given(st.floats(0, 1), st.floats(0, 1), st.lists(st.integers(1, 50), min_size=1, max_size=5))
def test_ends_surround_the_score_within_its_limits(score: float, spread: float, counts: list[int]) -> None:
    low, high = score_interval(score, spread, np.array(counts), (0, 1), 0.95)
    assert 0 <= low <= score + 1e-9
    assert score - 1e-9 <= high <= 1


def test_without_a_spread_the_classes_count_as_trials() -> None:
    for score in (0.0, 0.5, 1.0):
        assert score_interval(score, 0.0, np.array([5]), (0, 1), 0.95) == pytest.approx(wilson_interval(score, 5))
    # The variance of a mean over two classes of 5 and 20 groups is (1 / 5 + 1 / 20) / 4 = 1 / 16 of that of one group.
    assert score_interval(1.0, 0.0, np.array([5, 20]), (0, 1), 0.95) == pytest.approx(wilson_interval(1.0, 16))


def test_degrees_of_freedom_are_those_of_satterthwaite() -> None:
    assert degrees_of_freedom(np.array([8])) == pytest.approx(7)
    # Equal classes of n groups have K (n - 1).
    assert degrees_of_freedom(np.array([8, 8, 8])) == pytest.approx(21)
    assert degrees_of_freedom(np.array([5, 10_000])) == pytest.approx(4, abs=0.01)
    assert student_quantile(np.array([8, 8, 8]), 0.95) == pytest.approx(student.ppf(0.975, 21))


@pytest.mark.parametrize(
    ("name", "expected"),
    [("macro_f1", [2, 3, 1]), ("auc@mel", [4, 2]), ("sensitivity@mel", [2]), ("specificity@mel", [4])],
)
def test_groups_count_once_for_each_class_that_they_show(name: str, expected: list[int]) -> None:
    labels = np.array([0, 0, 0, 1, 1, 1, 2])
    groups = np.array(["a", "a", "b", "b", "c", "d", "e"])
    counts = groups_of_each_class(parse_metric(name, NAMES), labels, groups)
    assert counts.tolist() == expected
    missing = groups_of_each_class(parse_metric("macro_f1"), labels[labels != 1], groups[labels != 1])
    assert missing.tolist() == [2, 1]
