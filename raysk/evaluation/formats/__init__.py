"""File formats of the leaderboard; a new format is one function in a file of this folder, with one decorator."""

from pathlib import Path

from raysk.artifacts import replacing
from raysk.evaluation.board_attention import with_attention
from raysk.evaluation.formats.base import Format, formats
from raysk.evaluation.leaderboard import Leaderboard
from raysk.registry import import_modules

import_modules(__name__, __path__)

__all__ = ["Format", "formats", "write_leaderboard"]


def write_leaderboard(leaderboard: Leaderboard, folder: Path) -> None:
    """Writes the leaderboard in every format, as leaderboard.<format>; `Leaderboard.read` reads leaderboard.json.

    What is known of the attention of its rows is added: a study that goes on keeps it.
    """
    leaderboard = with_attention(leaderboard, folder)
    for name in formats:
        content = formats[name](leaderboard)
        with replacing(folder / f"leaderboard.{name}") as temporary:
            temporary.write_bytes(content.encode() if isinstance(content, str) else content)
