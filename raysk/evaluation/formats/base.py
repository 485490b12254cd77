"""The registry of leaderboard formats, and what several of them use."""

from collections.abc import Callable

from raysk.evaluation.leaderboard import Leaderboard
from raysk.registry import Registry

Format = Callable[[Leaderboard], str | bytes]

formats: Registry[Format] = Registry("leaderboard format")


def one_line(text: str) -> str:
    """Returns a text with each run of white space as one space."""
    return " ".join(text.split())
