"""Comparisons against oracles by hand, and p-values against simulated worlds."""

from dataclasses import replace
from itertools import combinations
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t as student

from raysk.errors import ConfigError, DataError
from raysk.evaluation.comparison import (
    Difference,
    compare,
    cross_fitted_choice,
    expected_best,
    holm,
    score_of_choice,
    scores_elsewhere,
    sentence,
)
from raysk.evaluation.metrics import parse_metric
from raysk.evaluation.resampling import resampled_scores

MACRO_F1, MACRO_AUC, ACCURACY = (parse_metric(name) for name in ("macro_f1", "macro_auc", "accuracy"))

Contestants = dict[str, np.ndarray]


def make_task(seed: int, skills: tuple[float, ...], num_rows: int = 60) -> tuple[Contestants, np.ndarray, np.ndarray]:
    """Returns contestants named a, b, ... with the given skills, labels of 3 classes, and small groups of rows."""
    random = np.random.default_rng(seed)
    labels, groups = random.integers(3, size=num_rows), random.integers(num_rows // 2, size=num_rows)
    contestants = {
        chr(ord("a") + place): random.dirichlet(np.ones(3), num_rows) + skill * np.eye(3)[labels]
        for place, skill in enumerate(skills)
    }
    return contestants, labels, groups


tasks = st.builds(make_task, st.integers(0, 10_000), st.lists(st.sampled_from([0.0, 0.3, 1.0]), min_size=2, max_size=4))


def difference(first: str, second: str, value: float, p_holm: float) -> Difference:
    return Difference(first, second, value, value - 0.01, value + 0.02, p_holm, p_holm)


def test_a_p_value_agrees_with_swapping_groups_by_hand() -> None:
    contestants, labels, groups = make_task(3, (0.5, 0.3))
    names, random = np.unique(groups), np.random.default_rng(5)
    observed = MACRO_F1(contestants["a"], labels) - MACRO_F1(contestants["b"], labels)
    as_large = 0
    for _ in range(200):
        is_kept = random.integers(2, size=len(names)).astype(bool)
        rows = np.isin(groups, names[is_kept])[:, np.newaxis]
        first = np.where(rows, contestants["a"], contestants["b"])
        second = np.where(rows, contestants["b"], contestants["a"])
        as_large += abs(MACRO_F1(first, labels) - MACRO_F1(second, labels)) >= abs(observed) - 1e-12
    (result,) = compare(contestants, labels, groups, MACRO_F1, num_samples=200, seed=5)
    assert result.difference == pytest.approx(observed)
    assert result.p == result.p_holm == (1 + as_large) / 201


def test_the_interval_of_a_difference_is_that_of_student_with_the_spread_of_paired_resamples() -> None:
    contestants, labels, groups = make_task(3, (0.5, 0.3))
    first, second = (resampled_scores(MACRO_F1, contestants[name], labels, groups, 20, seed=5) for name in "ab")
    class_groups = [len(np.unique(groups[labels == label])) for label in range(3)]
    freedom = sum(1 / n for n in class_groups) ** 2 / sum(1 / (n**2 * (n - 1)) for n in class_groups)
    half = student.ppf(0.9, freedom) * np.std(first - second)
    (result,) = compare(contestants, labels, groups, MACRO_F1, num_samples=20, seed=5, level=0.8)
    np.testing.assert_allclose((result.low, result.high), (result.difference - half, result.difference + half))


def test_with_few_groups_the_p_value_is_that_of_all_swaps() -> None:
    labels, groups = np.array([0, 1, 0, 1]), np.arange(4)
    right, wrong = np.eye(2)[labels], np.eye(2)[1 - labels]
    (result,) = compare({"right": right, "wrong": wrong}, labels, groups, ACCURACY)
    assert result.p == pytest.approx(2 / 2**4, abs=0.015)


@settings(max_examples=25, deadline=None)
@given(tasks)
def test_p_values_are_probabilities_and_the_correction_keeps_their_order(
    task: tuple[Contestants, np.ndarray, np.ndarray],
) -> None:
    results = compare(*task, MACRO_F1, num_samples=150)
    assert [(result.first, result.second) for result in results] == list(combinations(task[0], 2))
    for result in results:
        assert 0 < result.p <= result.p_holm <= 1
        assert result.low <= result.high
        for other in results:
            assert result.p > other.p or result.p_holm <= other.p_holm


@settings(max_examples=25, deadline=None)
@given(tasks, st.integers(0, 100))
def test_the_order_of_rows_and_of_contestants_does_not_matter(
    task: tuple[Contestants, np.ndarray, np.ndarray], seed: int
) -> None:
    contestants, labels, groups = task
    before = {(pair.first, pair.second): pair for pair in compare(*task, MACRO_F1, num_samples=150)}
    random = np.random.default_rng(seed)
    rows, names = random.permutation(len(labels)), random.permutation(list(contestants)).tolist()
    shuffled = {name: contestants[name][rows] for name in names}
    for pair in compare(shuffled, labels[rows], groups[rows], MACRO_F1, num_samples=150):
        turned = Difference(pair.second, pair.first, -pair.difference, -pair.high, -pair.low, pair.p, pair.p_holm)
        result = pair if (pair.first, pair.second) in before else turned
        expected = before[result.first, result.second]
        for name in ("difference", "low", "high", "p", "p_holm"):
            assert getattr(result, name) == pytest.approx(getattr(expected, name), abs=1e-12)


def test_equal_contestants_do_not_differ() -> None:
    contestants, labels, groups = make_task(0, (0.5, 1.0))
    twice = {"a": contestants["a"], "again": contestants["a"].copy(), "b": contestants["b"]}
    result = compare(twice, labels, groups, MACRO_F1, num_samples=200)[0]
    assert result == Difference("a", "again", 0, 0, 0, 1, 1)


def test_a_clear_difference_is_significant_after_the_correction() -> None:
    results = compare(*make_task(1, (2.0, 0.0, 0.0), num_rows=200), MACRO_F1, num_samples=1000)
    assert [result.p_holm < 0.05 for result in results] == [True, True, False]
    assert results[0].low > 0


def rejection_rate(groups: np.ndarray, rows_per_noise: int, num_worlds: int = 400) -> float:
    """Returns how often p <= .05 for two equally good contestants whose errors are shared by `rows_per_noise` rows."""
    random, num_rejected = np.random.default_rng(0), 0
    labels = np.repeat(np.arange(len(groups) // rows_per_noise) % 3, rows_per_noise)
    for world in range(num_worlds):
        noise = random.normal(size=(2, len(groups) // rows_per_noise, 3)).repeat(rows_per_noise, axis=1)
        first, second = noise + np.eye(3)[labels]
        num_rejected += (
            compare({"a": first, "b": second}, labels, groups, MACRO_F1, num_samples=200, seed=world)[0].p <= 0.05
        )
    return num_rejected / num_worlds


def test_equally_good_contestants_differ_as_rarely_as_the_level_promises() -> None:
    assert 0.02 < rejection_rate(np.arange(180), rows_per_noise=1) < 0.085


def test_only_whole_groups_keep_the_level_when_rows_of_a_group_are_alike() -> None:
    assert 0.02 < rejection_rate(np.repeat(np.arange(180), 4), rows_per_noise=4) < 0.085
    assert rejection_rate(np.arange(720), rows_per_noise=4) > 0.2


def test_any_score_can_be_compared() -> None:
    contestants, labels, groups = make_task(2, (1.0, 0.0))
    (result,) = compare(contestants, labels, groups, MACRO_AUC, num_samples=40)
    assert result.difference == MACRO_AUC(contestants["a"], labels) - MACRO_AUC(contestants["b"], labels)
    assert result.p == 1 / 41


def test_two_groups_prove_no_difference() -> None:
    probabilities, labels = np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([0, 1])
    both = {"right": probabilities, "wrong": probabilities[::-1]}
    (result,) = compare(both, labels, np.arange(2), MACRO_AUC, num_samples=50)
    assert result.difference == 1
    assert result.p > 0.4
    with pytest.raises(DataError, match="'right' is not defined"):
        compare(both, np.zeros(2, dtype=int), np.arange(2), MACRO_AUC)


def test_too_few_resamples_or_contestants_are_refused() -> None:
    contestants, labels, groups = make_task(0, (0.0, 0.0, 0.0))
    with pytest.raises(ConfigError, match="3 comparisons at the 95% level need at least 60 samples, but got 59"):
        compare(contestants, labels, groups, MACRO_F1, num_samples=59)
    compare(contestants, labels, groups, ACCURACY, num_samples=60)
    with pytest.raises(DataError, match="two contestants, but got 1"):
        compare({"a": contestants["a"]}, labels, groups, MACRO_F1)
    with pytest.raises(ConfigError, match=r"got 95"):
        compare(contestants, labels, groups, MACRO_F1, level=95)


def test_holm_by_hand() -> None:
    np.testing.assert_allclose(holm(np.array([0.03, 0.005, 0.02, 0.9])), [0.06, 0.02, 0.06, 0.9])
    np.testing.assert_allclose(holm(np.array([0.6, 0.7])), [1, 1])


def test_the_sentence_names_the_better_contestant_first() -> None:
    text = sentence([difference("a", "b", -0.031, 0.001), difference("a", "c", 0.01, 0.4)], MACRO_F1)
    assert text == (
        "In 1 of 2 comparisons the difference is significant at the 95% level after Holm's correction for all of them: "
        "b over a by 0.031 (0.011 to 0.041). The rows do not decide the other 1, which does not make those equal."
    )


def test_the_sentence_cuts_a_long_list_and_keeps_the_clearest() -> None:
    differences = [difference(f"first {place}", "second", 0.1, 0.04 - place / 1000) for place in range(8)]
    text = sentence(differences, MACRO_F1)
    assert text.startswith("In 8 of 8 comparisons")
    assert text.index("first 7 over") < text.index("first 3 over")
    assert text.endswith("and 3 more.")
    assert "first 2" not in text


def test_the_sentence_does_not_call_insignificant_differences_equal() -> None:
    close = difference("a", "b", 0.01, 0.04)
    assert sentence([close, replace(close, second="c")], MACRO_F1, level=0.99).startswith(
        "In none of 2 comparisons is the"
    )
    assert "does not show equal scores" in sentence([replace(close, p_holm=0.06)], MACRO_F1)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=1, max_size=9), st.data())
def test_the_expected_best_is_the_mean_over_all_subsets(values: list[float], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(values)))
    oracle = np.mean([max(subset) for subset in combinations(values, k)])
    assert expected_best(np.array(values), k) == pytest.approx(oracle, abs=1e-12)


def test_the_expected_best_of_many_scores_keeps_its_digits() -> None:
    # Of the numbers 1 to n it is k (n + 1) / (k + 1); the coefficients themselves are far beyond floating point.
    num_scores = 100_000
    assert comb(num_scores, 5_000) > 10**308
    for k in (1, 2, 5_000, num_scores):
        expected = k * (num_scores + 1) / (k + 1)
        assert expected_best(np.arange(1.0, num_scores + 1), k) == pytest.approx(expected, rel=1e-10)


def test_the_expected_best_refuses_impossible_budgets_and_undefined_scores() -> None:
    for k in (0, 4):
        with pytest.raises(ConfigError, match=f"1 to the 3 scores, but got {k}"):
            expected_best(np.ones(3), k)
    with pytest.raises(DataError, match="not defined"):
        expected_best(np.array([0.1, np.nan]), 1)


def test_the_cross_fitted_choice_by_hand() -> None:
    fold_scores = np.array([[0.9, 0.5, 0.5], [0.6, 0.7, 0.6], [0.1, 0.9, 0.7]])
    # Without the first fold the third is the best, without the second the first, without the third the first again
    # since .9 + .5 beats .6 + .7.
    np.testing.assert_array_equal(cross_fitted_choice(fold_scores, 3), [0.1, 0.5, 0.5])


def test_the_choice_for_a_fold_ignores_other_divisions_of_the_rows() -> None:
    first = np.array([[0.9, 0.5, 0.5], [0.6, 0.7, 0.6], [0.1, 0.9, 0.7]])
    second = first[::-1]
    both = cross_fitted_choice(np.hstack([first, second]), 3)
    np.testing.assert_array_equal(both[:3], cross_fitted_choice(first, 3))
    np.testing.assert_array_equal(both[3:], cross_fitted_choice(second, 3))


def test_of_equal_candidates_the_first_is_chosen_whatever_the_rounding() -> None:
    assert (0.1 + 0.2) + 0.3 != 0.1 + (0.2 + 0.3)
    fold_scores = np.array([[5.0, 0.2, 0.3, 0.1], [6.0, 0.1, 0.2, 0.3]])
    assert cross_fitted_choice(fold_scores, 4)[0] == 5


def test_the_cross_fitted_choice_among_noise_gains_nothing() -> None:
    fold_scores = np.random.default_rng(0).normal(size=(300, 50, 5))
    crossed = np.mean([cross_fitted_choice(scores, 5).mean() for scores in fold_scores])
    assert fold_scores.mean(axis=2).max(axis=1).mean() > 0.9
    assert abs(crossed) < 0.08


@pytest.mark.parametrize(("shape", "k"), [((0, 3), 3), ((2, 1), 1), ((3,), 3), ((2, 4), 3)])
def test_a_choice_without_candidates_or_other_folds_is_refused(shape: tuple[int, ...], k: int) -> None:
    with pytest.raises(DataError, match="at least one candidate and two folds"):
        cross_fitted_choice(np.zeros(shape), k)
    with pytest.raises(DataError, match="with 1 undefined"):
        cross_fitted_choice(np.array([[0.1, np.nan]]), 2)


def test_scores_elsewhere_are_means_of_the_other_folds_of_a_division():
    fold_scores = np.random.default_rng(0).random((4, 6))
    elsewhere = scores_elsewhere(fold_scores, 3)
    for fold in range(6):
        others = [other for other in range(fold // 3 * 3, fold // 3 * 3 + 3) if other != fold]
        np.testing.assert_allclose(elsewhere[:, fold], fold_scores[:, others].mean(axis=1))


def test_guides_replace_the_mean_over_the_other_folds():
    fold_scores = np.array([[0.1, 0.9], [0.5, 0.6]])
    guides = np.array([[1.0, 0.0], [0.0, 1.0]])
    np.testing.assert_array_equal(cross_fitted_choice(fold_scores, 2, guides), [0.1, 0.6])


def raced(random: np.random.Generator, k: int, num_candidates: int = 20) -> np.ndarray:
    """Returns the scores of equally good candidates, each stopped where it trails the best before it by 1.645 sd."""
    scores = random.normal(size=(num_candidates, k))
    shown = np.full(scores.shape, np.nan)
    for place, of_folds in enumerate(scores):
        for fold in range(k):
            shown[place, : fold + 1] = of_folds[: fold + 1]
            rivals = shown[:place][~np.isnan(shown[:place, fold]), : fold + 1].mean(axis=1)
            if fold < k - 1 and rivals.max(initial=-9) - of_folds[: fold + 1].mean() > 1.645 * (2 / (fold + 1)) ** 0.5:
                break
    return shown


@pytest.mark.parametrize("k", [3, 5])
def test_the_score_of_a_choice_after_a_race_is_not_flattered_by_the_race(k: int) -> None:
    random = np.random.default_rng(1)
    worlds = [raced(random, k) for _ in range(600)]
    survivors = [world[~np.isnan(world).any(axis=1)] for world in worlds]
    assert np.mean([cross_fitted_choice(scores, k).mean() for scores in survivors]) > 0.04
    choices = [score_of_choice(scores, k) for scores in worlds]
    # A standard error is 0.04 of a fold's deviation; docs/methods.md has the figures of more worlds.
    assert abs(np.mean([choice.score for choice in choices])) < 0.1


def test_a_choice_without_a_race_is_scored_by_all_folds_and_one_after_it_by_the_last_of_the_first_division() -> None:
    scores = np.random.default_rng(0).random((5, 6))
    assert score_of_choice(scores, 3) == (cross_fitted_choice(scores, 3).mean(), False)
    stopped = np.vstack([scores, [[0.9, np.nan, np.nan, np.nan, np.nan, np.nan]]])
    assert score_of_choice(stopped, 3) == (cross_fitted_choice(scores[:, :3], 3)[2], True)
    # One that was stopped in the second division has the folds that choose.
    late = np.vstack([scores, [[2.0, 2.0, 0.125, np.nan, np.nan, np.nan]]])
    assert score_of_choice(late, 3) == (0.125, True)
    with pytest.raises(DataError, match="at least one candidate"):
        score_of_choice(np.array([[0.5, np.nan]]), 2)


def test_a_smaller_score_is_better_where_the_metric_says_so() -> None:
    contestants, labels, groups = make_task(1, (2.0, 0.0), num_rows=200)
    normal = {name: values / values.sum(axis=1, keepdims=True) for name, values in contestants.items()}
    log_loss = parse_metric("log_loss")
    (result,) = compare(normal, labels, groups, log_loss, num_samples=200)
    assert result.difference < 0
    assert result.p < 0.05
    text = sentence([result], log_loss)
    ends = f"({-result.high:.3f} to {-result.low:.3f})"
    assert f"a below b by {-result.difference:.3f} {ends}" in text
