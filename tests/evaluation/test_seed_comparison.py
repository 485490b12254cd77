"""Tests over rows and seeds: equal to Welch's where only the seeds vary, and honest where both do."""

import numpy as np
import pytest
from scipy.stats import ttest_ind

from raysk.evaluation.metrics import parse_metric
from raysk.evaluation.seed_comparison import compare_over_seeds

ACCURACY = parse_metric("accuracy")


def trained(labels, right):
    """Probabilities of a model that is right on some rows."""
    predicted = np.where(right, labels, 1 - labels)
    return np.eye(2)[predicted] * 0.8 + 0.1


def world(random, num_rows, num_seeds, of_recipe, of_seed, of_row):
    """Two equally good recipes: each training is right on a row with a chance that rows and seeds move."""
    labels = np.arange(num_rows) % 2
    ease = of_row * random.standard_normal((2, num_rows)) + 1.0
    return labels, {
        name: [
            trained(labels, ease[place] + of_seed * random.standard_normal() + random.standard_normal(num_rows) > 0)
            for _ in range(num_seeds)
        ]
        for place, name in enumerate(of_recipe)
    }


def test_without_noise_of_rows_the_test_is_that_of_welch():
    """All rows of one group are resampled together, so no resample differs."""
    random = np.random.default_rng(0)
    labels, contestants = world(random, 400, 5, ("a", "b"), 0.3, 0.0)
    (found,) = compare_over_seeds(contestants, labels, np.zeros(400, int), ACCURACY, num_samples=50)
    scores = [[ACCURACY(each, labels) for each in contestants[name]] for name in ("a", "b")]
    welch = ttest_ind(*scores, equal_var=False)
    assert found.difference == pytest.approx(np.mean(scores[0]) - np.mean(scores[1]))
    assert found.p == pytest.approx(welch.pvalue)
    interval = welch.confidence_interval(0.95)
    assert (found.low, found.high) == (pytest.approx(interval.low), pytest.approx(interval.high))


@pytest.mark.parametrize(("of_seed", "of_row"), [(0.3, 0.0), (0.1, 1.0), (0.0, 1.0)])
def test_equal_recipes_differ_seldom(of_seed, of_row):
    """Of 300 worlds at the level .05; a standard error is .013."""
    random = np.random.default_rng(1)
    p_values = []
    for _ in range(300):
        labels, contestants = world(random, 120, 3, ("a", "b"), of_seed, of_row)
        (found,) = compare_over_seeds(contestants, labels, np.arange(120), ACCURACY, num_samples=200)
        p_values.append(found.p)
    assert np.mean(np.array(p_values) < 0.05) <= 0.09


def test_equal_predictions_do_not_differ_and_opposite_ones_do():
    labels = np.arange(40) % 2
    right, wrong = trained(labels, np.ones(40, bool)), trained(labels, np.zeros(40, bool))
    same, other = (
        compare_over_seeds({"a": [right, right], "b": [second, second]}, labels, np.arange(40), ACCURACY, 50)[0]
        for second in (right, wrong)
    )
    assert (same.difference, same.p) == (0.0, 1.0)
    assert (other.difference, other.p) == (1.0, 0.0)


def test_three_recipes_are_corrected_for_three_comparisons():
    random = np.random.default_rng(2)
    labels, contestants = world(random, 60, 3, ("a", "b"), 0.3, 0.5)
    contestants |= world(random, 60, 3, ("c",), 0.3, 0.5)[1]
    found = compare_over_seeds(contestants, labels, np.arange(60), ACCURACY, num_samples=100)
    assert [(each.first, each.second) for each in found] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert min(each.p_holm for each in found) == pytest.approx(min(1, 3 * min(each.p for each in found)))
