"""What the queue knows of its jobs and of the lanes."""

from dataclasses import dataclass, field

from raysk.search.jobs import JobProgress, JobRequest, Outcome


@dataclass
class QueuedJob:
    """A job and what has become of it; it never leaves the queue.

    Args:
        request: What was asked for.
        priority: The best that anyone has asked for.
        errors: How often it ended in an error of its own; a lane that was lost does not count.
        stuck: How often in a row its workers died at one point of it, on nodes that live on.
        point: That point.
        is_stopping: Whether its lane is to leave it.
        outcome: How it ended; None until then.
        reason: Why, if it is not done.
    """

    request: JobRequest
    priority: tuple[float, ...]
    errors: int = 0
    stuck: int = 0
    point: str = ""
    is_stopping: bool = False
    outcome: Outcome | None = None
    reason: str = ""

    @property
    def id(self) -> str:
        """Its name."""
        return self.request.id


@dataclass
class LaneState:
    """A lane as the queue sees it.

    Args:
        incarnation: Number of its worker group.
        job: The job that it holds.
        heard: When its main rank last spoke.
        since: When it took the job.
        progress: What it last said of its job.
        busy_seconds: Time that it has held jobs, the present one not counted.
        is_lost: Whether this worker group is gone.
        has_asked: Whether it has asked for a job.
        has_worked: Whether it ever said how a job goes, or asked a second time.
    """

    incarnation: int
    job: QueuedJob | None = None
    heard: float = 0.0
    since: float = 0.0
    progress: JobProgress = field(default_factory=JobProgress)
    busy_seconds: float = 0.0
    is_lost: bool = False
    has_asked: bool = False
    has_worked: bool = False
