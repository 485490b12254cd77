"""The scores of a row of the leaderboard: by the study's metric, by the usual ones, and of each class."""

from collections.abc import Sequence

import numpy as np

from raysk.evaluation.metrics import Metric, parse_metric
from raysk.evaluation.metrics.class_counts import count_classes
from raysk.evaluation.resampling import bootstrap_interval

# The scores of every leaderboard, whatever the study's metric is: published tables have them.
USUAL = ("macro_f1", "balanced_accuracy", "macro_auc", "accuracy", "macro_precision")
# Those with an interval on the test part.
_WITH_INTERVAL = ("macro_f1", "balanced_accuracy")


def scores(
    probabilities: np.ndarray, labels: np.ndarray, class_names: Sequence[str], metric: Metric
) -> dict[str, float]:
    """Returns all scores by name: metrics, then precision, recall and F1 of each class as "recall_<class>".

    Undefined scores are left out, so the result is plain JSON.

    Args:
        probabilities: (N, C).
        labels: (N,) classes.
        class_names: The C names.
        metric: The study's metric.
    """
    by_name = {shown.name: float(shown(probabilities, labels)) for shown in _shown(metric, USUAL)}
    counts = count_classes(probabilities.argmax(axis=1), labels, len(class_names))
    for name, values in (("precision", counts.precision()), ("recall", counts.recall()), ("f1", counts.f1())):
        by_name |= {f"{name}_{label}": float(value) for label, value in zip(class_names, values, strict=True)}
    return {name: value for name, value in by_name.items() if not np.isnan(value)}


def scores_out_of_fold(
    probabilities: np.ndarray, labels: np.ndarray, fold_of_row: np.ndarray, class_names: Sequence[str], metric: Metric
) -> dict[str, float]:
    """Returns the out-of-fold scores of a row: the mean over the folds, and the spread.

    Args:
        probabilities: (N, C), each row predicted by a model that did not learn from it.
        labels: (N,) classes.
        fold_of_row: (N,) folds.
        class_names: The C names.
        metric: The study's metric.

    Returns:
        "oof_<score>", and "oof_<score>_sd": the standard deviation (ddof 1) over the folds.
    """
    scores_by_fold = [
        scores(probabilities[fold_of_row == fold], labels[fold_of_row == fold], class_names, metric)
        for fold in np.unique(fold_of_row)
    ]
    summary = {}
    for name in dict.fromkeys(name for fold_scores in scores_by_fold for name in fold_scores):
        values = [fold_scores[name] for fold_scores in scores_by_fold if name in fold_scores]
        summary[f"oof_{name}"] = float(np.mean(values))
        if len(values) > 1:
            summary[f"oof_{name}_sd"] = float(np.std(values, ddof=1))
    return summary


def scores_on_test(
    probabilities: np.ndarray, labels: np.ndarray, groups: np.ndarray, class_names: Sequence[str], metric: Metric
) -> dict[str, float]:
    """Returns the test scores of a row, with 95 % intervals over whole groups for the study's metric and two others.

    Args:
        probabilities: (N, C).
        labels: (N,) classes.
        groups: (N,) the group of each row.
        class_names: The C names.
        metric: The study's metric.

    Returns:
        "test_<score>"; and "test_<metric>_low" and "test_<metric>_high" for the study's metric, macro-F1 and the
        balanced accuracy.
    """
    by_name = scores(probabilities, labels, class_names, metric)
    test_scores = {f"test_{name}": value for name, value in by_name.items()}
    for shown in _shown(metric, _WITH_INTERVAL):
        if shown.name in by_name:
            low, high = bootstrap_interval(shown, probabilities, labels, groups)
            test_scores |= {f"test_{shown.name}_low": low, f"test_{shown.name}_high": high}
    return test_scores


def _shown(metric: Metric, usual: Sequence[str]) -> list[Metric]:
    return list(dict.fromkeys((metric, *map(parse_metric, usual))))
