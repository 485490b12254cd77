"""Adds what is known of the attention of the rows to a leaderboard: columns, and the errors of the chosen row."""

from dataclasses import replace
from pathlib import Path

from raysk.evaluation.attention_record import ATTENTION_FILE, AttentionRecord
from raysk.evaluation.leaderboard import MASKS_KNOWN, Leaderboard, Row

_LEFT_OUT = "no attention: "


def with_attention(board: Leaderboard, folder: Path) -> Leaderboard:
    """Returns the leaderboard with what `raysk explain RUN --all` wrote into the run; unchanged if it wrote nothing.

    Args:
        board: The leaderboard of the run, by any metric.
        folder: The run directory.

    Raises:
        ArtifactError: The file is damaged.
    """
    path = folder / ATTENTION_FILE
    if not path.exists():
        return board
    record = AttentionRecord.read(path)
    rows = tuple(replace(row, scores={**row.scores, **record.scores.get(row.key, {})}) for row in board.rows)
    shown = explained_row(board)
    errors = record.errors if shown is not None and shown.key == record.errors_of else ()
    meta = {name: fact for name, fact in board.meta.items() if not name.startswith(_LEFT_OUT)}
    return replace(board, rows=rows, meta=meta | _facts(board, record), errors=errors)


def explained_row(board: Leaderboard) -> Row | None:
    """Returns the row whose errors are shown: that chosen before the test part was opened, or the only one."""
    return next((row for row in board.rows if row.key == board.chosen or len(board.rows) == 1), None)


def _facts(board: Leaderboard, record: AttentionRecord) -> dict[str, str]:
    if not record.num_lesions:
        return {}
    known = (
        f"{record.num_lesions} of {record.num_images} images; the lesion covers {record.area:.3f} of them on average"
    )
    reasons = {row.name: record.left_out[row.key] for row in board.rows if row.key in record.left_out}
    return {MASKS_KNOWN: known} | {f"{_LEFT_OUT}{name}": reason for name, reason in reasons.items()}
