"""A job as the queue has it: what it is, whose turn it is, how it ended."""

from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # The broker needs no torch, which a recipe brings along.
    from raysk.training.work import Work


class Priority(IntEnum):
    """What comes first; smaller is sooner."""

    FIXED = 0
    """A recipe that runs all its folds, whatever they say."""
    SCORED = 1
    """One in the race, of which a fold is known."""
    NEW = 2
    """One in the race, of which nothing is known."""


class Outcome(StrEnum):
    """How a job ended."""

    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    BROKEN = "broken"
    """A file could not be read or written: the recipe is not to blame, and the next job would fare no better."""


class Order(StrEnum):
    """What a lane is told when it asks or reports."""

    WORK = "work"
    WAIT = "wait"
    GO_ON = "go on"
    STOP = "stop"
    LEAVE = "leave"


@dataclass
class QueuedJob:
    """A job and what has become of it.

    Args:
        id: Its name, made from its content.
        plain: The job in its JSON form.
        priority: Smaller is sooner.
        encoder: Name of the encoder that it trains or reads; two lanes never train the same one at once.
        title: What a reader calls it.
        needs: Names of the jobs that must be done before it; one that the queue does not know was done earlier.
        errors: How often it ended in an error of its own; a lane that was lost does not count.
        stuck: How often in a row its workers died at one point of it, on nodes that live on.
        point: That point.
    """

    id: str
    plain: dict[str, Any]
    priority: list[float]
    encoder: str | None
    title: str = ""
    needs: list[str] = field(default_factory=list)
    errors: int = 0
    stuck: int = 0
    point: str = ""
    stopping: bool = False
    outcome: Outcome | None = None
    reason: str = ""

    @classmethod
    def of(cls, job: "Work", *priority: float, title: str = "") -> "QueuedJob":
        """Returns a job, or a search of stage two, as the queue takes it."""
        trains = getattr(job, "part", None) == "held_out" and job.recipe.encoder_key is not None
        encoder = f"{job.recipe.encoder_key}-{getattr(job, 'fold', '')}" if trains else None
        return cls(job.id, job.to_plain(), list(priority), encoder, title or job.id)
