"""The texts that name metrics."""

import pytest

from raysk.errors import ConfigError
from raysk.evaluation.metrics import metrics, parse_metric

CLASSES = ("nv", "mel", "mel|specificity:0.9", "a:0.5", "CLASS")


@pytest.mark.parametrize(
    ("text", "form", "class_name", "floor"),
    [
        ("macro_f1", "macro_f1", "", 0),
        ("auc@mel", "auc@CLASS", "mel", 0),
        ("pauc@mel:0.80", "pauc@CLASS:SENSITIVITY", "mel", 0.8),
        ("pauc@a:0.5:0", "pauc@CLASS:SENSITIVITY", "a:0.5", 0),
        ("average_precision", "average_precision", "", 0),
        ("average_precision@nv", "average_precision@CLASS", "nv", 0),
        ("sensitivity@nv|specificity:0.9", "sensitivity@CLASS|specificity:SPECIFICITY", "nv", 0.9),
        ("specificity@nv|sensitivity:1", "specificity@CLASS|sensitivity:SENSITIVITY", "nv", 1),
        ("auc@a:0.5", "auc@CLASS", "a:0.5", 0),
        ("auc@CLASS", "auc@CLASS", "CLASS", 0),
    ],
)
def test_a_text_fills_in_a_form(text, form, class_name, floor):
    metric = parse_metric(text, CLASSES)
    assert type(metric) is metrics[form]
    assert (metric.class_name, metric.floor) == (class_name, floor)
    assert metric.label == (CLASSES.index(class_name) if class_name else -1)
    assert parse_metric(text, None).name == metric.name


def test_a_name_is_canonical():
    assert parse_metric("pauc@mel:0.80", CLASSES).name == "pauc@mel:0.8"
    assert parse_metric("pauc@mel:8e-1", CLASSES) == parse_metric("pauc@mel:.8", CLASSES)
    assert parse_metric("auc@CLASS", CLASSES).name == "auc@CLASS"


def test_the_name_of_a_class_may_look_like_another_form():
    assert parse_metric("sensitivity@mel|specificity:0.9", CLASSES).class_name == "mel"
    assert parse_metric("sensitivity@mel|specificity:0.9", CLASSES[2:]).class_name == "mel|specificity:0.9"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("macro_f2", "metric must be a known name, but got 'macro_f2'; did you mean macro_f1"),
        ("aucc@mel", r"did you mean auc@CLASS or .*pauc@CLASS:SENSITIVITY"),
        ("", "metric must be a known name, but got ''; known: accuracy, "),
        ("auc", "metric auc must be written auc@CLASS, but got 'auc': fill it in"),
        ("auc@", "metric auc must be written auc@CLASS, but got 'auc@'"),
        ("macro_f1@mel", "metric macro_f1 must be written macro_f1, but got 'macro_f1@mel'"),
        ("pauc@mel", "must be written pauc@CLASS:SENSITIVITY"),
        ("auc@mle", "the class in .auc@mle. must be a known name, but got 'mle'; did you mean mel"),
        ("pauc@mel:1", r"the number in pauc@CLASS:SENSITIVITY must be in \[0, 1\), but got 1"),
        ("pauc@mel:80%", "must be in .* but got 80%"),
        ("pauc@mel:nan", "must be in .* but got nan"),
        ("sensitivity@mel|specificity:0", r"must be in \(0, 1\], but got 0"),
        ("sensitivity@mel|sensitivity:0.9", "the class in .* must be a known name"),
        ("Macro_F1", "did you mean macro_f1"),
    ],
)
def test_a_text_that_names_no_metric_is_refused_in_one_line(text, message):
    with pytest.raises(ConfigError, match=message) as caught:
        parse_metric(text, CLASSES[:2])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["macro_f2", "auc", "pauc@anything", "pauc@anything:2"])
def test_a_metric_is_refused_before_the_classes_are_known(text):
    with pytest.raises(ConfigError):
        parse_metric(text, None)
