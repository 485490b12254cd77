"""Messages about jobs between trials, broker and lanes; light, so that their processes start fast."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING, Any

from raysk.records import Record

if TYPE_CHECKING:  # These import torch, which neither trials nor the broker need.
    from raysk.run import Run
    from raysk.training.loop import Report
    from raysk.training.work import Work
    from raysk.training.world import World

# Does a job on every worker of a lane, and writes its predictions and its record to the run directory.
JobRunner = Callable[["Work", "Run", "World", "Report"], None]


class Priority(IntEnum):
    """Priority in the queue; smaller is sooner."""

    FIXED = 0
    """A recipe that runs all its folds, whatever their scores."""
    SCORED = 1
    """A raced recipe with a score."""
    NEW = 2
    """A raced recipe without a score."""


class Outcome(StrEnum):
    """How a job ended."""

    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    BROKEN = "broken"
    """A file could not be read or written: the recipe is not to blame, and the next job would fail too."""


class Order(StrEnum):
    """The broker's answer to a lane's request or report."""

    WORK = "work"
    WAIT = "wait"
    GO_ON = "go on"
    HURRY = "hurry"
    STOP = "stop"
    LEAVE = "leave"


@dataclass(frozen=True, kw_only=True)
class JobRequest(Record):
    """A job as a trial submits it, as a lane receives it, and as the lane returns it.

    Args:
        id: Its name, derived from its content.
        work: The work, in its JSON form.
        priority: Smaller is sooner.
        encoder: Name of the encoder that it trains; two lanes never train the same one at once.
        title: Display name.
        needs: Names of the jobs that must be done first; a job unknown to the queue was done earlier.
        trial: Number of the trial that wants it done; None for the study itself.
    """

    id: str
    work: dict[str, Any]
    priority: tuple[float, ...]
    encoder: str | None = None
    title: str = ""
    needs: tuple[str, ...] = ()
    trial: int | None = None

    @property
    def is_search(self) -> bool:
        """Whether it is a search of stage two."""
        return bool(self.work.get("kind") == "stage-two search")

    @classmethod
    def of(
        cls, work: "Work", *priority: float, title: str = "", needs: tuple[str, ...] = (), trial: int | None = None
    ) -> "JobRequest":
        """Returns the request of a job, or of a search of stage two."""
        return cls(
            id=work.id,
            work=work.to_plain(),
            priority=priority,
            encoder=work.trained_encoder,
            title=title or work.id,
            needs=needs,
            trial=trial,
        )


@dataclass(frozen=True, kw_only=True)
class JobEnd(Record):
    """How a job ended.

    Args:
        outcome: Done, failed, cancelled or broken.
        reason: Why it is not done.
    """

    outcome: Outcome
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class JobProgress(Record):
    """A lane's progress with its job.

    Args:
        stage: The present stage, such as "stage one".
        epochs: Epochs of that stage.
        epoch: Epochs done.
        images: Images passed through the network.
        seconds: Training time.
        probe: Latest score of stage one's probe.
        linear_probe: Latest score of the linear probe.
        neighbour_probe: Latest score of the probe by neighbours.
        effective_rank: Number of directions that the features use.
        alarm: What is wrong with the features.
    """

    stage: str = "start"
    epochs: int = 0
    epoch: int = 0
    images: int = 0
    seconds: float = 0.0
    probe: float | None = None
    linear_probe: float | None = None
    neighbour_probe: float | None = None
    effective_rank: float | None = None
    alarm: str | None = None


@dataclass(frozen=True, kw_only=True)
class LaneStatus(Record):
    """A lane as the broker sees it.

    Args:
        lane: Its number.
        incarnation: Number of its worker group.
        is_lost: Whether that group is gone.
        job: Display name of the job that it holds; None if it holds none.
        busy_seconds: Time for which it has held jobs.
        progress: Its latest report on the job.
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
        lanes: All known lanes.
        waiting: Number of waiting jobs.
        ended: Number of ended jobs, by outcome.
    """

    lanes: tuple[LaneStatus, ...]
    waiting: int
    ended: dict[Outcome, int]


@dataclass(frozen=True, kw_only=True)
class LaneSettings:
    """Settings of a lane's workers.

    Args:
        lane: Number of the lane.
        incarnation: Number of this worker group.
        broker: Name of the broker.
        run: The run directory.
        threads: Torch threads of each worker; Ray's default is one.
        runner: Does a job; None trains, and benchmarks do nothing.
        loader: Number of loader processes beside each worker; None leaves it to the machine.
    """

    lane: int
    incarnation: int
    broker: str
    run: str
    threads: int
    runner: JobRunner | None = None
    loader: int | None = None
