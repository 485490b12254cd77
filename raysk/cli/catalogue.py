"""The parts that a recipe or a study can name, as Markdown: the idea, settings, defaults and ranges of each."""

import json
from collections.abc import Iterator
from dataclasses import fields
from inspect import getdoc
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from raysk.data.sources import sources
from raysk.data.sources.base import Source
from raysk.data.views import training_views
from raysk.evaluation.metrics import Metric, metrics
from raysk.parts.attention import attentions
from raysk.parts.heads import heads
from raysk.parts.losses import EmbeddingLoss, LogitLoss, losses
from raysk.parts.mixing import mixings
from raysk.parts.samplers import samplers
from raysk.parts.tasks import tasks
from raysk.recipe import Model, Recipe
from raysk.registry import Registry, unknown_name
from raysk.settings import Settings, described
from raysk.stage import Optimizer

# Title, where a recipe names the parts, registry, and base class of the parts.
_FAMILIES: tuple[tuple[str, str, Registry[Any], type], ...] = (
    ("Losses on logits", "stage_two.loss.name, stage_one.classifier_loss.name", losses, LogitLoss),
    ("Losses on embeddings", "stage_one.loss.name", losses, EmbeddingLoss),
    ("Heads", "stage_two.head.name", heads, Settings),
    ("Samplers", "stage_one.sampler.name, stage_two.sampler.name", samplers, Settings),
    ("Mixing", "stage_one.mixing.name, stage_two.mixing.name", mixings, Settings),
    ("Attention", "stage_two.attention.name", attentions, Settings),
    ("Tasks", "task.name", tasks, Settings),
    ("Training views", "stage_one.views, stage_two.view", training_views, object),
    ("Data", "data", sources, object),
    ("Metrics", "metric", metrics, Metric),
)
# Choices without settings: title, where a recipe names them, class and field.
_CHOICES = (
    ("Optimizers", "stage_one.optimizer.name, stage_two.optimizer.name", Optimizer, "name"),
    ("Schedules", "stage_one.optimizer.schedule, stage_two.optimizer.schedule", Optimizer, "schedule"),
    ("Pooling", "model.pooling", Model, "pooling"),
    ("Test-time views", "test_views", Recipe, "test_views"),
)


def catalogue(part: str | None = None) -> str:
    """Returns one table for each family, or only the rows of one name.

    Raises:
        ConfigError: No part has that name.
    """
    lines: list[str] = []
    names: set[str] = set()
    for title, where, registry, base in _FAMILIES:
        rows = {name: _row(name, registry[name]) for name in registry if _is_of(registry[name], base)}
        lines += _table(title, where, "| name | what it is | settings |", rows, part)
        names |= {name.partition("@")[0] for name in rows}
    for title, where, kind, field in _CHOICES:
        rows = {name: f"| `{name}` |" for name in get_args(get_type_hints(kind)[field])}
        lines += _table(title, where, "| name |", rows, part, described(kind)[field])
        names |= rows.keys()
    if not lines:
        raise unknown_name("a part", str(part), sorted(names))
    return "\n".join(lines)


def _is_of(member: Any, base: type) -> bool:
    return issubclass(member, base) if isinstance(member, type) else base is object


def _table(title: str, where: str, head: str, rows: dict[str, str], part: str | None, about: str = "") -> Iterator[str]:
    # A metric is also found without the class in its form.
    wanted = [row for name, row in rows.items() if part in (None, name, name.partition("@")[0])]
    if not wanted:
        return
    keys = " or ".join(f"`{key}`" for key in where.split(", "))
    yield from (f"### {title}", "", f"{keys}: {about}".rstrip(), "", head, "| --- " * (head.count("|") - 1) + "|")
    yield from (*wanted, "")


def _row(name: str, part: Any) -> str:
    settings = ""
    if isinstance(part, Source):
        settings = ", ".join(f"`data.{name}`" for name in part.reads)
    elif isinstance(part, type) and issubclass(part, Settings):
        settings = "; ".join(_settings(part))
    elif isinstance(part, type) and issubclass(part, Metric):
        settings = f"{'larger' if part.larger_is_better else 'smaller'} is better"
    return f"| `{_cell(name)}` | {_idea(part)} | {settings} |"


def _idea(part: Any) -> str:
    paragraph = part.about if isinstance(part, Source) else (getdoc(part) or "").partition("\n\n")[0]
    return _cell(" ".join(paragraph.split()))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _settings(part: type[Settings]) -> Iterator[str]:
    hints = get_type_hints(part, include_extras=True)
    for field in fields(part):
        default = getattr(part(), field.name)
        text = json.dumps(default) if default is None or isinstance(default, bool) else str(default)
        yield f"`{field.name}={text}` {_rule(hints[field.name])}"


def _rule(hint: Any) -> str:
    if get_origin(hint) in (Union, UnionType):
        return " or ".join("null" if option is NoneType else _rule(option) for option in get_args(hint))
    if get_origin(hint) is tuple:
        return f"a list, each {_rule(get_args(hint)[0])}"
    if get_origin(hint) is Literal:
        return f"({', '.join(get_args(hint))})"
    if hint is str:
        return "(a name)"
    if get_origin(hint) is not Annotated:
        return "(true or false)"
    rule = get_args(hint)[1]
    return f"({', '.join(rule)})" if isinstance(rule, Registry) else f"in {rule}"
