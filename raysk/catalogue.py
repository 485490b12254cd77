"""What a recipe can name: every part with its idea, its settings, their defaults and their ranges, as Markdown."""

from collections.abc import Iterator
from dataclasses import fields
from inspect import getdoc
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from raysk.parts.heads import heads
from raysk.parts.losses import EmbeddingLoss, LogitLoss, losses
from raysk.parts.mixing import mixings
from raysk.parts.samplers import samplers
from raysk.registry import Registry
from raysk.settings import Settings

# Title, where a recipe names it, family, and which of its members.
_FAMILIES: tuple[tuple[str, str, Registry[Any], type], ...] = (
    ("Losses on logits", "stage_two.loss, stage_one.classifier_loss", losses, LogitLoss),
    ("Losses on embeddings", "stage_one.loss", losses, EmbeddingLoss),
    ("Heads", "stage_two.head", heads, Settings),
    ("Samplers", "stage_one.sampler, stage_two.sampler", samplers, Settings),
    ("Mixing", "stage_two.mixing", mixings, Settings),
)


def catalogue() -> str:
    """Returns one table a family."""
    return "\n".join(line for family in _FAMILIES for line in _table(*family))


def _table(title: str, where: str, registry: Registry[Any], base: type) -> Iterator[str]:
    keys = " or ".join(f"`{key}.name`" for key in where.split(", "))
    yield from (f"### {title}", "", f"{keys}:", "", "| name | what it is | settings |", "| --- | --- | --- |")
    for name in registry:
        if issubclass(registry[name], base):
            yield f"| `{name}` | {_idea(registry[name])} | {'; '.join(_settings(registry[name]))} |"
    yield ""


def _idea(part: type[Settings]) -> str:
    paragraph = (getdoc(part) or "").partition("\n\n")[0]
    return " ".join(paragraph.split()).replace("|", "\\|")


def _settings(part: type[Settings]) -> Iterator[str]:
    hints = get_type_hints(part, include_extras=True)
    for field in fields(part):
        default = getattr(part(), field.name)
        text = str(default).lower() if isinstance(default, bool) else str(default)
        yield f"`{field.name}={text}` {_rule(hints[field.name])}"


def _rule(hint: Any) -> str:
    if get_origin(hint) is not Annotated:
        return "(true or false)"
    rule = get_args(hint)[1]
    return f"({', '.join(rule)})" if isinstance(rule, Registry) else f"in {rule}"
