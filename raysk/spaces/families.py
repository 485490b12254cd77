"""Families: the searched recipes of one method, read from the file of a space."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from hydra.core.override_parser.types import Override
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from raysk.config import OF_THE_STUDY, SHORTHANDS, StageTwoBudget
from raysk.errors import ConfigError
from raysk.overrides import parse_overrides
from raysk.recipe import Recipe
from raysk.settings import Settings, check_setting, check_within
from raysk.spaces.stage_two_search import NEVER_INNER
from raysk.spaces.sweeps import Parameter, as_value, assigned, distribution, read_parameters
from raysk.stage_two import StageTwo


@dataclass(frozen=True)
class Family:
    """A space without its controls: recipes of one method.

    Args:
        name: The name of the file.
        settings: Overrides that all of its recipes share.
        parameters: The searched settings.
        starts: Points to try first.
    """

    name: str
    settings: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    starts: dict[str, tuple[str, ...]]


def read_family(where: str, name: str, content: dict[str, Any], given: list[Override]) -> Family:
    """Reads the family of a space, with the sweeps of the command line in place of those of the file.

    Args:
        where: The file, for errors.
        name: Name of the family.
        content: The content of the file.
        given: The overrides of the command line.

    Raises:
        ConfigError: A sweep is none, or is over a setting of the study, or a start sets what is not searched.
    """
    searched = {key: read_parameters(where, key, entry) for key, entry in (content.get("search") or {}).items()}
    for item in given:
        key = item.key_or_group
        if item.is_sweep_override():
            # A single condition of the file stays; if the file has several, the sweep applies without a condition.
            replaced = searched.get(key, [])
            when = replaced[0].when if len(replaced) == 1 else ()
            searched[key] = [Parameter(key, distribution(where, item), when)]
        else:
            searched.pop(key, None)
    for key in searched:
        if key.partition(".")[0] in OF_THE_STUDY:
            raise ConfigError(f"{where}: a search must be over settings of a recipe, but got {key}: give it one value")
    starts = {start: flat(texts) for start, texts in (content.get("starts") or {}).items()}
    named = {*(content.get("search") or {}), *searched}
    for start, texts in starts.items():
        for item in parse_overrides(texts):
            if item.key_or_group not in named:
                raise ConfigError(f"{where}: a start must set searched keys only, but {start} sets {item.key_or_group}")
    # Stage two is drawn last, so that a seed gives the same encoders whatever the search of stage two; and first those
    # of its settings that decide whether there is such a search.
    every = [parameter for parameters in searched.values() for parameter in parameters]
    parameters = tuple(sorted(every, key=lambda p: (p.key.startswith("stage_two."), p.key not in NEVER_INNER)))
    return Family(name, flat(content.get("settings") or []), parameters, starts)


def check_values(parameters: tuple[Parameter, ...], plain: dict[str, Any]) -> None:
    """Refuses a sweep with a value that its setting can never have, whatever the others are.

    Args:
        parameters: The searched settings.
        plain: The composed configuration that they change; it names the parts.

    Raises:
        ConfigError: A choice or an end of a range breaks a rule.
    """
    for parameter in parameters:
        base = plain
        for key, values in parameter.when:
            base = assigned(base, key, as_value(values[0]))
        for value in _extremes(parameter.distribution):
            _check_value(parameter.key, as_value(value), base)


def _extremes(distribution: BaseDistribution) -> tuple[Any, ...]:
    """Returns the values that obey a rule only if all values do."""
    match distribution:
        case CategoricalDistribution(choices=choices):
            return tuple(choices)
        case FloatDistribution(low=low, high=high) | IntDistribution(low=low, high=high):
            return (low, high)
    raise TypeError(f"cannot check {distribution}")


def _check_value(key: str, value: Any, plain: dict[str, Any]) -> None:
    if key == "stage_two.search":
        check_within("stage_two", partial(check_setting, StageTwoBudget, "search", value, {}))
    else:
        kind: type[Settings] = StageTwo if key in SHORTHANDS else Recipe
        check_setting(kind, key, value, plain)


def prefixed(family: Family) -> Family:
    """Prefixes the parameters of a competing family with its name, since Optuna needs distinct names."""
    parameters = tuple(replace(p, name=f"{family.name}: {p.name}") for p in family.parameters)
    return replace(family, parameters=parameters)


def flat(texts: list[Any]) -> tuple[str, ...]:
    """Flattens nested lists, which a YAML alias of a shared list creates."""
    return tuple(text for item in texts for text in (flat(item) if isinstance(item, list) else [item]))
