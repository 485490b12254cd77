"""Sweeps: searched settings in Hydra's grammar, and the values that Optuna draws from them."""

import math
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

# The values that a searched setting may have, as texts, by its key: (key, values). All conditions must hold.
Conditions = tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True)
class Parameter:
    """One searched setting.

    Args:
        key: Its dotted path in the configuration.
        distribution: Its values.
        when: The choices that it exists for.
        unless: The choices of the parameters with the same key that come before it; they have precedence.
        name: Its name in Optuna; parameters of one key for different choices have different names.
    """

    key: str
    distribution: BaseDistribution
    when: Conditions = ()
    unless: tuple[Conditions, ...] = ()
    name: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.name or self.key)

    def exists(self, plain: Mapping[str, Any]) -> bool:
        """Returns whether the parameter applies to a composed configuration: its parent exists, and it is its turn."""
        # The name of a part may create the part, so only the part's parent must exist.
        parent = self.key.removesuffix(".name").rpartition(".")[0]
        if parent and lookup(plain, parent) is None:
            return False
        return _hold(self.when, plain) and not any(_hold(earlier, plain) for earlier in self.unless)

    def allows(self, value: Any) -> bool:
        """Returns whether the search covers a value."""
        match self.distribution:
            case CategoricalDistribution(choices=choices):
                return value in choices
            case FloatDistribution(low=low, high=high) | IntDistribution(low=low, high=high):
                return isinstance(value, int | float) and low <= value <= high
        return False

    def nearest(self, value: Any) -> Any:
        """Returns a value if the search covers it, else the nearest one; of words the first."""
        match self.distribution:
            case CategoricalDistribution(choices=choices):
                return value if value in choices else choices[0]
            case FloatDistribution(low=low, high=high) | IntDistribution(low=low, high=high):
                return min(max(value, low), high)
        raise TypeError(f"cannot search {self.distribution}")

    def draw(self, trial: optuna.trial.BaseTrial) -> Any:
        """Draws a value for a trial."""
        match self.distribution:
            case FloatDistribution(low=low, high=high, log=log):
                return trial.suggest_float(self.name, low, high, log=log)
            case IntDistribution(low=low, high=high, log=log):
                return trial.suggest_int(self.name, low, high, log=log)
            case CategoricalDistribution(choices=choices):
                return trial.suggest_categorical(self.name, choices)
        raise TypeError(f"cannot draw from {self.distribution}")

    def at(self, share: float) -> Any:
        """Returns the value below which a share of the range lies, by which a point of the unit cube becomes a draw.

        Args:
            share: In [0, 1).
        """
        match self.distribution:
            case FloatDistribution(low=low, high=high, log=log):
                value = math.exp(_between(math.log(low), math.log(high), share)) if log else _between(low, high, share)
                return min(max(value, low), high)
            case IntDistribution(low=low, high=high, log=log):
                # Every number has the width of the values that round to it.
                first, last = low - 0.5, high + 0.5
                value = _between(first, last, share)
                if log:
                    value = math.exp(_between(math.log(first), math.log(last), share))
                return min(max(round(value), low), high)
            case CategoricalDistribution(choices=choices):
                return choices[int(share * len(choices))]
        raise TypeError(f"cannot draw from {self.distribution}")

    def to_plain(self) -> dict[str, Any]:
        """Returns the JSON form."""
        return {
            "key": self.key,
            "distribution": distribution_to_json(self.distribution),
            "when": _conditions_to_plain(self.when),
            "unless": [_conditions_to_plain(earlier) for earlier in self.unless],
            "name": self.name,
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "Parameter":
        """Reads the JSON form."""
        unless = tuple(_conditions_from_plain(earlier) for earlier in plain["unless"])
        when = _conditions_from_plain(plain["when"])
        return cls(plain["key"], json_to_distribution(plain["distribution"]), when, unless, plain["name"])


def _between(low: float, high: float, share: float) -> float:
    return low + share * (high - low)


def _hold(conditions: Conditions, plain: Mapping[str, Any]) -> bool:
    return all(str(lookup(plain, key)) in values for key, values in conditions)


def _conditions_to_plain(conditions: Conditions) -> list[Any]:
    return [[key, list(values)] for key, values in conditions]


def _conditions_from_plain(plain: list[Any]) -> Conditions:
    return tuple((key, tuple(values)) for key, values in plain)


def read_parameters(where: str, key: str, entry: Any) -> list[Parameter]:
    """Reads an entry of `search`: a sweep, a sweep with conditions, or a list of these, of which the first applies.

    Raises:
        ConfigError: It is not a sweep, or it comes after a sweep without a condition.
    """
    sweeps = entry if isinstance(entry, list) else [entry]
    parameters: list[Parameter] = []
    for sweep in sweeps:
        text, conditions = _sweep_and_conditions(where, key, sweep)
        earlier = tuple(parameter.when for parameter in parameters)
        if () in earlier:
            rule = f"only the last sweep of {key} may have no condition"
            raise ConfigError(f"{where}: {rule}, but {text!r} comes after one: give the earlier one a `when`")
        (item,) = parse_overrides([f"{key}={text}"])
        name = f"{key} when {' and '.join(conditions)}" if conditions else f"{key} otherwise"
        when = tuple(map(_condition, conditions))
        parameters.append(Parameter(key, distribution(where, item), when, earlier, key if len(sweeps) == 1 else name))
    return parameters


def _sweep_and_conditions(where: str, key: str, entry: Any) -> tuple[str, list[str]]:
    plain = entry if isinstance(entry, dict) else {"sweep": entry}
    when = plain.get("when", [])
    conditions = when if isinstance(when, list) else [when]
    is_complete = "sweep" in plain and plain.keys() <= {"sweep", "when"}
    if not is_complete or not all(isinstance(condition, str) for condition in conditions):
        rule = f"an entry of {key} must be a sweep, or have a `sweep` and a `when` of KEY=VALUE or a list of these"
        raise ConfigError(f"{where}: {rule}, but got {entry!r}: correct it")
    return str(plain["sweep"]), conditions


def _condition(text: str) -> tuple[str, tuple[str, ...]]:
    """Reads KEY=VALUE, or KEY=choice(...) for any of several values."""
    (item,) = parse_overrides([text])
    value = item.value()
    values = value.list if isinstance(value, ChoiceSweep) else [value]
    return item.key_or_group, tuple(map(str, values))


def is_of_the_encoder(key: str) -> bool:
    """Returns whether a setting is of the network or its images."""
    return key == "image_size" or key.startswith("model.")


def first_encoder(given: Iterable[Override]) -> tuple[str, ...]:
    """Returns the first choices of the sweeps over settings of the encoder, as overrides for what has no draw."""
    first = {}
    for item in given:
        sweep = item.value()
        if is_of_the_encoder(item.key_or_group) and isinstance(sweep, ChoiceSweep):
            first[item.key_or_group] = as_choice(sweep.list[0])
    return override_texts(first)


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
