"""Scores against scikit-learn, and the bootstrap against resampling by hand."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from raysk.errors import ConfigError, DataError
from raysk.evaluation.metrics import (
    BLOCK_DRAWS,
    Score,
    accuracy_score,
    balanced_accuracy_score,
    bootstrap_interval,
    count_classes,
    f1_scores,
    macro_auc_score,
    macro_f1_score,
    macro_precision_score,
    metrics,
    precision_scores,
    recall_scores,
    resampled_scores,
    scores,
)

Task = tuple[np.ndarray, np.ndarray]


def make_task(num_rows: int, num_classes: int, seed: int, decimals: int = 6) -> Task:
    """Returns probabilities that are better than chance, with ties when there are few decimals, and labels."""
    random = np.random.default_rng(seed)
    labels = random.choice(num_classes, size=num_rows, p=random.dirichlet(np.ones(num_classes)))
    logits = random.normal(size=(num_rows, num_classes)) + 1.5 * np.eye(num_classes)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return probabilities.round(decimals), labels


tasks = st.builds(make_task, st.integers(1, 40), st.integers(2, 6), st.integers(0, 10_000), st.sampled_from([1, 2, 6]))


@settings(max_examples=80, deadline=None)
@given(tasks)
def test_scores_of_predicted_classes_agree_with_scikit_learn(task: Task) -> None:
    probabilities, labels = task
    predicted = probabilities.argmax(axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns of classes that are predicted but not labelled
        assert macro_f1_score(probabilities, labels) == pytest.approx(
            reference.f1_score(labels, predicted, average="macro", zero_division=0)
        )
        assert macro_precision_score(probabilities, labels) == pytest.approx(
            reference.precision_score(labels, predicted, average="macro", zero_division=0)
        )
        assert balanced_accuracy_score(probabilities, labels) == pytest.approx(
            reference.balanced_accuracy_score(labels, predicted)
        )
        assert accuracy_score(probabilities, labels) == pytest.approx(reference.accuracy_score(labels, predicted))


@settings(max_examples=80, deadline=None)
@given(tasks)
def test_scores_of_each_class_agree_with_scikit_learn_where_they_are_defined(task: Task) -> None:
    probabilities, labels = task
    predicted = probabilities.argmax(axis=1)
    classes = np.arange(probabilities.shape[1])
    expected = reference.precision_recall_fscore_support(labels, predicted, labels=classes, zero_division=0)
    labelled, seen = np.isin(classes, labels), np.isin(classes, np.union1d(labels, predicted))
    for actual, wanted, defined in (
        (precision_scores(probabilities, labels), expected[0], seen),
        (recall_scores(probabilities, labels), expected[1], labelled),
        (f1_scores(probabilities, labels), expected[2], seen),
    ):
        np.testing.assert_allclose(actual, np.where(defined, wanted, np.nan))


@settings(max_examples=80, deadline=None)
@given(tasks)
def test_auc_agrees_with_scikit_learn_on_the_classes_that_occur(task: Task) -> None:
    probabilities, labels = task
    present = [label for label in range(probabilities.shape[1]) if 0 < (labels == label).sum() < len(labels)]
    areas = [reference.roc_auc_score(labels == label, probabilities[:, label]) for label in present]
    if areas:
        assert macro_auc_score(probabilities, labels) == pytest.approx(np.mean(areas))
    else:
        assert np.isnan(macro_auc_score(probabilities, labels))


def test_auc_agrees_with_scikit_learn_for_many_classes_and_for_two() -> None:
    probabilities, labels = make_task(500, 5, seed=3)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    expected = reference.roc_auc_score(labels, probabilities, multi_class="ovr", average="macro")
    assert macro_auc_score(probabilities, labels) == pytest.approx(expected)
    positive = probabilities[:, 0]
    expected = reference.roc_auc_score(labels > 2, positive)
    both = np.stack([1 - positive, positive], axis=1)
    assert macro_auc_score(both, (labels > 2).astype(int)) == pytest.approx(expected)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=50))
def test_auc_of_hard_labels_of_two_classes_is_the_balanced_accuracy(pairs: list[tuple[bool, bool]]) -> None:
    labels, predicted = np.array(pairs, dtype=int).T
    labels[:2] = 0, 1
    hard = np.eye(2)[predicted]
    assert macro_auc_score(hard, labels) == pytest.approx(balanced_accuracy_score(hard, labels))


def test_auc_sees_an_order_that_predicted_classes_hide() -> None:
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]])
    labels = np.array([0, 0, 1, 1])
    assert macro_auc_score(probabilities, labels) == 1
    assert balanced_accuracy_score(probabilities, labels) == 0.5


@pytest.mark.parametrize("name", list(metrics))
def test_every_metric_is_one_for_certain_and_correct_predictions(name: str) -> None:
    labels = np.array([0, 1, 2, 2, 1, 0, 0])
    assert metrics[name](np.eye(3)[labels], labels) == 1


@pytest.mark.parametrize("name", list(metrics))
def test_every_metric_ignores_the_order_of_rows(name: str) -> None:
    probabilities, labels = make_task(60, 4, seed=1, decimals=1)
    order = np.random.default_rng(0).permutation(60)
    reordered = metrics[name](probabilities[order], labels[order])
    assert reordered == pytest.approx(metrics[name](probabilities, labels), abs=1e-12)


@pytest.mark.parametrize("name", list(metrics))
@pytest.mark.parametrize(
    ("labels", "message"),
    [([0, 1], "shapes"), ([0, 1, 3], "0 to 2, but got 0 to 3"), ([-1, 1, 2], "but got -1 to 2")],
)
def test_every_metric_refuses_labels_that_do_not_match(name: str, labels: list[int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        metrics[name](np.eye(3), np.array(labels))


def test_an_unknown_metric_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="macro_f1"):
        metrics["macro_f2"]


def test_scores_hold_every_metric_and_class() -> None:
    probabilities, labels = make_task(200, 3, seed=5)
    by_name = scores(probabilities, labels, ("mel", "nv", "vasc"))
    classes = {f"{score}_{name}" for score in ("precision", "recall", "f1") for name in ("mel", "nv", "vasc")}
    assert set(by_name) == set(metrics) | classes
    assert by_name["recall_nv"] == pytest.approx(recall_scores(probabilities, labels)[1])
    assert by_name["macro_f1"] == pytest.approx(np.mean([by_name[f"f1_{name}"] for name in ("mel", "nv", "vasc")]))


def test_undefined_scores_are_left_out() -> None:
    by_name = scores(np.array([[0.8, 0.2, 0.0], [0.3, 0.7, 0.0]]), np.array([0, 0]), ("a", "b", "c"))
    assert {"recall_b", "recall_c", "f1_c", "precision_c", "macro_auc"}.isdisjoint(by_name)
    assert by_name["recall_a"] == 0.5
    assert by_name["f1_b"] == 0


def test_counts_of_many_candidates_equal_the_counts_of_each() -> None:
    random = np.random.default_rng(0)
    labels, predicted = random.integers(4, size=30), random.integers(4, size=(2, 3, 30))
    together = count_classes(predicted, labels, 4)
    for place in np.ndindex(2, 3):
        alone = count_classes(predicted[place], labels, 4)
        np.testing.assert_array_equal(together.f1()[place], alone.f1())
        np.testing.assert_array_equal(together.recall()[place], alone.recall())
        assert together.accuracy()[place] == (predicted[place] == labels).mean()


@pytest.mark.parametrize(
    "score", [macro_f1_score, balanced_accuracy_score, macro_precision_score, accuracy_score, macro_auc_score]
)
def test_bootstrap_agrees_with_resampling_rows_by_hand(score: Score) -> None:
    probabilities, labels = make_task(80, 3, seed=2)
    groups = np.random.default_rng(1).integers(25, size=80)
    names = np.unique(groups)
    random, values = np.random.default_rng(7), []
    for _ in range(50):
        drawn = names[random.integers(len(names), size=len(names))]
        rows = np.concatenate([np.flatnonzero(groups == name) for name in drawn])
        values.append(score(probabilities[rows], labels[rows]))
    interval = bootstrap_interval(score, probabilities, labels, groups, num_samples=50, seed=7, level=0.8)
    np.testing.assert_allclose(interval, np.nanquantile(values, [0.1, 0.9]))


def test_bootstrap_intervals_are_wider_over_groups_than_over_rows() -> None:
    probabilities, labels = make_task(60, 2, seed=4)
    repeated, groups = np.repeat(np.arange(60), 10), np.repeat(np.arange(60), 10)
    low, high = bootstrap_interval(macro_f1_score, probabilities[repeated], labels[repeated], groups)
    row_low, row_high = bootstrap_interval(macro_f1_score, probabilities[repeated], labels[repeated], np.arange(600))
    assert high - low > 2 * (row_high - row_low)
    assert low < macro_f1_score(probabilities, labels) < high


def test_bootstrap_depends_on_the_seed_only() -> None:
    probabilities, labels = make_task(100, 3, seed=6)
    names = np.array([f"lesion {row // 2}" for row in range(100)])
    first = bootstrap_interval(macro_f1_score, probabilities, labels, names, seed=1)
    assert first == bootstrap_interval(macro_f1_score, probabilities, labels, names, seed=1)
    assert first != bootstrap_interval(macro_f1_score, probabilities, labels, names, seed=2)


def test_resampled_scores_of_two_recipes_are_paired() -> None:
    probabilities, labels = make_task(60, 3, seed=8)
    groups = np.arange(60) // 2
    better = probabilities + 0.05 * np.eye(3)[labels]
    better_scores = resampled_scores(accuracy_score, better, labels, groups, num_samples=200)
    worse_scores = resampled_scores(accuracy_score, probabilities, labels, groups, num_samples=200)
    assert better_scores.shape == (200,)
    assert (better_scores >= worse_scores).all()
    assert (better_scores > worse_scores).any()


def test_resamples_in_blocks_equal_resamples_one_by_one() -> None:
    probabilities, labels = make_task(40, 3, seed=9)
    groups, num_samples = np.arange(40), 2 * BLOCK_DRAWS // 40

    def row_by_row(probabilities: np.ndarray, labels: np.ndarray) -> float:
        return macro_f1_score(probabilities, labels)

    in_blocks = resampled_scores(macro_f1_score, probabilities, labels, groups, num_samples, seed=1)
    np.testing.assert_array_equal(
        in_blocks, resampled_scores(row_by_row, probabilities, labels, groups, num_samples, seed=1)
    )


def test_bootstrap_leaves_out_resamples_without_a_score() -> None:
    # Half of the resamples of two groups hold one class only, for which there is no AUC.
    probabilities, labels = np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([0, 1])
    assert bootstrap_interval(macro_auc_score, probabilities, labels, np.arange(2), num_samples=20) == (1, 1)
    never = bootstrap_interval(macro_auc_score, probabilities, np.zeros(2, dtype=int), np.arange(2), num_samples=5)
    assert np.isnan(never).all()
