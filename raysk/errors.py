"""What can go wrong, said to the person who can mend it: the rule, the value, the remedy, in one line.

The command line prints the message of a `RayskError` alone and exits with its status; any other exception is a defect
of raysk and keeps its traceback, which a study writes into its log.
"""

from pathlib import Path
from typing import Self


class RayskError(Exception):
    """Base of every error that a user can mend."""

    status = 2


class ConfigError(RayskError):
    """A setting, a name or a request that cannot be right."""


class DataError(RayskError):
    """A table, an image or a label that cannot be right."""


class ArtifactError(RayskError):
    """A file of a run that is missing, of another kind, or of another run."""


class TrainingError(RayskError):
    """A training that cannot go on, such as one whose loss is not a number."""


class CutOffError(RayskError):
    """A study that something from outside ended before its time: `--resume` goes on with it."""

    status = 3

    @classmethod
    def of(cls, cause: str, log: Path | None) -> Self:
        """Returns the error of a cause.

        Args:
            cause: What happened.
            log: Where to read more; None for a study that had not begun.
        """
        remedy = f"see {log}, then run the same command with --resume" if log else "run the same command again"
        return cls(f"a study must reach its end, but {cause}: {remedy}")


def in_one_line(error: Exception) -> str:
    """Returns what a library says of an error, which may take several lines."""
    return " ".join(str(error).split())
