"""Whether a row meets the requirements of its study, and how close the best row comes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from raysk.evaluation.goals import Requirement
from raysk.evaluation.resampling import bootstrap_interval
from raysk.records import Record

# The confidence bound is one-sided: with this probability, the score is no worse than it.
LEVEL = 0.95
# The names of the facts about requirements begin with this word.
REQUIREMENT = "Requirement"


@dataclass(frozen=True, kw_only=True)
class RequirementCheck(Record):
    """A requirement, and how a row meets it on all rows of the folds at once.

    Args:
        requirement: Its text, such as "sensitivity@mel>=0.9".
        score: The score out of fold.
        bound: The one-sided 95 % confidence bound of the score on its worse side, from resamples of whole groups.
        is_met: Whether even this bound meets the requirement.
    """

    requirement: str
    score: float
    bound: float
    is_met: bool


def check_requirement(
    requirement: Requirement, probabilities: np.ndarray, labels: np.ndarray, groups: np.ndarray
) -> RequirementCheck:
    """Checks a requirement.

    Where a share of rows is 1, the bound is also at most that of as many successes as there are groups: 0.05^(1/n)
    (Clopper and Pearson 1934), which is the more cautious of the two.

    Args:
        requirement: The requirement.
        probabilities: (N, C), each row predicted by a model that did not learn from it.
        labels: (N,) classes.
        groups: (N,) the group of each row.
    """
    metric = requirement.metric
    score = float(metric(probabilities, labels))
    # The interval of 90 % misses on each side with 5 %.
    low, high = bootstrap_interval(metric, probabilities, labels, groups, level=2 * LEVEL - 1)
    bound = low if metric.larger_is_better else high
    if metric.share_of is not None and score == 1:
        counted = (labels == metric.label) == (metric.share_of == "class")
        bound = min(bound, (1 - LEVEL) ** (1 / len(np.unique(groups[counted]))))
    return RequirementCheck(
        requirement=requirement.name, score=score, bound=bound, is_met=bool(requirement.gap(bound) <= 0)
    )


def requirement_facts(
    requirements: Sequence[Requirement], checks_by_row: Mapping[str, Sequence[RequirementCheck]]
) -> dict[str, str]:
    """Returns a fact for each requirement: how many rows meet it and which does best, or which one comes closest.

    Args:
        requirements: The requirements.
        checks_by_row: The checks of each row by its name, in the order of the requirements.
    """
    facts = {}
    for place, requirement in enumerate(requirements):
        checks = {name: of_row[place] for name, of_row in checks_by_row.items()}
        closest = min(checks, key=lambda name: requirement.gap(checks[name].bound))
        num_met = sum(check.is_met for check in checks.values())
        verdict = (
            f"{num_met} of {len(checks)} rows meet it, the safest is" if num_met else "no row meets it, the closest is"
        )
        side = "at least" if requirement.metric.larger_is_better else "at most"
        score, bound = checks[closest].score, checks[closest].bound
        facts[f"{REQUIREMENT} {requirement.name}"] = (
            f"{verdict} {closest} with {score:.3f} out of fold, {side} {bound:.3f} with {LEVEL:.0%} confidence"
        )
    return facts
