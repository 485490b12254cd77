"""Joins the overrides of a command line with those of a point that may name other parts."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from raysk.overrides import parse_override, parse_overrides
from raysk.recipe import PART_NODES


def control_overrides(user: Sequence[str], own: Sequence[str]) -> tuple[str, ...]:
    """Returns the overrides of a point outside the space, or drawn from it: its own take precedence."""
    return (*_fitting(user, own), *own)


def start_overrides(user: Sequence[str], own: Sequence[str]) -> tuple[str, ...]:
    """Returns the overrides of a start: those of the command line take precedence."""
    given = {item.key_or_group for item in parse_overrides(user)}
    kept = [text for text in own if parse_override(text).key_or_group not in given]
    return (*kept, *_fitting(user, kept))


def _fitting(user: Sequence[str], own: Sequence[str]) -> tuple[str, ...]:
    """Returns the overrides of the command line that a point can have.

    A point that names another part, such as a control with its own loss, may lack a setting that the command line gives
    to the part of the space.
    """
    named = {item.key_or_group: item.value() for item in parse_overrides(own)}
    return tuple(text for text in user if not _is_of_another_part(parse_override(text).key_or_group, named))


def _is_of_another_part(key: str, named: Mapping[str, Any]) -> bool:
    """Returns whether the part that a point names lacks a setting, and another part of its kind has it."""
    node, _, setting = key.rpartition(".")
    registry, name = PART_NODES.get(node.rpartition(".")[2]), named.get(f"{node}.name")
    if registry is None or name not in list(registry):
        return False
    settings = {part: {field.name for field in fields(registry[part])} for part in registry}
    return setting != "name" and setting not in settings[name] and any(setting in of for of in settings.values())
