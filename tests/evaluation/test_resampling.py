"""The bootstrap of whole groups; tests/contracts/test_metrics.py compares it with rows repeated by hand."""

import numpy as np
import pytest

from raysk.errors import DataError
from raysk.evaluation.intervals import wilson_interval
from raysk.evaluation.metrics import Metric, parse_metric
from raysk.evaluation.resampling import (
    BLOCK_DRAWS,
    bootstrap_interval,
    bootstrap_intervals,
    mean_interval,
    resampled_scores,
)
from tests.evaluation.metrics.tasks import make_task

MACRO_F1, ACCURACY, MACRO_AUC = (parse_metric(name) for name in ("macro_f1", "accuracy", "macro_auc"))


def test_bootstrap_intervals_are_wider_over_groups_than_over_rows() -> None:
    probabilities, labels = make_task(60, 2, seed=4)
    repeated, groups = np.repeat(np.arange(60), 10), np.repeat(np.arange(60), 10)
    low, high = bootstrap_interval(MACRO_F1, probabilities[repeated], labels[repeated], groups)
    row_low, row_high = bootstrap_interval(MACRO_F1, probabilities[repeated], labels[repeated], np.arange(600))
    assert high - low > 2 * (row_high - row_low)
    assert low < MACRO_F1(probabilities, labels) < high


def test_bootstrap_depends_on_the_seed_only() -> None:
    probabilities, labels = make_task(100, 3, seed=6)
    names = np.array([f"lesion {row // 2}" for row in range(100)])
    first = bootstrap_interval(MACRO_F1, probabilities, labels, names, seed=1)
    assert first == bootstrap_interval(MACRO_F1, probabilities, labels, names, seed=1)
    assert first != bootstrap_interval(MACRO_F1, probabilities, labels, names, seed=2)


@pytest.mark.parametrize("name", ["accuracy", "macro_auc"])
def test_resampled_scores_of_two_recipes_are_paired(name: str) -> None:
    probabilities, labels = make_task(60, 3, seed=8)
    groups = np.arange(60) // 2
    better = probabilities + 0.05 * np.eye(3)[labels]
    better_scores = resampled_scores(parse_metric(name), better, labels, groups, num_samples=200)
    worse_scores = resampled_scores(parse_metric(name), probabilities, labels, groups, num_samples=200)
    assert better_scores.shape == (200,)
    assert (better_scores >= worse_scores).all()
    assert (better_scores > worse_scores).any()


class RowByRow(Metric):
    """Macro-F1 without a fast form."""

    wording = "macro-F1, row by row"

    def scores(self, probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
        return MACRO_F1.scores(probabilities, labels)


def test_a_metric_without_a_fast_form_is_scored_on_repeated_rows() -> None:
    probabilities, labels = make_task(40, 3, seed=9)
    groups, num_samples = np.arange(40), 2 * BLOCK_DRAWS // 40
    in_blocks = resampled_scores(MACRO_F1, probabilities, labels, groups, num_samples, seed=1)
    slowly = resampled_scores(RowByRow("slow"), probabilities, labels, groups, num_samples, seed=1)
    np.testing.assert_array_equal(in_blocks, slowly)


def test_two_groups_leave_a_perfect_score_in_doubt() -> None:
    # Half of the resamples of two groups hold one class only, for which there is no AUC; the others have an AUC of 1.
    probabilities, labels = np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([0, 1])
    ends = bootstrap_interval(MACRO_AUC, probabilities, labels, np.arange(2), num_samples=20)
    assert ends == pytest.approx(wilson_interval(1, 2))
    never = bootstrap_interval(MACRO_AUC, probabilities, np.zeros(2, dtype=int), np.arange(2), num_samples=5)
    assert np.isnan(never).all()


def test_a_share_of_independent_rows_has_nearly_the_interval_of_wilson() -> None:
    labels, predicted = np.zeros(400, dtype=int), (np.arange(400) < 100).astype(int)
    ends = bootstrap_interval(ACCURACY, np.eye(2)[predicted], labels, np.arange(400))
    assert ends == pytest.approx(wilson_interval(0.75, 400), abs=0.003)


def test_intervals_of_several_metrics_are_those_of_each() -> None:
    probabilities, labels = make_task(80, 3, seed=2)
    metrics = [MACRO_F1, MACRO_AUC, parse_metric("log_loss")]
    together = bootstrap_intervals(metrics, probabilities, labels, np.arange(80) // 2, num_samples=100)
    assert together == [
        bootstrap_interval(metric, probabilities, labels, np.arange(80) // 2, num_samples=100) for metric in metrics
    ]


def test_the_interval_covers_the_macro_f1_of_a_population_with_a_rare_class() -> None:
    """Five groups of the rare class; benchmarks/coverage.py has the figures of many populations."""
    random, labels = np.random.default_rng(0), np.repeat([0, 1, 2], [60, 20, 5])
    table = np.array([[0.85, 0.1, 0.05], [0.25, 0.7, 0.05], [0.3, 0.1, 0.6]])
    shares = np.bincount(labels)[:, np.newaxis] * table
    truth = np.mean(2 * np.diag(shares) / (shares.sum(axis=0) + shares.sum(axis=1)))
    covered = 0
    for seed in range(200):
        predicted = [random.choice(3, p=table[label]) for label in labels]
        low, high = bootstrap_interval(MACRO_F1, np.eye(3)[predicted], labels, np.arange(85), 200, seed)
        covered += low <= truth <= high
    assert 0.9 <= covered / 200 <= 0.99


def test_labels_of_other_rows_are_refused() -> None:
    with pytest.raises(DataError, match="shapes"):
        resampled_scores(MACRO_F1, np.eye(3), np.array([0, 1]), np.arange(3))


def test_the_interval_of_a_mean_is_that_of_the_accuracy_of_one_class() -> None:
    hits, groups = np.random.default_rng(3).random(80) < 0.7, np.arange(80) // 3
    probabilities = np.where(hits[:, np.newaxis], [0.9, 0.1], [0.2, 0.8])
    expected = bootstrap_interval(ACCURACY, probabilities, np.zeros(80, dtype=int), groups)
    assert mean_interval(hits.astype(float), groups) == pytest.approx(expected)
