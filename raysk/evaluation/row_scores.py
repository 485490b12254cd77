"""The scores of a row of the leaderboard: by the study's metric, by the usual ones, and of each class."""

from collections.abc import Sequence

import numpy as np

from raysk.evaluation.class_rates import class_rates
from raysk.evaluation.metrics import Metric, parse_metric
from raysk.evaluation.metrics.class_counts import count_classes
from raysk.evaluation.resampling import bootstrap_intervals


def scores(
    probabilities: np.ndarray, labels: np.ndarray, class_names: Sequence[str], metric: Metric
) -> dict[str, float]:
    """Returns all scores by name: metrics, then precision, recall and F1 of each class as "recall_<class>".

    Undefined scores are left out, so the result is plain JSON.

    Args:
        probabilities: (N, C).
        labels: (N,) classes, or (N, P) masks.
        class_names: The C names; none for masks.
        metric: The study's metric.
    """
    by_name = {shown.name: float(shown(probabilities, labels)) for shown in _shown(metric)}
    if class_names:
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
        class_names: The C names; none for masks.
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
    """Returns the test scores of a row, each with its 95 % interval over whole groups.

    Args:
        probabilities: (N, C).
        labels: (N,) classes.
        groups: (N,) the group of each row.
        class_names: The C names; none for masks.
        metric: The study's metric.

    Returns:
        "test_<score>", "test_<score>_low" and "test_<score>_high". The intervals of recall and precision are those of
        `class_rates`, all others those of `bootstrap_intervals`.
    """
    by_name = scores(probabilities, labels, class_names, metric)
    bootstrapped, ends = {shown.name: shown for shown in _shown(metric)}, {}
    if class_names:
        bootstrapped |= {f"f1_{name}": parse_metric(f"f1@{name}", class_names) for name in class_names}
        ends = class_rates(probabilities, labels, groups, class_names)
    intervals = bootstrap_intervals(list(bootstrapped.values()), probabilities, labels, groups)
    for name, (low, high) in zip(bootstrapped, intervals, strict=True):
        ends |= {f"{name}_low": low, f"{name}_high": high}
    test_scores = {f"test_{name}": value for name, value in by_name.items()}
    for name in by_name:
        both = {f"{name}_low", f"{name}_high"}
        # A class can have the name of another one with an end: "mel" and "mel_low".
        if both <= ends.keys() and both.isdisjoint(by_name):
            test_scores |= {f"test_{end}": ends[end] for end in sorted(both)}
    return test_scores


def _shown(metric: Metric) -> list[Metric]:
    return list(dict.fromkeys((metric, *map(parse_metric, metric.form.usual))))
