"""What a study looks for: a metric, and requirements that a recipe must meet first."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from raysk.errors import ConfigError
from raysk.evaluation.metrics import Metric, parse_metric
from raysk.evaluation.metrics.base import Values

_OPERATORS = {True: ">=", False: "<="}
# A score that misses a bound by less meets it: the mean of 0.7, 0.7 and 0.7 is a little less than 0.7.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Requirement:
    """A bound on a metric: "sensitivity@mel>=0.9".

    Attributes:
        metric: The metric.
        bound: Its least score, or its largest one if smaller is better.
    """

    metric: Metric
    bound: float

    @property
    def name(self) -> str:
        """Its text."""
        return f"{self.metric.name}{_OPERATORS[self.metric.larger_is_better]}{self.bound:.12g}"

    def gap(self, scores: Values) -> Values:
        """Returns by how much scores miss the bound, 0 or less for those that meet it; NaN for undefined ones."""
        return self.metric.oriented(self.bound) - self.metric.oriented(scores) - _ROUNDING


def parse_requirement(text: str, class_names: Sequence[str] | None) -> Requirement:
    """Returns the requirement that a text states.

    Args:
        text: METRIC>=BOUND, or METRIC<=BOUND if a smaller score is better.
        class_names: As in `parse_metric`.

    Raises:
        ConfigError: It cannot be read, has no such metric or class, or a bound out of the metric's range.
    """
    operator = max(_OPERATORS.values(), key=text.rfind)
    name, separator, number = text.rpartition(operator)
    if not separator:
        raise ConfigError(
            f'a requirement must be METRIC>=BOUND, but got {text!r}: write "sensitivity@CLASS>=0.9" in quotation marks'
        )
    metric = parse_metric(name.strip(), class_names)
    if operator != _OPERATORS[metric.larger_is_better]:
        better = "larger" if metric.larger_is_better else "smaller"
        raise ConfigError(
            f"a requirement must bound {metric.name} from its worse side, but got {text!r} and {better} is better: "
            f"write {metric.name}{_OPERATORS[metric.larger_is_better]}{number.strip()}"
        )
    low, high = metric.range
    try:
        bound = float(number)
    except ValueError:
        bound = float("nan")
    if not low <= bound <= high:
        raise ConfigError(
            f"the bound of {metric.name} must be in [{low:g}, {high:g}], but got {number.strip()!r}: "
            "choose one from that range"
        )
    return Requirement(metric, bound)


@dataclass(frozen=True)
class Goal:
    """The order of recipes in a study: those that meet all requirements by the metric, then the others by closeness.

    The merit of a recipe puts this order into one number, of which the larger is better. It is the oriented score of a
    recipe that meets all requirements. Any other recipe has less than the worst score, by the sum of its shortfalls.

    Attributes:
        metric: The metric.
        requirements: The requirements.
    """

    metric: Metric
    requirements: tuple[Requirement, ...] = ()

    @classmethod
    def parse(cls, metric: str, requirements: Sequence[str], class_names: Sequence[str] | None) -> "Goal":
        """Reads a metric and requirements, each of them once; `class_names` as in `parse_metric`.

        Raises:
            ConfigError: See `parse_metric` and `parse_requirement`.
        """
        required = dict.fromkeys(parse_requirement(text, class_names) for text in requirements)
        goal = cls(parse_metric(metric, class_names), tuple(required))
        for other in goal.metrics[1:]:
            if other.form != goal.metric.form:
                raise ConfigError(
                    f"a requirement must be on {goal.metric.form.name}, as the metric {metric}, but got {other.name}: "
                    "require another"
                )
        return goal

    @property
    def required(self) -> tuple[str, ...]:
        """The texts of the requirements."""
        return tuple(requirement.name for requirement in self.requirements)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The metric, then that of each requirement."""
        return (self.metric, *(requirement.metric for requirement in self.requirements))

    def scores(self, probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Returns the scores of each candidate by all `metrics`, (..., S).

        Args:
            probabilities: (..., N, C).
            labels: (N,) classes.
        """
        return np.stack([metric(probabilities, labels) for metric in self.metrics], axis=-1)

    def shortfalls(self, scores: np.ndarray) -> np.ndarray:
        """Returns the sums of the shortfalls, (...), from scores by all `metrics`, (..., S); 0 meets them all."""
        missing = np.zeros(scores.shape[:-1])
        for place, requirement in enumerate(self.requirements, start=1):
            missing = missing + np.maximum(requirement.gap(scores[..., place]), 0.0)
        return missing

    def merits(self, scores: np.ndarray) -> np.ndarray:
        """Returns the merits, (...), from scores by all `metrics`, (..., S)."""
        return self.merits_of(scores[..., 0], self.shortfalls(scores))

    def merits_of(self, scores: np.ndarray, shortfalls: np.ndarray) -> np.ndarray:
        """Returns merits from scores and sums of shortfalls, NaN where a shortfall is not defined."""
        below = self.metric.oriented(self.metric.worst) - shortfalls
        merits = np.where(shortfalls > 0, below, self.metric.oriented(scores))
        return np.where(np.isnan(shortfalls), np.nan, merits)
