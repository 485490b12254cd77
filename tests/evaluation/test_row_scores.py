"""The scores of a row: out of fold, on the test part, and of each class."""

import numpy as np
import pytest

from raysk.evaluation.class_rates import class_rates
from raysk.evaluation.metrics import Metric, parse_metric
from raysk.evaluation.metrics.base import CLASSES
from raysk.evaluation.resampling import bootstrap_interval
from raysk.evaluation.row_scores import scores, scores_on_test, scores_out_of_fold
from tests.evaluation.metrics.tasks import make_task as make_classes

NAMES = ("mel", "nv")
MACRO_F1 = parse_metric("macro_f1")
METRICS = [MACRO_F1, parse_metric("log_loss"), parse_metric("pauc@mel:0.8", NAMES)]
every_metric = pytest.mark.parametrize("metric", METRICS, ids=str)


def make_task() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    labels, folds = random.integers(2, size=90), np.arange(90) % 3
    positive = 1 / (1 + np.exp(-random.normal(size=90) - 1.2 * (2 * labels - 1)))
    return np.stack([1 - positive, positive], axis=1), labels, folds


def test_scores_hold_every_usual_score_and_class() -> None:
    probabilities, labels = make_classes(200, 3, seed=5)
    by_name = scores(probabilities, labels, ("mel", "nv", "vasc"), MACRO_F1)
    classes = {f"{score}_{name}" for score in ("precision", "recall", "f1") for name in ("mel", "nv", "vasc")}
    assert set(by_name) == set(CLASSES.usual) | classes
    sensitivity = parse_metric("sensitivity@nv", ("mel", "nv", "vasc"))
    assert by_name["recall_nv"] == sensitivity(probabilities, labels)
    assert by_name["macro_f1"] == pytest.approx(np.mean([by_name[f"f1_{name}"] for name in ("mel", "nv", "vasc")]))


def test_undefined_scores_are_left_out() -> None:
    probabilities, labels = np.array([[0.8, 0.2, 0.0], [0.3, 0.7, 0.0]]), np.array([0, 0])
    by_name = scores(probabilities, labels, ("a", "b", "c"), parse_metric("auc@b", ("a", "b", "c")))
    assert {"recall_b", "recall_c", "f1_c", "precision_c", "macro_auc", "auc@b"}.isdisjoint(by_name)
    assert by_name["recall_a"] == 0.5
    assert by_name["f1_b"] == 0


@every_metric
def test_out_of_fold_scores_are_means_and_spread_over_folds(metric: Metric) -> None:
    probabilities, labels, folds = make_task()
    summary = scores_out_of_fold(probabilities, labels, folds, NAMES, metric)
    assert {f"oof_{name}" for name in scores(probabilities, labels, NAMES, metric)} < set(summary)
    for shown in (metric, MACRO_F1, parse_metric("macro_auc")):
        by_fold = [shown(probabilities[folds == fold], labels[folds == fold]) for fold in range(3)]
        assert summary[f"oof_{shown.name}"] == pytest.approx(np.mean(by_fold))
        assert summary[f"oof_{shown.name}_sd"] == pytest.approx(np.std(by_fold, ddof=1))


def test_one_fold_has_no_spread() -> None:
    probabilities, labels, _ = make_task()
    summary = scores_out_of_fold(probabilities, labels, np.zeros(90, dtype=int), NAMES, MACRO_F1)
    assert not [name for name in summary if name.endswith("_sd")]


@every_metric
def test_every_test_score_has_an_interval_over_groups(metric: Metric) -> None:
    probabilities, labels, _ = make_task()
    groups = np.arange(90) // 3
    test_scores = scores_on_test(probabilities, labels, groups, NAMES, metric)
    for shown in (metric, *map(parse_metric, CLASSES.usual), parse_metric("f1@nv", NAMES)):
        name = shown.name.replace("@nv", "_nv") if shown.name == "f1@nv" else shown.name
        ends = test_scores[f"test_{name}_low"], test_scores[f"test_{name}_high"]
        assert ends == bootstrap_interval(shown, probabilities, labels, groups)
    for name, value in test_scores.items():
        if not name.endswith(("_low", "_high")):
            assert test_scores[f"{name}_low"] < value < test_scores[f"{name}_high"]
    rates = class_rates(probabilities, labels, groups, NAMES)
    assert {f"test_{name}": value for name, value in rates.items()}.items() <= test_scores.items()


def test_a_class_that_is_named_as_the_end_of_another_keeps_its_score() -> None:
    probabilities, labels, _ = make_task()
    test_scores = scores_on_test(probabilities, labels, np.arange(90), ("mel", "mel_low"), MACRO_F1)
    expected = scores(probabilities, labels, NAMES, MACRO_F1)
    assert test_scores["test_recall_mel_low"] == expected["recall_nv"]
    assert "test_recall_mel_high" not in test_scores
    assert test_scores["test_recall_mel_low_low"] < expected["recall_nv"]
