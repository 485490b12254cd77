"""The composed configuration as commented YAML: what each setting is, its range, its choices."""

import inspect
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from raysk.config import Config, StageTwoBudget
from raysk.data.sources import sources
from raysk.errors import ConfigError
from raysk.evaluation.metrics import metrics
from raysk.recipe import Recipe
from raysk.registry import Registry, unknown_name
from raysk.settings import Between, Settings, described, within
from raysk.stage_two import StageTwo

# Column at which the comments start.
_COLUMN = 44
# Nodes of the tree that are only shorthands for settings.
_SHORTHANDS = {
    "epochs": "Of the stage that trains the whole network: stage one, or stage two of a one-stage recipe.",
    "batch_size": "Of the stage that trains the whole network.",
}
_DOCUMENTED_ELSEWHERE = {
    "loader": "or auto: none on a CPU, else this GPU's share of the cores",
    "source": sources,
    "metric": metrics,
}


@dataclass(frozen=True)
class _Setting:
    """A setting's annotation and its description."""

    hint: Any
    about: str


def explain(plain: Mapping[str, Any], node: str = "") -> str:
    """Returns a composed configuration, or its part below a dotted path, as YAML with a comment on each line.

    Raises:
        ConfigError: The configuration has no such part.
    """
    settings = _of_the_tree()
    keys = [""]
    path: list[str] = []
    value: Any = plain
    for name in filter(None, node.split(".")):
        if not isinstance(value, Mapping) or name not in value:
            keys = [".".join([*path, str(key)]) for key in value] if isinstance(value, Mapping) else keys
            raise unknown_name("a part of the configuration", node, keys)
        settings = _inside(settings.get(name), value[name])
        value = value[name]
        path.append(name)
    if not isinstance(value, Mapping):
        raise ConfigError(f"a part of the configuration must have settings, but {node} is {value!r}: name its parent")
    return "\n".join(_lines(value, settings, 0)) + "\n"


def _of_the_tree() -> dict[str, _Setting]:
    """Returns the settings at the root of the tree, where the settings of a recipe have no node of their own."""
    return _settings_of(Config) | _settings_of(Recipe)


def _lines(plain: Mapping[str, Any], settings: Mapping[str, _Setting], depth: int) -> Iterator[str]:
    for name, value in plain.items():
        setting = settings.get(name)
        inner = _with_part_settings(setting, value)
        if isinstance(inner, Mapping) and inner:
            yield _line(f"{'  ' * depth}{name}:", setting.about if setting else "")
            yield from _lines(inner, _inside(setting, inner), depth + 1)
        else:
            text = yaml.safe_dump(inner, default_flow_style=True, width=1000).removesuffix("\n...\n").strip()
            yield _line(f"{'  ' * depth}{name}: {text}", _comment(name, setting))


def _with_part_settings(setting: _Setting | None, value: Any) -> Any:
    """Adds the defaults of its settings to a part, which the tree leaves out; returns other values unchanged."""
    hint = _without_none(setting.hint) if setting else None
    is_part = get_origin(hint) is Annotated and isinstance(get_args(hint)[1], Registry)
    if is_part and isinstance(value, Mapping) and "name" in value:
        given = {name: inner for name, inner in value.items() if name != "name"}
        return {**value, **within(str(value["name"]), get_args(hint)[1][value["name"]], given).to_plain()}
    return value


def _line(text: str, comment: str) -> str:
    return f"{text:{_COLUMN}}  # {comment}" if comment else text


def _comment(name: str, setting: _Setting | None) -> str:
    if setting is None:
        return _SHORTHANDS.get(name, "")
    extra = _DOCUMENTED_ELSEWHERE.get(name)
    rule = f"one of {', '.join(extra)}" if isinstance(extra, Registry) else extra or _rule(setting.hint)
    return " ".join(filter(None, [setting.about, f"[{rule}]" if rule else ""]))


def _inside(setting: _Setting | None, value: Any) -> dict[str, _Setting]:
    """Returns the settings below a node: those of the part that it names, or of its class."""
    kind = _without_none(setting.hint) if setting else None
    if get_origin(kind) is Annotated:
        registry = get_args(kind)[1]
        is_part = isinstance(registry, Registry) and isinstance(value, Mapping) and "name" in value
        part = registry[value["name"]] if is_part else None
        return {"name": _Setting(kind, "")} | (_settings_of(part) if part else {})
    if not (inspect.isclass(kind) and issubclass(kind, Settings)):
        return {}
    # The budget of stage two shares a node with its settings.
    return _settings_of(kind) | (_settings_of(StageTwoBudget) if kind is StageTwo else {})


def _settings_of(kind: type[Settings]) -> dict[str, _Setting]:
    hints = get_type_hints(kind, include_extras=True)
    about = described(kind)
    return {field.name: _Setting(hints[field.name], about.get(field.name, "")) for field in fields(kind)}


def _without_none(hint: Any) -> Any:
    if get_origin(hint) in (Union, types.UnionType):
        return next(option for option in get_args(hint) if option is not type(None))
    return hint


def _rule(hint: Any) -> str:
    """Returns the range or the choices of an annotation; empty if it allows any value."""
    optional = ", or null" if type(None) in get_args(hint) else ""
    if get_origin(hint) in (Union, types.UnionType) and not optional:
        return ", or ".join(_rule(option) for option in get_args(hint))
    hint = _without_none(hint)
    if get_origin(hint) is Literal:
        return f"one of {', '.join(map(str, get_args(hint)))}{optional}"
    if get_origin(hint) is tuple:
        inner = _rule(get_args(hint)[0])
        return f"a list; each {inner}" if inner else ""
    if get_origin(hint) is Annotated:
        kind, rule = get_args(hint)[:2]
        if isinstance(rule, Between):
            return f"in {rule}{optional}"
        names = [name for name in rule if kind is str or issubclass(rule[name], kind)]
        return f"one of {', '.join(names)}{optional}"
    if hint is bool:
        return "true or false"
    return optional.removeprefix(", or ") and "or null"
