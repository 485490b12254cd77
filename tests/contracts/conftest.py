"""Runs a contract over every registered member, with its defaults and with each setting at the ends of its range."""

from collections.abc import Iterator
from dataclasses import fields, replace
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest

from raysk.parts.attention import attentions
from raysk.parts.heads import heads
from raysk.parts.losses import LogitLoss, losses
from raysk.parts.mixing import mixings
from raysk.parts.samplers import samplers
from raysk.registry import Registry
from raysk.settings import Between, Settings

FAMILIES: dict[str, Registry[Any]] = {
    "loss": losses, "sampler": samplers, "head": heads, "mixing": mixings, "attention": attentions
}  # fmt: skip


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for family, registry in FAMILIES.items():
        if family in metafunc.fixturenames:
            metafunc.parametrize(
                family, [variant for name in registry for variant in _variants(registry[name])], ids=str
            )
    if "logit_losses" in metafunc.fixturenames:
        names = [name for name in losses if issubclass(losses[name], LogitLoss)]
        metafunc.parametrize("logit_losses", [list(_variants(losses[name])) for name in names], ids=names)
    members = [registry[name] for registry in FAMILIES.values() for name in registry]
    if "part" in metafunc.fixturenames:
        metafunc.parametrize("part", [variant for member in members for variant in _variants(member)], ids=str)
    if "slip" in metafunc.fixturenames:
        slips = [(member, field, value) for member in members for field, value in _slips(member)]
        ids = [f"{member.__name__}.{field}={value!r}" for member, field, value in slips]
        metafunc.parametrize("slip", slips, ids=ids)


def _rules(member: type[Settings]) -> Iterator[tuple[str, Any, Any]]:
    """Yields each field with its annotation and its Between or the list of its values; of a union, the first."""
    hints = get_type_hints(member, include_extras=True)
    for field in fields(member):
        whole = hints[field.name]
        hint = get_args(whole)[0] if get_origin(whole) in (Union, UnionType) else whole
        if get_origin(hint) is Annotated:
            rule = get_args(hint)[1]
            yield field.name, whole, list(rule) if isinstance(rule, Registry) else rule
        elif get_origin(hint) is tuple:
            yield field.name, whole, [("mel",), ("mel", "nv")]
        else:
            yield field.name, whole, list(get_args(hint)) if get_origin(hint) is Literal else [True, False]


def _variants(member: type[Settings]) -> Iterator[Settings]:
    default = member()
    yield default
    for field, _, rule in _rules(member):
        kind = int if isinstance(getattr(default, field), int) else float
        values = _ends(rule, kind) if isinstance(rule, Between) else rule
        yield from (replace(default, **{field: value}) for value in values if value != getattr(default, field))


def _ends(rule: Between, kind: type) -> list[float]:
    inset = (rule.high - rule.low) * 1e-6
    low = rule.low + inset if rule.open_low else rule.low
    high = rule.high - inset if rule.open_high else rule.high
    return [kind(low), kind(high)]


def _slips(member: type[Settings]) -> Iterator[tuple[str, Any]]:
    for field, hint, rule in _rules(member):
        if NoneType not in get_args(hint):
            yield field, None
        yield field, "no such value"
        if isinstance(rule, Between):
            yield from ((field, value) for value in (rule.low - 1, rule.high + 1, float("nan"), float("inf"), True))
            yield from ((field, end) for end, is_open in _open_ends(rule) if is_open)


def _open_ends(rule: Between) -> list[tuple[float, bool]]:
    return [(rule.low, rule.open_low), (rule.high, rule.open_high)]
