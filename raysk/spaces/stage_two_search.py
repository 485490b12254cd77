"""What a space asks of a frozen encoder: the search of stage two, as a value."""

from dataclasses import dataclass
from typing import Any

import optuna

from raysk.artifacts import digest_of
from raysk.recipe import Recipe
from raysk.spaces.sweeps import Parameter, assigned, values_of

# Of what a search writes and how it chooses: one of another version is searched anew.
_VERSION = 3


@dataclass(frozen=True)
class StageTwoSearch:
    """The unit of work beside the job: the search of stage two on the encoders of one recipe, whose folds are done.

    Args:
        recipe: Its stage one gives the encoders; its stage two is the base, and the first setting that is tried as
            far as the search reaches its values.
        parameters: What is searched of stage two.
        num_settings: How many settings are tried.
    """

    recipe: Recipe
    parameters: tuple[Parameter, ...]
    num_settings: int

    @property
    def id(self) -> str:
        """The name of the search, made from its content."""
        space = digest_of([[parameter.to_plain() for parameter in self.parameters], self.num_settings, _VERSION])
        return f"{self.recipe.key}-search-{space}"

    @property
    def trained_encoder(self) -> None:
        """None: a search trains no encoder, and those that it reads are done."""

    def to_plain(self) -> dict[str, Any]:
        """Returns the JSON form."""
        return {
            "kind": "stage-two search",
            "recipe": self.recipe.to_plain(),
            "parameters": [parameter.to_plain() for parameter in self.parameters],
            "num_settings": self.num_settings,
        }

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> "StageTwoSearch":
        """Reads the JSON form."""
        parameters = tuple(Parameter.from_plain(parameter) for parameter in plain["parameters"])
        return cls(Recipe.from_plain(plain["recipe"]), parameters, plain["num_settings"])

    def draw(self, trial: optuna.Trial) -> Recipe:
        """Returns the recipe of a setting that Optuna proposes.

        Raises:
            ConfigError: Values that are right alone do not go together.
        """
        plain = self.recipe.to_plain()
        for parameter in self.parameters:
            if parameter.exists(plain):
                plain = assigned(plain, parameter.key, parameter.draw(trial))
        return Recipe.from_plain(plain)

    def base(self) -> dict[str, Any]:
        """Returns the values of the searched parameters in the recipe itself, by their names."""
        found = {}
        plain = self.recipe.to_plain()
        for parameter in self.parameters:
            values = values_of([parameter], plain)
            if parameter.key in values and parameter.allows(values[parameter.key]):
                found[parameter.name] = values[parameter.key]
        return found
