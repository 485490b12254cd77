"""What the shell completes: names of spaces, formats, rows and metrics, read when it asks."""

import argparse
from pathlib import Path

from raysk.errors import RayskError


def space_names(prefix: str, **_: object) -> list[str]:
    """Returns the completions of a search space: names, or the files of a path."""
    from argcomplete.completers import FilesCompleter

    from raysk.spaces.files import list_spaces

    return [name for name, _ in list_spaces() if name.startswith(prefix)] or FilesCompleter(("yaml", "yml"))(prefix)


def format_names(**_: object) -> list[str]:
    """Returns the completions of a leaderboard format."""
    from raysk.evaluation.formats import formats

    return list(formats)


def row_names(parsed_args: argparse.Namespace, **_: object) -> list[str]:
    """Returns the completions of a row: the names of the single recipes of the run."""
    from raysk.evaluation.leaderboard import Leaderboard

    try:
        rows = Leaderboard.read(Path(parsed_args.run) / "leaderboard.json").rows
    except RayskError:  # no run: nothing to complete
        return []
    return [row.name for row in rows if row.kind != "ensemble"]


def metric_names(**_: object) -> list[str]:
    """Returns the completions of a metric."""
    from raysk.evaluation.metrics import metrics

    return list(metrics)
