"""A search space: which recipes a study tries. Read from `search_spaces/NAME.yaml`.

    about: one sentence
    settings: [KEY=VALUE, ...]              the ground that all recipes of the space share
    search:
      KEY: sweep                            choice(...), interval(...), range(...), tag(log, ...) in Hydra's grammar
      KEY: {sweep: sweep, when: KEY=VALUE}  a parameter that exists for one choice only
    starts: {NAME: [KEY=VALUE, ...]}        points of the space that are tried first; the first is the paper's
    controls: {NAME: [KEY=VALUE, ...]}      recipes outside the space that it is compared with

The command line comes over the ground and the starts: a searched setting that it gives is searched no more, and one to
which it gives a sweep is searched there. A control stands as the file has it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import optuna
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from raysk.config import Config, compose_plain, parse_overrides, read_config
from raysk.errors import ConfigError
from raysk.registry import unknown_name
from raysk.spaces import list_spaces, read_space_file, spaces_folder


@dataclass(frozen=True)
class Parameter:
    """One searched setting.

    Args:
        key: Its dotted path in the configuration.
        distribution: Its values.
        when: (key, value) of the choice that it exists for; None if it always exists.
    """

    key: str
    distribution: BaseDistribution
    when: tuple[str, str] | None = None

    def exists(self, plain: dict[str, Any]) -> bool:
        """Returns whether the parameter means something in a composed configuration: what it is part of is there."""
        parent = self.key.rpartition(".")[0]
        if parent and _lookup(plain, parent) is None:
            return False
        return self.when is None or str(_lookup(plain, self.when[0])) == self.when[1]

    def allows(self, value: Any) -> bool:
        """Returns whether a value is among those that are searched."""
        match self.distribution:
            case CategoricalDistribution(choices=choices):
                return value in choices
            case FloatDistribution(low=low, high=high) | IntDistribution(low=low, high=high):
                return isinstance(value, int | float) and low <= value <= high
        return False


@dataclass(frozen=True)
class Point:
    """One recipe of a study, and where it came from.

    Args:
        name: "paper", the name of a control, or "trial 7".
        kind: A start, a control, or drawn by the search.
        own: Overrides that make the point; over the user's, they say all that the space leaves open.
        values: The searched parameters that exist for it, by key; a control has none.
    """

    name: str
    kind: Literal["start", "control", "drawn"]
    own: tuple[str, ...]
    values: dict[str, Any]


@dataclass(frozen=True)
class Space:
    """A search space with a command line over it.

    Args:
        name: Of its file.
        about: One sentence.
        settings: Overrides that all recipes share.
        user: Overrides of the command line that are no sweeps.
        parameters: What is searched.
        starts: Points to try first.
        controls: Recipes to compare with.
    """

    name: str
    about: str
    settings: tuple[str, ...]
    user: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    starts: dict[str, tuple[str, ...]]
    controls: dict[str, tuple[str, ...]]

    def config(self, point: Point | None = None) -> Config:
        """Returns the validated configuration of a point, or of the ground.

        Raises:
            ConfigError: An override does not exist, or a value breaks a rule.
        """
        return read_config(compose_plain(*self.settings, *self.user, *(point.own if point else ())))

    def named_points(self) -> list[Point]:
        """Returns the paper's setting, the controls, then the other starts."""
        starts = [self._start(name, texts) for name, texts in self.starts.items()]
        controls = [self._control(name, texts) for name, texts in self.controls.items()]
        return [*starts[:1], *controls, *starts[1:]]

    def draw(self, trial: optuna.Trial) -> Point:
        """Returns the point that a trial proposes, drawing one value of each parameter that exists."""
        values: dict[str, Any] = {}
        ground = compose_plain(*self.settings, *self.user)
        for parameter in self.parameters:
            plain = compose_plain(*self.settings, *self.user, *_texts(values)) if parameter.when else ground
            if parameter.exists(plain):
                values[parameter.key] = _suggest(trial, parameter)
        return Point(f"trial {trial.number}", "drawn", _texts(values), values)

    def _start(self, name: str, texts: tuple[str, ...]) -> Point:
        found = self._values(compose_plain(*self.settings, *texts, *self.user))
        # A sweep of the command line may leave the start's value out; then the search draws one from the sweep.
        values = {p.key: found[p.key] for p in self.parameters if p.key in found and p.allows(found[p.key])}
        return Point(name, "start", _texts(values), values)

    def _control(self, name: str, texts: tuple[str, ...]) -> Point:
        # Searched settings that the control leaves open are written down too, so that it stands on its own.
        values = self._values(compose_plain(*self.settings, *self.user, *texts))
        given = {item.key_or_group: text for item, text in zip(parse_overrides(texts), texts, strict=True)}
        left = {key: value for key, value in values.items() if key not in given}
        return Point(name, "control", (*given.values(), *_texts(left)), {})

    def _values(self, plain: dict[str, Any]) -> dict[str, Any]:
        """Reads off a composed configuration what the searched parameters that exist are."""
        found = {p.key: _lookup(plain, p.key) for p in self.parameters if p.exists(plain)}
        return {key: _choice(value) for key, value in found.items() if value is not None}


def load_space(name: str, command_line: Sequence[str] = ()) -> Space:
    """Reads a space by name, or from a file, and lays a command line over it.

    Raises:
        ConfigError: No such space, a file that is not one, or an override that does not exist.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else spaces_folder() / f"{name}.yaml"
    if not path.is_file():
        raise unknown_name("--space", name, [known for known, _ in list_spaces()])
    content = read_space_file(path)
    given = parse_overrides(command_line)
    sweeps = {item.key_or_group: item for item in given if item.is_sweep_override()}
    user = tuple(text for text, item in zip(command_line, given, strict=True) if not item.is_sweep_override())
    fixed = {item.key_or_group for item in given if not item.is_sweep_override()}
    searched = {key: _parameter(path, key, entry) for key, entry in (content.get("search") or {}).items()}
    # A sweep of the command line replaces that of the file, whose condition stays.
    known = {key: parameter.when for key, parameter in searched.items()}
    searched |= {key: Parameter(key, _distribution(path, item), known.get(key)) for key, item in sweeps.items()}
    starts = {start: _flat(texts) for start, texts in (content.get("starts") or {}).items()}
    for start, texts in starts.items():
        for item in parse_overrides(texts):
            if item.key_or_group not in searched:
                raise ConfigError(f"{path}: a start must set searched keys only, but {start} sets {item.key_or_group}")
    return Space(
        name=path.stem,
        about=" ".join(content["about"].split()),
        settings=_flat(content.get("settings") or []),
        user=user,
        parameters=tuple(parameter for key, parameter in searched.items() if key not in fixed),
        starts=starts,
        controls={control: _flat(texts) for control, texts in (content.get("controls") or {}).items()},
    )


def _flat(texts: list[Any]) -> tuple[str, ...]:
    """Joins lists within a list: what a YAML alias of a shared list leaves."""
    return tuple(text for item in texts for text in (_flat(item) if isinstance(item, list) else [item]))


def _parameter(path: Path, key: str, entry: str | dict[str, str]) -> Parameter:
    text, condition = (entry["sweep"], entry.get("when")) if isinstance(entry, dict) else (entry, None)
    (item,) = parse_overrides([f"{key}={text}"])
    when = None
    if condition is not None:
        (parsed,) = parse_overrides([condition])
        when = (parsed.key_or_group, str(parsed.value()))
    return Parameter(key, _distribution(path, item), when)


def _distribution(path: Path, item: Override) -> BaseDistribution:
    """Returns Optuna's form of a sweep, or refuses what is none."""
    try:
        return _optuna_form(path, item)
    except ValueError as error:
        raise ConfigError(
            f"{path}: the sweep of {item.key_or_group} must have values, but {error}: correct it"
        ) from error


def _optuna_form(path: Path, item: Override) -> BaseDistribution:
    sweep = item.value()
    if isinstance(sweep, ChoiceSweep):
        return CategoricalDistribution([_choice(value) for value in sweep.list])
    if isinstance(sweep, IntervalSweep):
        low, high, log = sweep.start, sweep.end, "log" in sweep.tags
        if isinstance(low, int) and isinstance(high, int):
            return IntDistribution(low, high, log)
        return FloatDistribution(float(low or 0), float(high or 0), log)
    if isinstance(sweep, RangeSweep):
        return CategoricalDistribution(list(sweep.range()))
    rule = "must be choice(...), interval(...) or range(...)"
    raise ConfigError(f"{path}: the sweep of {item.key_or_group} {rule}, but got {item.value()!r}: correct it")


def _choice(value: Any) -> bool | int | float | str:
    """Returns a value as Optuna keeps it: plain, so a list goes as its text, which parses back."""
    if isinstance(value, list):
        return f"[{','.join(str(item) for item in value)}]"
    return value if isinstance(value, bool | int | float) else str(value)


def _suggest(trial: optuna.Trial, parameter: Parameter) -> Any:
    match parameter.distribution:
        case FloatDistribution(low=low, high=high, log=log):
            return trial.suggest_float(parameter.key, low, high, log=log)
        case IntDistribution(low=low, high=high, log=log):
            return trial.suggest_int(parameter.key, low, high, log=log)
        case CategoricalDistribution(choices=choices):
            return trial.suggest_categorical(parameter.key, choices)
    raise TypeError(f"no way to draw from {parameter.distribution}")


def _texts(values: dict[str, Any]) -> tuple[str, ...]:
    return tuple(f"{key}={value}" for key, value in values.items())


def _lookup(plain: Any, key: str) -> Any:
    """Returns the value at a dotted path, None where the path ends early."""
    for name in key.split("."):
        if not isinstance(plain, dict) or name not in plain:
            return None
        plain = plain[name]
    return plain
