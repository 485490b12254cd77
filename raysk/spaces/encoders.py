"""The encoders that a space can draw, so that a study reads their images, regions and weights before it starts."""

from typing import Any

from optuna.distributions import CategoricalDistribution

from raysk.config import read_config
from raysk.errors import ConfigError
from raysk.recipe import Recipe
from raysk.spaces.space import Space
from raysk.spaces.sweeps import Parameter, as_value, assigned, is_of_the_encoder

_REGION = "stage_two.attention.region"


def drawn_encoders(space: Space) -> list[Recipe]:
    """Returns a recipe for each combination of network, image size and region of CARE among the choices of a space."""
    recipes: dict[str, Recipe] = {}
    for family in space.families:
        plains = [space.compose(family)]
        for parameter in family.parameters:
            if is_of_the_encoder(parameter.key) or parameter.key == _REGION:
                plains = [each for plain in plains for each in _each_choice(parameter, plain)]
        for plain in plains:
            try:
                recipe = read_config(plain).recipe
            except ConfigError:
                continue  # The values are valid alone but not together: the search learns from such a draw.
            recipes[recipe.key] = recipe
    return list(recipes.values())


def _each_choice(parameter: Parameter, plain: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns a configuration with each choice of a parameter; the given one if it has none, or does not exist."""
    if not parameter.exists(plain) or not isinstance(parameter.distribution, CategoricalDistribution):
        return [plain]
    return [assigned(plain, parameter.key, as_value(choice)) for choice in parameter.distribution.choices]
