"""Operating points against thresholds tried one by one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysk.evaluation.goals import parse_requirement
from raysk.evaluation.operating_points import LabelledRows, OperatingPoint, choose_threshold, decide, operating_points

NAMES = ("nv", "mel", "vasc")
BOUNDS = (0.07, 0.3, 0.5, 0.7, 0.9, 1.0)


def rates(values, is_positive, threshold):
    """Counts one row after another."""
    found = [value >= threshold for value, positive in zip(values, is_positive, strict=True) if positive]
    rejected = [value < threshold for value, positive in zip(values, is_positive, strict=True) if not positive]
    return sum(found) / len(found), sum(rejected) / len(rejected)


scores = st.lists(st.tuples(st.sampled_from([0.1, 0.2, 0.25, 0.5, 0.7, 0.9]), st.booleans()), min_size=2, max_size=30)


def with_both_kinds(pairs):
    values, is_positive = (np.array(column) for column in zip(*pairs, strict=True))
    is_positive[:2] = True, False
    return values, is_positive


@settings(max_examples=150, deadline=None)
@given(scores, st.sampled_from(BOUNDS))
def test_a_sensitivity_takes_the_largest_threshold_that_meets_it(pairs, bound):
    values, is_positive = with_both_kinds(pairs)
    fitting = [value for value in values if rates(values, is_positive, value)[0] >= bound - 1e-9]
    assert choose_threshold(values, is_positive, bound, 0.0) == max(fitting)


@settings(max_examples=150, deadline=None)
@given(scores, st.sampled_from(BOUNDS))
def test_a_specificity_takes_the_smallest_threshold_that_meets_it_or_none(pairs, bound):
    values, is_positive = with_both_kinds(pairs)
    fitting = [value for value in values if rates(values, is_positive, value)[1] >= bound - 1e-9]
    assert choose_threshold(values, is_positive, 0.0, bound) == (min(fitting) if fitting else None)


@settings(max_examples=150, deadline=None)
@given(scores, st.sampled_from(BOUNDS), st.sampled_from(BOUNDS))
def test_both_bounds_take_the_middle_of_the_thresholds_that_meet_them_or_none(pairs, sensitivity, specificity):
    values, is_positive = with_both_kinds(pairs)
    fitting = [
        value for value in values
        if rates(values, is_positive, value)[0] >= sensitivity - 1e-9
        and rates(values, is_positive, value)[1] >= specificity - 1e-9
    ]  # fmt: skip
    threshold = choose_threshold(values, is_positive, sensitivity, specificity)
    if fitting:
        assert threshold == pytest.approx((min(fitting) + max(fitting)) / 2)
        reached = rates(values, is_positive, threshold)
        assert reached[0] >= sensitivity - 1e-9
        assert reached[1] >= specificity - 1e-9
    else:
        assert threshold is None


def test_without_rows_of_a_kind_there_is_no_threshold():
    values = np.array([0.2, 0.8])
    assert choose_threshold(values, np.array([False, False]), 0.5, 0.0) is None
    assert choose_threshold(values, np.array([True, True]), 0.0, 0.5) is None


def test_a_row_at_the_threshold_is_decided_and_the_others_get_the_most_probable_other_class():
    probabilities = np.array([[0.1, 0.6, 0.3], [0.5, 0.3, 0.2], [0.2, 0.29, 0.51], [0.4, 0.2, 0.4]])
    np.testing.assert_array_equal(decide(probabilities, {1: 0.3}), [1, 1, 2, 0])
    np.testing.assert_array_equal(decide(probabilities, {1: 0.7}), [2, 0, 2, 0])
    assert probabilities[0, 1] == 0.6, "the probabilities are left as they are"


def test_several_operating_points_decide_in_their_order_and_the_rest_is_left_to_the_other_classes():
    probabilities = np.array([[0.1, 0.6, 0.3], [0.5, 0.3, 0.2], [0.5, 0.1, 0.4], [0.6, 0.3, 0.1]])
    np.testing.assert_array_equal(decide(probabilities, {1: 0.25, 2: 0.2}), [1, 1, 2, 1])
    np.testing.assert_array_equal(decide(probabilities, {2: 0.2, 1: 0.25}), [2, 2, 2, 1])
    np.testing.assert_array_equal(decide(probabilities, {0: 0.9, 1: 0.9, 2: 0.9}), [1, 0, 0, 0])
    np.testing.assert_array_equal(decide(probabilities, {}), probabilities.argmax(axis=1))


def draw(num_rows, seed):
    random = np.random.default_rng(seed)
    labels = random.integers(3, size=num_rows)
    values = random.random((num_rows, 3)) + 0.7 * np.eye(3)[labels]
    return LabelledRows((values / values.sum(axis=1, keepdims=True)).astype(np.float32), labels)


@pytest.mark.parametrize(
    ("texts", "sensitivity", "specificity"),
    [
        (["sensitivity@mel>=0.8"], 0.8, 0.0),
        (["specificity@mel>=0.8"], 0.0, 0.8),
        (["sensitivity@mel|specificity:0.6>=0.5"], 0.5, 0.6),
        (["specificity@mel|sensitivity:0.6>=0.5"], 0.6, 0.5),
        (["sensitivity@mel>=0.4", "macro_f1>=0.1", "specificity@mel>=0.5", "sensitivity@mel>=0.6"], 0.6, 0.5),
    ],
)
def test_each_fold_is_decided_by_the_threshold_that_the_other_folds_choose(texts, sensitivity, specificity):
    rows, test, folds = draw(90, 0), draw(40, 1), np.arange(90) % 3
    (point,) = operating_points([parse_requirement(text, NAMES) for text in texts], rows, folds, test)
    values, is_mel = rows.probabilities[:, 1], rows.labels == 1
    assert point.class_name == "mel"
    assert point.requirements == tuple(text for text in texts if "macro" not in text)
    assert point.threshold == choose_threshold(values, is_mel, sensitivity, specificity)
    decided = np.zeros(90, dtype=bool)
    for fold in range(3):
        elsewhere = folds != fold
        threshold = choose_threshold(values[elsewhere], is_mel[elsewhere], sensitivity, specificity)
        decided[~elsewhere] = values[~elsewhere] >= threshold
    assert point.sensitivity == decided[is_mel].mean()
    assert point.specificity == (~decided)[~is_mel].mean()
    expected = rates(test.probabilities[:, 1], test.labels == 1, point.threshold)
    assert (point.test_sensitivity, point.test_specificity) == pytest.approx(expected)


def test_each_class_has_a_point_in_the_order_of_the_requirements_and_other_metrics_have_none():
    rows, folds = draw(60, 2), np.arange(60) % 2
    texts = ["sensitivity@vasc>=0.5", "kappa>=0", "specificity@nv>=0.5"]
    points = operating_points([parse_requirement(text, NAMES) for text in texts], rows, folds, rows)
    assert [point.class_name for point in points] == ["vasc", "nv"]
    assert operating_points([parse_requirement("log_loss<=1", NAMES)], rows, folds, rows) == ()


def test_bounds_that_cannot_be_met_together_leave_no_threshold_and_no_rates():
    rows, folds = draw(60, 3), np.arange(60) % 2
    texts = ["sensitivity@mel>=1", "specificity@mel>=1"]
    (point,) = operating_points([parse_requirement(text, NAMES) for text in texts], rows, folds, rows)
    assert point == OperatingPoint(class_name="mel", requirements=tuple(texts), threshold=None)


def test_a_fold_whose_other_folds_choose_no_threshold_leaves_the_rates_open():
    """All rows of the class are in the first fold, so the second fold alone cannot choose for it."""
    labels, folds = np.array([1, 1, 0, 0, 0, 0]), np.array([0, 0, 0, 1, 1, 1])
    positive = np.array([0.9, 0.8, 0.3, 0.2, 0.1, 0.4])
    rows = LabelledRows(np.stack([1 - positive, positive], axis=1), labels)
    (point,) = operating_points([parse_requirement("sensitivity@b>=1", ("a", "b"))], rows, folds, rows)
    assert point.threshold == 0.8
    assert (point.sensitivity, point.specificity) == (None, None)
    assert (point.test_sensitivity, point.test_specificity) == (1, 1)
