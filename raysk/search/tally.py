"""How far a search is, and who hears of it."""

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Tally:
    """How far the search is, for whoever watches.

    Args:
        begun: Recipes proposed.
        complete: Recipes with all folds.
        stopped: Recipes that racing stopped.
        failed: Recipes that failed.
        best: (name, mean macro-F1 over folds) of the best recipe with all folds.
    """

    begun: int = 0
    complete: int = 0
    stopped: int = 0
    failed: int = 0
    best: tuple[str, float] | None = None


@dataclass(frozen=True)
class Listener:
    """Who hears of the search.

    Args:
        say: Takes a line.
        tally: Is kept up to date.
    """

    say: Callable[[str], None]
    tally: Tally = field(default_factory=Tally)
