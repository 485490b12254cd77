"""What trials, broker and lanes tell one another of jobs; light, so that their processes start at once."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING, Any

from raysk.records import Record

if TYPE_CHECKING:  # Neither trials nor the broker need torch, which these bring along.
    from raysk.run import Run
    from raysk.training.loop import Report
    from raysk.training.work import Work
    from raysk.training.world import World

# Does a job on every worker of a lane; it leaves the job's predictions and its line of the ledger in the run.
JobRunner = Callable[["Work", "Run", "World", "Report"], None]


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


@dataclass(frozen=True, kw_only=True)
class JobRequest(Record):
    """A job as a trial asks for it, as a lane gets it, and as the lane brings it back.

    Args:
        id: Its name, made from its content.
        work: What to do, in its JSON form.
        priority: Smaller is sooner.
        encoder: Name of the encoder that it trains or reads; two lanes never train the same one at once.
        title: What a reader calls it.
        needs: Names of the jobs that must be done before it; one that the queue does not know was done earlier.
    """

    id: str
    work: dict[str, Any]
    priority: tuple[float, ...]
    encoder: str | None = None
    title: str = ""
    needs: tuple[str, ...] = ()

    @classmethod
    def of(cls, work: "Work", *priority: float, title: str = "", needs: tuple[str, ...] = ()) -> "JobRequest":
        """Returns the request of a job, or of a search of stage two."""
        return cls(
            id=work.id,
            work=work.to_plain(),
            priority=priority,
            encoder=work.trained_encoder,
            title=title or work.id,
            needs=needs,
        )


@dataclass(frozen=True, kw_only=True)
class JobEnd(Record):
    """How a job ended.

    Args:
        outcome: Done, or what else.
        reason: Why, if it is not done.
    """

    outcome: Outcome
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class JobProgress(Record):
    """What a lane says of the job that it does.

    Args:
        stage: What it is at, such as "stage one".
        epochs: Of that stage.
        epoch: Epochs done.
        images: Images pushed through the network.
        seconds: Spent in training.
        probe: What the probe of stage one scored last.
        effective_rank: Directions that the features use.
        alarm: What is wrong with the features.
    """

    stage: str = "start"
    epochs: int = 0
    epoch: int = 0
    images: int = 0
    seconds: float = 0.0
    probe: float | None = None
    effective_rank: float | None = None
    alarm: str | None = None


@dataclass(frozen=True, kw_only=True)
class LaneStatus(Record):
    """A lane as the broker sees it.

    Args:
        lane: Its number.
        incarnation: Number of its worker group.
        is_lost: Whether that group is gone.
        job: What a reader calls the job that it holds; None if it holds none.
        busy_seconds: Time that it has held jobs.
        progress: What it last said of its job.
    """

    lane: int
    incarnation: int
    is_lost: bool
    job: str | None
    busy_seconds: float
    progress: JobProgress = JobProgress()


@dataclass(frozen=True, kw_only=True)
class QueueStatus(Record):
    """The queue as the display shows it.

    Args:
        lanes: All lanes that were heard.
        waiting: How many jobs wait.
        ended: How many jobs ended in which way.
    """

    lanes: tuple[LaneStatus, ...]
    waiting: int
    ended: dict[Outcome, int]


@dataclass(frozen=True, kw_only=True)
class LaneSettings:
    """What the workers of a lane are told.

    Args:
        lane: Its number.
        incarnation: Number of this worker group.
        broker: Name of the broker.
        run: The run directory.
        threads: Of torch in each worker; Ray would leave it at one.
        runner: What it does with a job; None trains, and benchmarks do nothing.
        loader: Processes that draw views beside each worker; None leaves it to the machine.
    """

    lane: int
    incarnation: int
    broker: str
    run: str
    threads: int
    runner: JobRunner | None = None
    loader: int | None = None
