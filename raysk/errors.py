"""What can go wrong, said to the person who can mend it: the rule, the value, the remedy, in one line.

The command line prints the message of a `RayskError` alone and exits with status 2; any other exception is a defect
of raysk and keeps its traceback.
"""


class RayskError(Exception):
    """Base of every error that a user can mend."""


class ConfigError(RayskError):
    """A setting, a name or a request that cannot be right."""


class DataError(RayskError):
    """A table, an image or a label that cannot be right."""


class ArtifactError(RayskError):
    """A file of a run that is missing, of another kind, or of another run."""


class TrainingError(RayskError):
    """A training that cannot go on, such as one whose loss is not a number."""


def in_one_line(error: Exception) -> str:
    """Returns what a library says of an error, which may take several lines."""
    return " ".join(str(error).split())
