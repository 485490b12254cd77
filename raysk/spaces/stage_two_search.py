"""The search of stage two on a frozen encoder, as a value."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from scipy.stats import qmc

from raysk.artifacts import digest_of
from raysk.errors import ConfigError
from raysk.evaluation.metrics import DEFAULT_METRIC
from raysk.parts.tasks import tasks
from raysk.recipe import Recipe
from raysk.spaces.reference_heads import reference_heads
from raysk.spaces.sweeps import Parameter, as_value, assigned, values_of

# Raise it when a search writes or chooses differently: searches of another version are repeated.
_VERSION = 8

# A space with fewer settings than asked for is left after so many times the points that were asked for.
_MOST_POINTS = 8

# These decide which features exist, or do not affect the result: searched with stage one, or not at all.
NEVER_INNER = ("stage_two.frozen", "stage_two.shift_batch_norm", "stage_two.search", "stage_two.accumulate")


@dataclass(frozen=True)
class StageTwoSearch:
    """A unit of work beside the job: the search of stage two on the finished encoders of one recipe.

    Args:
        recipe: Its stage one gives the encoders. Its stage two is the base; values of the base that the search covers
            are tried first, then the reference heads.
        parameters: The searched settings of stage two.
        num_settings: Number of settings to try.
        metric: The study's metric, by which it chooses.
        require: The study's requirements, which come before the metric.
    """

    recipe: Recipe
    parameters: tuple[Parameter, ...]
    num_settings: int
    metric: str = DEFAULT_METRIC
    require: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """The name of the search, made from its content."""
        parameters = [parameter.to_plain() for parameter in self.parameters]
        content = digest_of([parameters, self.num_settings, self.metric, self.require, _VERSION])
        return f"{self.recipe.key}-search-{content}"

    @property
    def anchor(self) -> Recipe:
        """The recipe with the first reference head, which stays the choice until another is clearly better."""
        return replace(self.recipe, stage_two=next(iter(reference_heads(self.recipe.stage_two).values())))

    @property
    def trained_encoder(self) -> None:
        """None: a search trains no encoder, and the encoders that it reads are finished."""

    def to_plain(self) -> dict[str, Any]:
        """Returns the JSON form."""
        return {
            "kind": "stage-two search",
            "recipe": self.recipe.to_plain(),
            "parameters": [parameter.to_plain() for parameter in self.parameters],
            "num_settings": self.num_settings,
            "metric": self.metric,
            "require": list(self.require),
        }

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> "StageTwoSearch":
        """Reads the JSON form."""
        parameters = tuple(Parameter.from_plain(parameter) for parameter in plain["parameters"])
        recipe, require = Recipe.from_plain(plain["recipe"]), tuple(plain["require"])
        return cls(recipe, parameters, plain["num_settings"], plain["metric"], require)

    def settings(self, check: Callable[[Recipe], None]) -> list["Setting"]:
        """Returns different settings: that of the recipe, the reference heads, points of a scrambled Sobol sequence.

        Of the reference heads it takes those of its space. The sequence (Owen 1998) covers every parameter evenly. It
        follows from the recipe's seed, its encoder and its values. A point whose setting is refused, or is that of an
        earlier setting, is replaced by a later one.

        Args:
            check: Raises a ConfigError for a recipe that cannot be trained.

        Returns:
            `num_settings` settings, or fewer if the space has no more.
        """
        settings: dict[str, Setting] = {}
        for point, given in self._candidates():
            try:
                setting = self.setting(point, given)
                check(setting.recipe)
            except ConfigError:
                continue  # The values are valid alone but not together.
            settings.setdefault(setting.recipe.key, setting)
            if len(settings) == self.num_settings:
                break
        return list(settings.values())

    def _candidates(self) -> Iterator[tuple[dict[str, float], dict[str, Any]]]:
        """Yields a point, and values that come before it."""
        points = self._points()
        first = next(points)
        yield first, self.base()
        for stage in reference_heads(self.recipe.stage_two).values():
            head = replace(self.recipe, stage_two=stage)
            given = self._values_in(head)
            if self._gives(head, first, given):
                yield first, given
        for point in points:
            yield point, {}

    def _gives(self, recipe: Recipe, point: Mapping[str, float], given: Mapping[str, Any]) -> bool:
        try:
            return self.setting(point, given).recipe.key == recipe.key
        except ConfigError:
            return False

    def setting(self, point: Mapping[str, float], given: Mapping[str, Any]) -> "Setting":
        """Returns the setting at a point.

        Args:
            point: For each key, where its value lies between the smallest and the largest, from 0 to below 1.
            given: Values that come before the point, by parameter name.

        Raises:
            ConfigError: The values are valid alone but not together.
        """
        plain = self.recipe.to_plain()
        values = {}
        for parameter in self.parameters:
            if parameter.exists(plain):
                value = given.get(parameter.name, value_at(parameter.distribution, point[parameter.key]))
                plain = assigned(plain, parameter.key, as_value(value))
                values[parameter.name] = value
        return Setting(Recipe.from_plain(plain), values)

    def _points(self) -> Iterator[dict[str, float]]:
        """Yields the points of the sequence; parameters of one key exclude one another, and share a coordinate."""
        keys = list(dict.fromkeys(parameter.key for parameter in self.parameters))
        # Searches with the same encoder and other base values must try different settings.
        content = {"seed": self.recipe.seed, "encoder": self.recipe.encoder_key, "start": self.base()}
        sequence = qmc.Sobol(len(keys), scramble=True, rng=int(digest_of(content), 16) % 2**32)
        # Only whole powers of two are balanced, so the sequence is cut off no earlier than necessary.
        exponent = math.ceil(math.log2(self.num_settings))
        for _ in range(_MOST_POINTS):
            for coordinates in sequence.random(2**exponent):
                yield dict(zip(keys, coordinates.tolist(), strict=True))

    def base(self) -> dict[str, Any]:
        """Returns the recipe's values of the searched parameters, by parameter name."""
        return self._values_in(self.recipe)

    def _values_in(self, recipe: Recipe) -> dict[str, Any]:
        """Returns a recipe's values of the searched parameters, by parameter name, if the search covers them."""
        found = {}
        plain = recipe.to_plain()
        for parameter in self.parameters:
            values = values_of([parameter], plain)
            if parameter.key in values and parameter.allows(values[parameter.key]):
                found[parameter.name] = values[parameter.key]
        return found


@dataclass(frozen=True)
class Setting:
    """A setting of stage two.

    Args:
        recipe: The recipe that it gives.
        values: Its values by parameter name.
    """

    recipe: Recipe
    values: dict[str, Any]


def value_at(distribution: BaseDistribution, quantile: float) -> Any:
    """Returns the value of a uniform or log-uniform distribution at a quantile from 0 to below 1."""
    match distribution:
        case CategoricalDistribution(choices=choices):
            return choices[int(quantile * len(choices))]
        case FloatDistribution(low=low, high=high, log=log):
            return _between(low, high, log, quantile)
        case IntDistribution(low=low, high=high, log=log):
            # Each whole number has the interval that rounds to it.
            return min(high, max(low, round(_between(low - 0.5, high + 0.5, log, quantile))))
    raise TypeError(f"cannot draw from {distribution}")


def _between(low: float, high: float, log: bool, share: float) -> float:
    value = low * (high / low) ** share if log else low + (high - low) * share
    return min(high, max(low, value))


def is_inner(parameter: Parameter, plain: dict[str, Any]) -> bool:
    """Returns whether a search of stage two on a frozen encoder tries this parameter, instead of the trial."""
    stage_two = plain["stage_two"]
    has_kept_features = stage_two["frozen"] and not stage_two["shift_batch_norm"]
    reads_features = tasks[plain["task"]["name"]].reads_features
    is_searched = bool(stage_two["search"] and has_kept_features and reads_features)
    return is_searched and parameter.key.startswith("stage_two.") and parameter.key not in NEVER_INNER
