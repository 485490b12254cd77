"""Greedy selection against plain loops, and its cross-fitted score."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score, log_loss, roc_auc_score

from raysk.errors import ConfigError, DataError
from raysk.evaluation import selection
from raysk.evaluation.goals import Goal
from raysk.evaluation.metrics import parse_metric
from raysk.evaluation.selection import (
    cross_fitted_predictions,
    greedy_selection,
)

Score = Callable[[np.ndarray, np.ndarray], float]
GOAL = Goal.parse("macro_f1", (), ())


def make_members(num_members: int, num_rows: int, num_classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns (M, N, C) float32 probabilities of members of different skill, and labels."""
    random = np.random.default_rng(seed)
    labels = random.integers(num_classes, size=num_rows)
    logits = random.normal(size=(num_members, num_rows, num_classes))
    logits += random.uniform(0, 2, size=(num_members, 1, 1)) * np.eye(num_classes)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    return probabilities.astype(np.float32), labels


def macro_f1(labels: np.ndarray, average: np.ndarray) -> float:
    return float(f1_score(labels, average.argmax(axis=1), average="macro", zero_division=0))


def select_by_loops(
    probabilities: np.ndarray, labels: np.ndarray, num_picks: int, score_of: Score = macro_f1
) -> tuple[list[int], list[float]]:
    """Returns picks and scores as in the paper, one average after another."""
    picks: list[int] = []
    scores: list[float] = []
    for _ in range(num_picks):
        trials = []
        for member in range(len(probabilities)):
            average = np.mean([probabilities[pick].astype(float) for pick in [*picks, member]], axis=0)
            score = score_of(labels, average)
            loss = log_loss(labels, average / average.sum(axis=1, keepdims=True), labels=range(average.shape[1]))
            trials.append((-round(score, 10), round(loss, 6), member))
        best = min(trials)
        picks.append(best[2])
        scores.append(-best[0])
    return picks, scores


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 6), st.integers(4, 30), st.integers(2, 4), st.integers(0, 1000))
def test_the_picks_agree_with_plain_loops(num_members: int, num_rows: int, num_classes: int, seed: int) -> None:
    probabilities, labels = make_members(num_members, num_rows, num_classes, seed)
    picks, scores = select_by_loops(probabilities, labels, 6)
    selected = greedy_selection(probabilities, labels, GOAL, 6)
    assert list(selected.picks) == picks
    np.testing.assert_allclose(selected.scores, scores, atol=1e-9)
    kept = picks[: scores.index(max(scores)) + 1]
    np.testing.assert_array_equal(selected.weights, [kept.count(member) for member in range(num_members)])


def minus_log_loss(labels: np.ndarray, average: np.ndarray) -> float:
    return -float(log_loss(labels, average / average.sum(axis=1, keepdims=True), labels=range(average.shape[1])))


def auc_of_the_second_class(labels: np.ndarray, average: np.ndarray) -> float:
    return float(roc_auc_score(labels == 1, average[:, 1]))


@pytest.mark.parametrize(("metric", "score_of"), [("log_loss", minus_log_loss), ("auc@b", auc_of_the_second_class)])
def test_the_picks_agree_with_plain_loops_by_other_metrics(metric: str, score_of: Score) -> None:
    for seed in range(5):
        probabilities, labels = make_members(5, 24, 3, seed)
        labels[:2] = 0, 1
        picks, scores = select_by_loops(probabilities, labels, 6, score_of)
        goal = Goal.parse(metric, (), ("a", "b", "c"))
        selected = greedy_selection(probabilities, labels, goal, 6)
        assert list(selected.picks) == picks
        np.testing.assert_allclose([goal.metric.oriented(score) for score in selected.scores], scores, atol=1e-6)
        assert selected.num_kept == scores.index(max(scores)) + 1


def test_averages_that_meet_a_requirement_come_first_then_the_closest() -> None:
    """The second member alone finds every row of the second class; the first is better by macro-F1."""
    labels = np.array([0, 0, 0, 0, 1, 1])
    careful = np.eye(2)[[0, 0, 0, 0, 1, 0]]
    eager = np.eye(2)[[1, 1, 0, 0, 1, 1]]
    members = np.stack([0.9 * careful + 0.05, 0.6 * eager + 0.2]).astype(np.float32)
    assert greedy_selection(members, labels, GOAL, 1).picks == (0,)
    strict = Goal.parse("macro_f1", ("sensitivity@b>=1",), ("a", "b"))
    selected = greedy_selection(members, labels, strict, 5)
    assert selected.picks[0] == 1
    mean = np.tensordot(selected.weights / selected.weights.sum(), members, axes=1)
    assert parse_metric("sensitivity@b", ("a", "b"))(mean, labels) == 1
    beyond_reach = Goal.parse("macro_f1", ("specificity@a>=1", "specificity@b>=1"), ("a", "b"))
    assert greedy_selection(members, labels, beyond_reach, 1).picks == (0,)


def test_blocks_of_members_do_not_change_the_picks(monkeypatch: pytest.MonkeyPatch) -> None:
    probabilities, labels = make_members(7, 30, 3, seed=1)
    whole = greedy_selection(probabilities, labels, GOAL, 8)
    monkeypatch.setattr(selection, "BLOCK_VALUES", 2 * 30 * 3)
    assert greedy_selection(probabilities, labels, GOAL, 8) == whole


def test_the_best_member_comes_first_and_the_ensemble_is_no_worse() -> None:
    probabilities, labels = make_members(8, 200, 4, seed=2)
    singles = [f1_score(labels, member.argmax(axis=1), average="macro") for member in probabilities]
    selected = greedy_selection(probabilities, labels, GOAL)
    assert selected.picks[0] == np.argmax(singles)
    assert selected.scores[0] == pytest.approx(max(singles))
    assert max(selected.scores) > max(singles)
    assert len(selected.scores) == 25
    average = np.tensordot(selected.weights / selected.weights.sum(), probabilities, axes=1)
    assert f1_score(labels, average.argmax(axis=1), average="macro") == pytest.approx(max(selected.scores))


def test_ties_go_to_the_lower_log_loss_then_to_the_earlier_member() -> None:
    labels = np.array([0, 1])
    unsure, sure = np.array([[0.6, 0.4], [0.4, 0.6]]), np.array([[0.9, 0.1], [0.1, 0.9]])
    probabilities = np.stack([unsure, sure, sure]).astype(np.float32)
    assert greedy_selection(probabilities, labels, GOAL, 1).picks == (1,)


def test_a_perfect_member_is_kept_alone() -> None:
    probabilities, labels = make_members(4, 40, 3, seed=3)
    probabilities[2] = np.eye(3)[labels]
    selected = greedy_selection(probabilities, labels, GOAL, 5)
    np.testing.assert_array_equal(selected.weights, [0, 0, 1, 0])
    assert selected.num_kept == 1


def test_ties_between_certain_and_wrong_members_go_to_the_earlier_one() -> None:
    labels = np.array([0, 1, 0])
    wrong = np.eye(2)[1 - labels]
    selected = greedy_selection(np.stack([wrong, wrong]).astype(np.float32), labels, GOAL, 3)
    assert selected.picks == (0, 0, 0)
    assert selected.scores == (0, 0, 0)


def test_a_selection_without_picks_or_rows_is_refused() -> None:
    probabilities, labels = make_members(2, 10, 2, seed=0)
    with pytest.raises(ConfigError, match="got 0"):
        greedy_selection(probabilities, labels, GOAL, 0)
    with pytest.raises(DataError, match=r"\(9,\)"):
        greedy_selection(probabilities, labels[:9], GOAL)
    with pytest.raises(DataError, match=r"\(0, 10, 2\)"):
        greedy_selection(probabilities[:0], labels, GOAL)


def test_cross_fitting_selects_on_the_other_folds() -> None:
    probabilities, labels = make_members(5, 90, 3, seed=4)
    fold_of_row = np.random.default_rng(0).permutation(np.arange(90) % 3)
    predicted = cross_fitted_predictions(probabilities, labels, fold_of_row, GOAL, 6)
    for fold in range(3):
        held_out = fold_of_row == fold
        picks, scores = select_by_loops(probabilities[:, ~held_out], labels[~held_out], 6)
        kept = picks[: scores.index(max(scores)) + 1]
        expected = np.mean([probabilities[pick][held_out] for pick in kept], axis=0)
        np.testing.assert_allclose(predicted[held_out], expected, rtol=1e-5)


def test_labels_of_a_fold_do_not_affect_its_own_predictions() -> None:
    probabilities, labels = make_members(6, 60, 3, seed=5)
    fold_of_row = np.arange(60) % 2
    before = cross_fitted_predictions(probabilities, labels, fold_of_row, GOAL)
    changed = np.where(fold_of_row == 0, (labels + 1) % 3, labels)
    after = cross_fitted_predictions(probabilities, changed, fold_of_row, GOAL)
    np.testing.assert_array_equal(before[fold_of_row == 0], after[fold_of_row == 0])


def test_cross_fitting_removes_the_gain_of_chance() -> None:
    # Forty members without skill: the selection gains on its own rows, but not on others.
    random = np.random.default_rng(6)
    probabilities = random.dirichlet(np.ones(2), size=(40, 100)).astype(np.float32)
    labels = random.integers(2, size=100)
    assert max(greedy_selection(probabilities, labels, GOAL).scores) > 0.65
    assert GOAL.metric(cross_fitted_predictions(probabilities, labels, np.arange(100) % 4, GOAL), labels) < 0.6


def test_cross_fitting_needs_two_folds() -> None:
    probabilities, labels = make_members(2, 10, 2, seed=0)
    with pytest.raises(DataError, match="two folds, but got 1"):
        cross_fitted_predictions(probabilities, labels, np.zeros(10, dtype=int), GOAL)
