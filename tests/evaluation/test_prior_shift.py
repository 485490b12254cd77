"""Saerens' correction: against its equations in plain loops, and on drawn classes whose shares are known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from raysk.evaluation.prior_shift import assumed_shares, corrected, estimated_shares, shift_p_value


def drawn(num_rows, shares, seed):
    """Labels and points of three classes, each a normal distribution in the plane."""
    random = np.random.default_rng(seed)
    labels = random.choice(3, size=num_rows, p=shares)
    centres = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 2.5]])
    return random.normal(size=(num_rows, 2)) + centres[labels], labels, centres


def posterior(points, centres, shares):
    """The exact probabilities of the classes by Bayes, for the shares that they assume."""
    densities = np.exp(-((points[:, None] - centres) ** 2).sum(axis=2) / 2)
    return densities * shares / (densities * shares).sum(axis=1, keepdims=True)


def em_in_loops(probabilities, prior, num_steps):
    """Equations 2.9 of the paper, one number at a time."""
    num_rows, num_classes = probabilities.shape
    new = list(prior)
    for _ in range(num_steps):
        sums = [0.0] * num_classes
        for k in range(num_rows):
            ratios = [new[i] / prior[i] * probabilities[k, i] for i in range(num_classes)]
            for i in range(num_classes):
                sums[i] += ratios[i] / sum(ratios)
        new = [total / num_rows for total in sums]
    return new


TRAINED = np.array([0.6, 0.3, 0.1])


def test_em_is_that_of_the_paper():
    points, _, centres = drawn(300, [0.2, 0.2, 0.6], 0)
    probabilities = posterior(points, centres, TRAINED)
    np.testing.assert_allclose(
        estimated_shares(probabilities, TRAINED), em_in_loops(probabilities, TRAINED, 400), atol=1e-5
    )


@pytest.mark.parametrize("shares", [[0.2, 0.2, 0.6], [0.34, 0.33, 0.33], [0.02, 0.9, 0.08], [0.6, 0.3, 0.1]])
def test_the_shares_of_drawn_classes_are_recovered(shares):
    points, labels, centres = drawn(20_000, shares, 1)
    estimate = estimated_shares(posterior(points, centres, TRAINED), TRAINED)
    np.testing.assert_allclose(estimate, np.bincount(labels) / len(labels), atol=0.02)


def test_the_correction_is_what_bayes_gives_for_the_new_shares():
    points, _, centres = drawn(50, TRAINED, 2)
    new = np.array([0.1, 0.1, 0.8])
    np.testing.assert_allclose(
        corrected(posterior(points, centres, TRAINED), TRAINED, new), posterior(points, centres, new), atol=1e-9
    )


def test_a_class_that_does_not_occur_gets_no_probability():
    result = corrected(np.array([[0.2, 0.8], [0.0, 1.0]]), np.array([0.5, 0.5]), np.array([1.0, 0.0]))
    np.testing.assert_array_equal(result, [[1, 0], [1, 0]])


def test_the_correction_raises_the_accuracy_where_the_shares_have_shifted():
    points, labels, centres = drawn(5_000, [0.05, 0.05, 0.9], 3)
    probabilities = posterior(points, centres, TRAINED)
    better = corrected(probabilities, TRAINED, estimated_shares(probabilities, TRAINED))
    before, after = ((values.argmax(axis=1) == labels).mean() for values in (probabilities, better))
    assert after > before + 0.02


@pytest.mark.parametrize("assumed", [[1 / 3, 1 / 3, 1 / 3], [0.6, 0.3, 0.1], [0.1, 0.2, 0.7]])
def test_the_shares_that_a_classifier_assumes_are_found(assumed):
    """A classifier on balanced batches assumes equal shares, though the shares of its rows are others."""
    points, labels, centres = drawn(20_000, TRAINED, 4)
    shares = np.bincount(labels) / len(labels)
    probabilities = posterior(points, centres, np.array(assumed))
    result = assumed_shares(probabilities, shares)
    np.testing.assert_allclose(result, assumed, atol=0.03)
    np.testing.assert_allclose(corrected(probabilities, result, shares).mean(axis=0), shares, atol=1e-5)


def test_the_test_of_a_shift_holds_its_level_and_finds_a_shift():
    """Of 200 draws without a shift about 5 % are called one; all draws with one are."""

    def p_value(shares, seed):
        points, _, centres = drawn(300, shares, seed)
        probabilities = posterior(points, centres, TRAINED)
        return shift_p_value(probabilities, TRAINED, TRAINED, estimated_shares(probabilities, TRAINED), 300)

    assert 0.01 <= np.mean([p_value(TRAINED, seed) < 0.05 for seed in range(200)]) <= 0.09
    assert all(p_value([0.3, 0.3, 0.4], seed) < 0.05 for seed in range(10))


def test_the_likelihood_ratio_is_that_of_the_paper_and_counts_groups():
    points, _, centres = drawn(40, [0.2, 0.2, 0.6], 0)
    probabilities = posterior(points, centres, TRAINED)
    new = estimated_shares(probabilities, TRAINED)
    log_likelihoods = [
        sum(np.log(sum(probabilities[k, i] / TRAINED[i] * shares[i] for i in range(3))) for k in range(40))
        for shares in (TRAINED, new)
    ]
    statistic = 2 * (log_likelihoods[1] - log_likelihoods[0])
    assert shift_p_value(probabilities, TRAINED, TRAINED, new, 40) == pytest.approx(chi2.sf(statistic, 2))
    assert shift_p_value(probabilities, TRAINED, TRAINED, new, 10) == pytest.approx(chi2.sf(statistic / 4, 2))


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 30), st.integers(2, 5), st.integers(0, 1000), st.sampled_from([0, 1, 6]))
def test_any_probabilities_give_shares_that_sum_to_one(num_rows, num_classes, seed, decimals):
    random = np.random.default_rng(seed)
    probabilities = random.dirichlet(np.full(num_classes, 0.2), size=num_rows).round(decimals)
    shares = random.dirichlet(np.ones(num_classes)) * 0.9 + 0.1 / num_classes
    for result in (estimated_shares(probabilities, shares), assumed_shares(probabilities, shares)):
        assert np.isfinite(result).all()
        assert (result >= 0).all()
        assert result.sum() == pytest.approx(1)
