"""Joins the overrides of a command line with those of a point that may name other parts."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from raysk.overrides import parse_override, parse_overrides
from raysk.recipe import PART_NODES


def control_overrides(user: Sequence[str], own: Sequence[str], usual: Sequence[str] = ()) -> tuple[str, ...]:
    """Returns the overrides of a point outside the space, or drawn from it: its own take precedence.

    Args:
        user: The overrides of the command line.
        own: The overrides of the point.
        usual: The names of the parts of its family; see `of_family`.
    """
    return (*_fitting(user, (*usual, *own)), *own)


def start_overrides(user: Sequence[str], own: Sequence[str], usual: Sequence[str] = ()) -> tuple[str, ...]:
    """Returns the overrides of a start: those of the command line take precedence; see `control_overrides`."""
    given = {item.key_or_group for item in parse_overrides(user)}
    kept = [text for text in own if parse_override(text).key_or_group not in given]
    return (*kept, *_fitting(user, (*usual, *kept)))


def of_family(user: Sequence[str], plain: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns the overrides of the command line for one of several families that compete.

    A setting below a node is for the families that have the node, and a setting of a part for those that have the part.

    Args:
        user: The overrides of the command line.
        plain: The composed configuration of the family, or of the controls, without the command line.

    Returns:
        The overrides whose nodes exist; and as overrides, the names of all parts that the command line leaves.
    """
    reaching = tuple(text for text in user if not _is_below_null(parse_override(text).key_or_group, plain))
    given = {item.key_or_group for item in parse_overrides(reaching)}
    names = [
        (f"{stage}.{node}.name", part["name"])
        for stage in ("stage_one", "stage_two")
        for node, part in (plain[stage] or {}).items()
        if node in PART_NODES and isinstance(part, Mapping)
    ]
    return reaching, tuple(f"{key}={name}" for key, name in names if key not in given)


def _is_below_null(key: str, plain: Mapping[str, Any]) -> bool:
    node: Any = plain
    for name in key.split(".")[:-1]:
        node = node.get(name, {})  # an unknown key is refused elsewhere
        if node is None:
            return True
    return False


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
