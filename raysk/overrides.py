"""Overrides: KEY=VALUE in a space or on the command line, in Hydra's grammar."""

import re
from collections.abc import Sequence
from functools import cache

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from raysk.errors import ConfigError

# Settings whose values are paths or addresses, or hold the names of classes.
_LITERAL = frozenset({"path", "cache", "stores", "checkpoint", "metric"})


def parse_overrides(texts: Sequence[str]) -> list[Override]:
    """Parses several overrides; see `parse_override`."""
    return [parse_override(text) for text in texts]


@cache
def parse_override(text: str) -> Override:
    """Parses an override: a value, or a sweep.

    Raises:
        ConfigError: It is not in Hydra's grammar.
    """
    if "=" not in text:
        raise ConfigError(f"an override must be KEY=VALUE, but got {text!r}: add = and the value")
    text = with_literal_value(text)
    try:
        return OverridesParser.create().parse_override(text)
    except HydraException as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"an override must be KEY=VALUE, but got {text!r}: {reason}") from error


def with_literal_value(text: str) -> str:
    """Quotes the value of an override if it is literal: a path, or a metric, with any ~, spaces and commas."""
    key, equals, value = text.partition("=")
    if key.rpartition(".")[2] not in _LITERAL or value in ("", "null") or value.startswith(("'", '"', "choice(")):
        return text
    return f"{key}{equals}{_quoted(value)}"


def list_override(key: str, texts: Sequence[str]) -> str:
    """Returns the override of a setting that holds literal texts."""
    return f"{key}=[{','.join(map(_quoted, texts))}]"


def _quoted(text: str) -> str:
    # Hydra reads backslashes as escapes only before a quotation mark.
    escaped = re.sub(r"(\\*)('|$)", lambda match: match[1] * 2 + ("\\'" if match[2] else ""), text)
    return f"'{escaped}'"
