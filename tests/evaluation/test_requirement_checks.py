"""Whether rows meet requirements with confidence."""

import numpy as np
import pytest

from raysk.evaluation.goals import parse_requirement
from raysk.evaluation.requirement_checks import RequirementCheck, check_requirement, requirement_facts
from raysk.evaluation.resampling import bootstrap_interval

NAMES = ("nv", "mel")


def draw(num_rows=200, skill=0.8, seed=0):
    random = np.random.default_rng(seed)
    labels = random.integers(2, size=num_rows)
    positive = 1 / (1 + np.exp(-random.normal(size=num_rows) - skill * (2 * labels - 1)))
    return np.stack([1 - positive, positive], axis=1), labels, np.arange(num_rows) // 2


@pytest.mark.parametrize("text", ["sensitivity@mel>=0.7", "auc@mel>=0.7", "log_loss<=0.6"])
def test_the_bound_is_the_worse_end_of_the_interval_of_90_percent(text):
    probabilities, labels, groups = draw()
    requirement = parse_requirement(text, NAMES)
    check = check_requirement(requirement, probabilities, labels, groups)
    low, high = bootstrap_interval(requirement.metric, probabilities, labels, groups, level=0.9)
    assert check.score == requirement.metric(probabilities, labels)
    assert check.bound == pytest.approx(low if requirement.metric.larger_is_better else high)


def test_a_score_that_meets_the_bound_without_confidence_is_not_met():
    probabilities, labels, groups = draw()
    score = check_requirement(parse_requirement("sensitivity@mel>=0", NAMES), probabilities, labels, groups)
    assert score.is_met
    just = parse_requirement(f"sensitivity@mel>={score.score - 0.001}", NAMES)
    assert not check_requirement(just, probabilities, labels, groups).is_met
    sure = parse_requirement(f"sensitivity@mel>={score.bound - 0.001}", NAMES)
    assert check_requirement(sure, probabilities, labels, groups).is_met


def test_a_few_lesions_without_an_error_do_not_prove_a_rate():
    """Five lesions of five leave a rate of 55 % possible."""
    labels = np.array([1] * 10 + [0] * 40)
    groups = np.concatenate([np.repeat(np.arange(5), 2), 5 + np.arange(40)])
    perfect = np.eye(2)[labels]
    check = check_requirement(parse_requirement("sensitivity@mel>=0.9", NAMES), perfect, labels, groups)
    assert (check.score, check.is_met) == (1, False)
    assert check.bound == pytest.approx(0.05 ** (1 / 5))
    check = check_requirement(parse_requirement("specificity@mel>=0.9", NAMES), perfect, labels, groups)
    assert check.bound == pytest.approx(0.05 ** (1 / 40))
    assert check.is_met
    check = check_requirement(parse_requirement("sensitivity@mel|specificity:0.9>=0.9", NAMES), perfect, labels, groups)
    assert not check.is_met


def result(requirement, score, bound):
    return RequirementCheck(requirement=requirement.name, score=score, bound=bound, is_met=requirement.gap(bound) <= 0)


def test_a_sentence_names_the_row_that_is_safest_or_closest():
    sensitivity, loss = (parse_requirement(text, NAMES) for text in ("sensitivity@mel>=0.8", "log_loss<=0.5"))
    rows = {
        "a": [result(sensitivity, 0.95, 0.70), result(loss, 0.4, 0.45)],
        "b": [result(sensitivity, 0.85, 0.75), result(loss, 0.3, 0.60)],
    }
    assert requirement_facts([sensitivity, loss], rows) == {
        "Requirement sensitivity@mel>=0.8":
            "no row meets it, the closest is b with 0.850 out of fold, at least 0.750 with 95% confidence",
        "Requirement log_loss<=0.5":
            "1 of 2 rows meet it, the safest is a with 0.400 out of fold, at most 0.450 with 95% confidence",
    }  # fmt: skip
