"""Settings: frozen dataclasses whose annotations are their rules, converted from and to plain values."""

import inspect
import math
import re
import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, fields
from difflib import get_close_matches
from functools import cache
from typing import Annotated, Any, Literal, Self, TypeVar, Union, get_args, get_origin, get_type_hints

from raysk.errors import ConfigError
from raysk.registry import Registry, unknown_name

S = TypeVar("S", bound="Settings")
# An entry in a section of a docstring: the name of a setting and its description.
_ENTRY = re.compile(r"^    (\w+): (.*(?:\n      +.*)*)", re.MULTILINE)


@dataclass(frozen=True)
class Between:
    """The range of a number: `gamma: Annotated[float, Between(0, 20)] = 2.0`.

    Args:
        low: Smallest allowed number.
        high: Largest allowed number.
        open_low: Whether `low` itself is refused.
        open_high: Whether `high` itself is refused.
    """

    low: float
    high: float
    open_low: bool = False
    open_high: bool = False

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return above and below

    def __str__(self) -> str:
        return f"{'(' if self.open_low else '['}{self.low:g}, {self.high:g}{')' if self.open_high else ']'}"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Base of all settings; a subclass only declares its fields.

    An annotation determines the values of a field:

        Annotated[float, Between(0, 1)]     a number in a range; also int
        bool, str, Literal["a", "b"]        a plain value
        Annotated[str, registry]            the name of a registered part
        Annotated[Base, registry]           a registered part with its own settings; plain: {"name": ..., **settings}
        SomeSettings                        settings within settings; plain: a mapping
        tuple[X, ...], X | None             several of these, or none
        X | tuple[Y, ...]                   one of these, or a list of those

    A whole number in a float field becomes a float, so that 2 and 2.0 are one recipe with one key.

    Raises:
        ConfigError: A value breaks its field's rule; the message begins with the dotted path of the field.
    """

    def __post_init__(self) -> None:
        hints = self._hints()
        for field in fields(self):
            value = _completed(field, getattr(self, field.name))
            object.__setattr__(self, field.name, _checked(field.name, hints[field.name], value))

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Self:
        """Makes settings from a mapping of plain values; missing ones take their defaults.

        Raises:
            ConfigError: A name is unknown, or a value breaks its field's rule.
        """
        names = [field.name for field in fields(cls)]
        for name in plain:
            if name not in names:
                nearest = get_close_matches(str(name), names, n=1)
                remedy = f"did you mean {nearest[0]}?" if nearest else f"known here: {', '.join(names) or 'no setting'}"
                raise ConfigError(f"{name} must be a known setting of {cls.__name__}, but is not; {remedy}")
        return cls(**plain)

    def to_plain(self) -> dict[str, Any]:
        """Returns the mapping of plain values from which `from_plain` makes equal settings."""
        hints = self._hints()
        return {field.name: _plain(hints[field.name], getattr(self, field.name)) for field in fields(self)}

    def choices(self) -> dict[str, Any]:
        """Returns the plain values that differ from the defaults, from which keys are made.

        So a setting that is added later changes no key as long as it has its default.
        """
        return _differing(self, self._default())

    @classmethod
    @cache
    def _hints(cls) -> dict[str, Any]:
        """Returns the annotations, read once: a search makes thousands of settings."""
        return get_type_hints(cls, include_extras=True)

    @classmethod
    @cache
    def _default(cls) -> Self:
        return cls()


def _completed(field: Field[Any], value: Any) -> Any:
    """Completes the plain settings of a field with the defaults of that field, which may differ from their class's."""
    if not isinstance(value, Mapping) or field.default_factory is MISSING:
        return value
    default = field.default_factory()
    # A part has a name; its missing settings take the defaults of that part.
    names = {setting.name for setting in fields(default)}
    is_part = "name" in value and "name" not in names
    if is_part or all(name in value for name in names):
        return value
    return default.to_plain() | value


def _differing(settings: Settings, defaults: Settings) -> dict[str, Any]:
    hints = settings._hints()
    differing = {}
    for field in fields(settings):
        value, default = getattr(settings, field.name), getattr(defaults, field.name)
        if value == default:
            continue
        plain = _plain(hints[field.name], value)
        if isinstance(value, Settings):
            same = type(value) is type(default)
            name = {} if same or "name" not in plain else {"name": plain["name"]}
            plain = name | _differing(value, default if same else value._default())
        differing[field.name] = plain
    return differing


def _plain(hint: Any, value: Any) -> Any:
    if isinstance(value, Settings):
        if get_origin(hint) in (Union, types.UnionType):
            (hint,) = (option for option in get_args(hint) if option is not type(None))
        name = {"name": get_args(hint)[1].name_of(type(value))} if get_origin(hint) is Annotated else {}
        return name | value.to_plain()
    return list(value) if isinstance(value, tuple) else value


def _checked(where: str, hint: Any, value: Any) -> Any:
    """Returns `value` in the type of its annotation, or raises ConfigError."""
    if get_origin(hint) is Annotated:
        kind, rule = get_args(hint)
        return _checked_annotated(where, kind, rule, value)
    if get_origin(hint) in (Union, types.UnionType):
        if value is None and type(None) in get_args(hint):
            return None
        return _checked(where, _option(hint, value), value)
    if get_origin(hint) is Literal:
        if not any(value == option and type(value) is type(option) for option in get_args(hint)):
            if isinstance(get_args(hint)[0], int):
                listed = ", ".join(map(str, get_args(hint)))
                raise ConfigError(f"{where} must be one of {listed}, but got {value!r}: choose one")
            raise unknown_name(where, str(value), list(get_args(hint)))
        return value
    if get_origin(hint) is tuple:
        if isinstance(value, str | Mapping) or not isinstance(value, list | tuple):
            raise ConfigError(f"{where} must be a list, but got {value!r}: write [a, b]")
        return tuple(_checked(where, get_args(hint)[0], item) for item in value)
    if isinstance(hint, type) and issubclass(hint, Settings):
        return value if isinstance(value, hint) else within(where, hint, value)
    return _checked_scalar(where, hint, value)


def _option(hint: Any, value: Any) -> Any:
    """Returns the annotation of a union that a value is meant for: a list's, or the first."""
    first, *others = (option for option in get_args(hint) if option is not type(None))
    lists = [option for option in others if get_origin(option) is tuple]
    return lists[0] if lists and isinstance(value, list | tuple) else first


def _checked_annotated(where: str, kind: Any, rule: Any, value: Any) -> Any:
    if isinstance(rule, Between):
        return _checked_number(where, kind, rule, value)
    if kind is str:
        if value not in list(rule):
            raise unknown_name(where, str(value), list(rule))
        return value
    return value if isinstance(value, kind) else _checked_part(where, kind, rule, value)


def _checked_scalar(where: str, kind: type, value: Any) -> Any:
    if kind is str and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)  # a column or a class may be called 7
    if not isinstance(value, kind) or isinstance(value, bool) is not (kind is bool):
        noun = {bool: "true or false", str: "a text", int: "a whole number"}[kind]
        raise ConfigError(f"{where} must be {noun}, but got {value!r}: change it")
    return value


def _checked_number(where: str, kind: type, allowed: Between, value: Any) -> int | float:
    noun = "a whole number" if kind is int else "a number"
    # A bool is an int in Python, but "gamma: true" is a mistake of the user.
    right_type = isinstance(value, int if kind is int else (int, float)) and not isinstance(value, bool)
    if not right_type or not math.isfinite(value) or value not in allowed:
        raise ConfigError(f"{where} must be {noun} in {allowed}, but got {value!r}: choose one from that range")
    return int(value) if kind is int else float(value)


def _checked_part(where: str, kind: type, registry: Registry[Any], value: Any) -> Any:
    """Makes a registered part from its name and its settings."""
    fitting = [name for name in registry if issubclass(registry[name], kind)]
    if not isinstance(value, Mapping) or "name" not in value:
        raise ConfigError(f"{where} must have a name, but got {value!r}: one of {', '.join(fitting)}")
    part = registry[str(value["name"])]
    if not issubclass(part, kind):
        raise ConfigError(f"{where} must be one of {', '.join(fitting)}, but got {value['name']!r}: choose one")
    return within(where, part, {name: item for name, item in value.items() if name != "name"})


def within(where: str, kind: type[S], value: Any) -> S:
    """Makes settings from a plain value; the path in an error begins with `where`.

    Raises:
        ConfigError: As `Settings.from_plain`, or the value is not a mapping.
    """
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where} must be a mapping of settings, but got {value!r}: give {where}.NAME=VALUE")
    try:
        return kind.from_plain(value)
    except ConfigError as error:
        raise ConfigError(f"{where}.{error}") from error


def check_setting(kind: type[Settings], path: str, value: Any, plain: Mapping[str, Any]) -> None:
    """Refuses a value that one setting can never have, whatever the other settings are.

    Args:
        kind: The settings that have it.
        path: Its dotted path in them; an unknown one is not checked.
        value: The value.
        plain: Plain settings, which name the parts on the path.

    Raises:
        ConfigError: The value breaks the rule of its setting.
    """
    name, _, inside = path.partition(".")
    hint = kind._hints().get(name)
    if hint is None:
        return
    if not inside:
        _checked(name, hint, value)
        return
    below = plain.get(name) or {}
    part = _settings_of(hint, below)
    if inside == "name" and "name" in below:
        _checked(name, hint, {"name": value})
    elif part is not None:
        check_within(name, lambda: check_setting(part, inside, value, below))


def _settings_of(hint: Any, plain: Mapping[str, Any]) -> type[Settings] | None:
    """Returns the class of the settings at an annotation; of a part, that which is named."""
    for option in get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,):
        if get_origin(option) is Annotated:
            rule = get_args(option)[1]
            return rule[plain["name"]] if isinstance(rule, Registry) and plain.get("name") in list(rule) else None
        if isinstance(option, type) and issubclass(option, Settings):
            return option
    return None


def described(kind: type[Settings]) -> dict[str, str]:
    """Returns the first sentence on each setting from the docstrings of a class and its bases."""
    sentences = {}
    for base in reversed(kind.__mro__):
        text = inspect.cleandoc(base.__doc__ or "")
        _, _, section = text.partition("\nArgs:\n" if "\nArgs:\n" in text else "\nAttributes:\n")
        for name, about in _ENTRY.findall(section.partition("\n\n")[0]):
            sentences[name] = re.split(r"(?<=\.) (?=[A-Z])", " ".join(about.split()))[0]
    return sentences


def check_within(node: str, check: Callable[[], None]) -> None:
    """Runs a check of the settings of a node; its error begins with the path of the setting."""
    try:
        check()
    except ConfigError as error:
        raise ConfigError(f"{node}.{error}") from error
