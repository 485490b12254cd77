"""Requirements, and the order of recipes by a goal."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysk.errors import ConfigError
from raysk.evaluation.goals import Goal, parse_requirement
from raysk.evaluation.metrics import parse_metric
from tests.evaluation.metrics.tasks import make_task

NAMES = ("mel", "nv", "a>=b")
MEL, LOSS = "sensitivity@mel>=0.9", "log_loss<=0.5"


@pytest.mark.parametrize(
    ("text", "metric", "bound", "name"),
    [
        (MEL, "sensitivity@mel", 0.9, MEL),
        (" sensitivity@mel >= .90", "sensitivity@mel", 0.9, MEL),
        (LOSS, "log_loss", 0.5, LOSS),
        ("auc@mel>=1.0", "auc@mel", 1, "auc@mel>=1"),
        ("specificity@nv|sensitivity:1>=0", "specificity@nv|sensitivity:1", 0, "specificity@nv|sensitivity:1>=0"),
        ("specificity@a>=b>=0.5", "specificity@a>=b", 0.5, "specificity@a>=b>=0.5"),
        ("kappa>=-0.5", "kappa", -0.5, "kappa>=-0.5"),
    ],
)  # fmt: skip
def test_a_requirement_bounds_a_metric(text, metric, bound, name):
    requirement = parse_requirement(text, NAMES)
    assert (requirement.metric, requirement.bound) == (parse_metric(metric, NAMES), bound)
    assert requirement.name == name
    assert parse_requirement(name, NAMES) == requirement


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sensitivity@mel", 'must be METRIC>=BOUND, but got .*: write "sensitivity@CLASS>=0.9" in quotation marks'),
        ("sensitivity@mel>0.9", "must be METRIC>=BOUND"),
        ("sensitivity@mel=0.9", "must be METRIC>=BOUND"),
        ("", "must be METRIC>=BOUND"),
        (">=0.9", "metric must be a known name, but got ''"),
        ("sensitivity@mel<=0.9", "from its worse side, but got .* larger is better: write sensitivity@mel>=0.9"),
        ("log_loss>=0.5", "smaller is better: write log_loss<=0.5"),
        ("sensitivity@mle>=0.9", "did you mean mel"),
        ("sensitvity@mel>=0.9", "did you mean sensitivity@CLASS"),
        ("sensitivity@mel>=90", r"the bound of sensitivity@mel must be in \[0, 1\], but got '90'"),
        ("pauc@mel:0.8>=0.5", r"must be in \[0, 0.2\]"),
        ("sensitivity@mel>=high", "but got 'high'"),
        ("sensitivity@mel>=nan", "but got 'nan'"),
    ],
)
def test_a_requirement_that_cannot_be_read_is_refused_in_one_line(text, message):
    with pytest.raises(ConfigError, match=message) as caught:
        parse_requirement(text, NAMES)
    assert "\n" not in str(caught.value)


def test_a_goal_holds_each_requirement_once_and_survives_its_texts():
    goal = Goal.parse("log_loss", (MEL, "sensitivity@mel>=0.90", "kappa>=0"), NAMES)
    assert goal.required == (MEL, "kappa>=0")
    assert Goal.parse(goal.metric.name, goal.required, NAMES) == goal


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(["macro_f1", "log_loss"]))
def test_merits_put_candidates_in_the_order_of_the_goal(seed, metric):
    """Those that meet all requirements come first, by the metric; then the others, by their summed shortfalls."""
    random = np.random.default_rng(seed)
    labels = np.arange(30) % 3
    probabilities = random.dirichlet(np.ones(3), size=(12, 30)) + random.random((12, 1, 1)) * np.eye(3)[labels]
    probabilities /= probabilities.sum(axis=2, keepdims=True)
    goal = Goal.parse(metric, ("sensitivity@mel>=0.6", "log_loss<=1.0"), NAMES)
    ranks = []
    for candidate in probabilities:
        sensitivity, loss, score = (
            float(parse_metric(name, NAMES)(candidate, labels)) for name in ("sensitivity@mel", "log_loss", metric)
        )
        missing = max(0.6 - sensitivity, 0) + max(loss - 1.0, 0)
        better = score if metric == "macro_f1" else -score
        ranks.append((False, round(-missing, 6), 0.0) if missing > 1e-6 else (True, 0.0, round(better, 6)))
    merits = goal.merits(goal.scores(probabilities, labels))
    assert [ranks[place] for place in np.argsort(-merits, kind="stable")] == sorted(ranks, reverse=True)


def test_a_bound_that_only_rounding_misses_is_met():
    requirement, mean = parse_requirement("sensitivity@mel>=0.7", NAMES), float(np.mean([0.7, 0.7, 0.7]))
    assert mean < 0.7
    assert requirement.gap(mean) <= 0
    assert requirement.gap(0.69) == pytest.approx(0.01)
    assert parse_requirement(LOSS, NAMES).gap(0.7) == pytest.approx(0.2)


def test_without_requirements_a_merit_is_the_oriented_score():
    probabilities, labels = make_task(40, 3, seed=1)
    for name in ("macro_f1", "log_loss", "kappa"):
        goal = Goal.parse(name, (), NAMES)
        assert goal.merits(goal.scores(probabilities, labels)) == goal.metric.oriented(
            float(goal.metric(probabilities, labels))
        )
