"""The search of stage two on a frozen encoder, as a value."""

from dataclasses import dataclass
from typing import Any

import optuna

from raysk.artifacts import digest_of
from raysk.evaluation.metrics import DEFAULT_METRIC
from raysk.recipe import Recipe
from raysk.spaces.sweeps import Parameter, as_value, assigned, values_of

# Raise it when a search writes or chooses differently: searches of another version are repeated.
_VERSION = 4

# These decide which features exist, or do not affect the result: searched with stage one, or not at all.
NEVER_INNER = ("stage_two.frozen", "stage_two.shift_batch_norm", "stage_two.search", "stage_two.accumulate")


@dataclass(frozen=True)
class StageTwoSearch:
    """A unit of work beside the job: the search of stage two on the finished encoders of one recipe.

    Args:
        recipe: Its stage one gives the encoders. Its stage two is the base; values of the base that the search covers
            are tried first.
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

    def draw(self, trial: optuna.Trial) -> Recipe:
        """Returns the recipe of a setting that Optuna proposes.

        Raises:
            ConfigError: The values are valid alone but not together.
        """
        plain = self.recipe.to_plain()
        for parameter in self.parameters:
            if parameter.exists(plain):
                plain = assigned(plain, parameter.key, as_value(parameter.draw(trial)))
        return Recipe.from_plain(plain)

    def base(self) -> dict[str, Any]:
        """Returns the recipe's values of the searched parameters, by parameter name."""
        base = {}
        plain = self.recipe.to_plain()
        for parameter in self.parameters:
            values = values_of([parameter], plain)
            if parameter.key in values and parameter.allows(values[parameter.key]):
                base[parameter.name] = values[parameter.key]
        return base


def is_inner(parameter: Parameter, plain: dict[str, Any]) -> bool:
    """Returns whether a search of stage two on a frozen encoder tries this parameter, instead of the trial."""
    stage_two = plain["stage_two"]
    has_kept_features = plain["stage_one"] is not None and stage_two["frozen"] and not stage_two["shift_batch_norm"]
    is_searched = bool(stage_two["search"] and has_kept_features)
    return is_searched and parameter.key.startswith("stage_two.") and parameter.key not in NEVER_INNER
