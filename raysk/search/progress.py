"""How far a search is."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class SearchProgress:
    """How far the search is, for whoever watches.

    Args:
        say: Takes a line for the user.
        begun: Recipes proposed.
        complete: Recipes with all folds.
        stopped: Recipes that racing stopped.
        failed: Recipes that failed.
        best: (name, mean macro-F1 over folds) of the best recipe with all folds.
    """

    say: Callable[[str], None]
    begun: int = 0
    complete: int = 0
    stopped: int = 0
    failed: int = 0
    best: tuple[str, float] | None = None
