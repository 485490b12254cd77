"""Sweeps: searched settings in Hydra's grammar, and the values that Optuna draws from them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import optuna
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
    json_to_distribution,
)

from raysk.errors import ConfigError
from raysk.overrides import parse_overrides
from raysk.recipe import PART_NODES


@dataclass(frozen=True)
class Parameter:
    """One searched setting.

    Args:
        key: Its dotted path in the configuration.
        distribution: Its values.
        when: (key, values) of the choices that it exists for; None if it always exists.
        name: Its name in Optuna; parameters of one key for different choices have different names.
    """

    key: str
    distribution: BaseDistribution
    when: tuple[str, tuple[str, ...]] | None = None
    name: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.name or self.key)

    def exists(self, plain: Mapping[str, Any]) -> bool:
        """Returns whether the parameter applies to a composed configuration: its parent exists and `when` holds."""
        # The name of a part may create the part, so only the part's parent must exist.
        parent = self.key.removesuffix(".name").rpartition(".")[0]
        if parent and lookup(plain, parent) is None:
            return False
        return self.when is None or str(lookup(plain, self.when[0])) in self.when[1]

    def allows(self, value: Any) -> bool:
        """Returns whether the search covers a value."""
        match self.distribution:
            case CategoricalDistribution(choices=choices):
                return value in choices
            case FloatDistribution(low=low, high=high) | IntDistribution(low=low, high=high):
                return isinstance(value, int | float) and low <= value <= high
        return False

    def draw(self, trial: optuna.Trial) -> Any:
        """Draws a value for a trial."""
        match self.distribution:
            case FloatDistribution(low=low, high=high, log=log):
                return trial.suggest_float(self.name, low, high, log=log)
            case IntDistribution(low=low, high=high, log=log):
                return trial.suggest_int(self.name, low, high, log=log)
            case CategoricalDistribution(choices=choices):
                return trial.suggest_categorical(self.name, choices)
        raise TypeError(f"cannot draw from {self.distribution}")

    def to_plain(self) -> dict[str, Any]:
        """Returns the JSON form."""
        when = [self.when[0], list(self.when[1])] if self.when else None
        return {
            "key": self.key,
            "distribution": distribution_to_json(self.distribution),
            "when": when,
            "name": self.name,
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "Parameter":
        """Reads the JSON form."""
        when = (plain["when"][0], tuple(plain["when"][1])) if plain["when"] else None
        return cls(plain["key"], json_to_distribution(plain["distribution"]), when, plain["name"])


def read_parameters(where: str, key: str, entry: Any) -> list[Parameter]:
    """Reads an entry of `search`: a sweep, a sweep with a condition, or a list of these for different choices.

    Raises:
        ConfigError: It is not a sweep.
    """
    sweeps = entry if isinstance(entry, list) else [entry]
    parameters = []
    for sweep in sweeps:
        text, condition = (sweep["sweep"], sweep.get("when")) if isinstance(sweep, dict) else (sweep, None)
        (item,) = parse_overrides([f"{key}={text}"])
        name = key if len(sweeps) == 1 else f"{key} when {condition}"
        parameters.append(Parameter(key, distribution(where, item), _condition(condition), name))
    return parameters


def _condition(text: str | None) -> tuple[str, tuple[str, ...]] | None:
    """Reads KEY=VALUE, or KEY=choice(...) for any of several values."""
    if text is None:
        return None
    (item,) = parse_overrides([text])
    value = item.value()
    values = value.list if isinstance(value, ChoiceSweep) else [value]
    return item.key_or_group, tuple(map(str, values))


def distribution(where: str, item: Override) -> BaseDistribution:
    """Returns Optuna's form of a sweep.

    Raises:
        ConfigError: It is not a sweep, or has no values.
    """
    try:
        return _optuna_form(where, item)
    except ValueError as error:
        raise ConfigError(
            f"{where}: the sweep of {item.key_or_group} must have values, but {error}: correct it"
        ) from error


def _optuna_form(where: str, item: Override) -> BaseDistribution:
    sweep = item.value()
    if isinstance(sweep, ChoiceSweep):
        return CategoricalDistribution([as_choice(value) for value in sweep.list])
    if isinstance(sweep, IntervalSweep):
        low, high, log = sweep.start, sweep.end, "log" in sweep.tags
        if isinstance(low, int) and isinstance(high, int):
            return IntDistribution(low, high, log)
        return FloatDistribution(float(low or 0), float(high or 0), log)
    if isinstance(sweep, RangeSweep):
        return CategoricalDistribution(list(sweep.range()))
    rule = "must be choice(...), interval(...) or range(...)"
    raise ConfigError(f"{where}: the sweep of {item.key_or_group} {rule}, but got {item.value()!r}: correct it")


def as_choice(value: Any) -> bool | int | float | str:
    """Returns a value in a form that Optuna can keep: a list becomes its text, which parses back."""
    if isinstance(value, list):
        return f"[{','.join(str(item) for item in value)}]"
    return value if isinstance(value, bool | int | float) else str(value)


def as_value(choice: Any) -> Any:
    """Returns the value of which `as_choice` gave this form."""
    if isinstance(choice, str) and choice.startswith("["):
        (item,) = parse_overrides([f"list={choice}"])
        return item.value()
    return choice


def override_texts(values: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns values as overrides."""
    return tuple(f"{key}={value}" for key, value in values.items())


def values_of(parameters: Iterable[Parameter], plain: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values of the existing parameters in a composed configuration, by key."""
    values = {p.key: lookup(plain, p.key) for p in parameters if p.exists(plain)}
    return {key: as_choice(value) for key, value in values.items() if value is not None}


def lookup(plain: Any, key: str) -> Any:
    """Returns the value at a dotted path, None if the path does not exist."""
    for name in key.split("."):
        if not isinstance(plain, Mapping) or name not in plain:
            return None
        plain = plain[name]
    return plain


def assigned(plain: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    """Returns a configuration with one setting changed. A new part keeps the settings that the old part shares with it.

    It keeps only settings that were chosen, since a default of the old part need not be a default of the new part.
    For one value, this gives the same result as composing the whole tree again, a thousand times as fast.
    """
    name, _, rest = key.partition(".")
    if not rest:
        return {**plain, name: value}
    node = plain.get(name) or {}
    if rest == "name" and name in PART_NODES and "name" in node:
        defaults = {field.name: field.default for field in fields(PART_NODES[name][node["name"]])}
        shared = [field.name for field in fields(PART_NODES[name][value])]
        node = {kept: chosen for kept, chosen in node.items() if kept in shared and chosen != defaults.get(kept)}
    return {**plain, name: assigned(node, rest, value)}
