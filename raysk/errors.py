"""Errors for the person who can fix them: the rule, the value and the remedy in one line.

The command line prints only the message of a `RayskError` and exits with its status. Any other exception is a defect of
raysk and keeps its traceback, which a study writes into its log.
"""

from pathlib import Path
from typing import Self


class RayskError(Exception):
    """Base of all errors that a user can fix."""

    status = 2


class ConfigError(RayskError):
    """An invalid setting, name or request."""


class DataError(RayskError):
    """An invalid table, image or label."""


class ArtifactError(RayskError):
    """A file of a run that is missing, of the wrong kind, or of another run."""


class TrainingError(RayskError):
    """A training that cannot continue, for example because its loss is not a number."""


class CutOffError(RayskError):
    """A study that an outside cause ended early; `--resume` continues it."""

    status = 3

    @classmethod
    def of(cls, cause: str, log: Path | None) -> Self:
        """Returns the error for a cause.

        Args:
            cause: What happened.
            log: The log file; None for a study that had not started.
        """
        remedy = f"see {log}, then run the same command with --resume" if log else "run the same command again"
        return cls(f"a study must reach its end, but {cause}: {remedy}")


def in_one_line(error: Exception) -> str:
    """Returns the message of an error, which may have several lines, in one line."""
    return " ".join(str(error).split())


def shown(text: object, most: int = 300) -> str:
    """Returns a text that a stranger may have written, printable, in one line of at most `most` characters."""
    line = " ".join(str(text)[: 2 * most].split())
    printable = "".join(character if character.isprintable() else "?" for character in line)
    return printable if len(printable) <= most else printable[: most - 1] + "…"
