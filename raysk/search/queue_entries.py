"""Entries of the job queue: jobs and lanes with their states."""

from dataclasses import dataclass, field

from raysk.search.jobs import JobProgress, JobRequest, Outcome


@dataclass
class QueuedJob:
    """A job and its state; it never leaves the queue.

    Args:
        request: The request.
        priority: The best priority of all its requests.
        errors: Number of its own errors; lost lanes do not count.
        stuck: Number of successive deaths of its workers at the same point, on nodes that live on.
        point: That point.
        is_stopping: Whether its lane must stop it.
        outcome: How it ended; None until then.
        reason: Why it is not done.
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
        """Name of the job."""
        return self.request.id


@dataclass
class LaneState:
    """A lane as the queue sees it.

    Args:
        incarnation: Number of its worker group.
        job: The job that it holds.
        last_heard: When its main rank last called.
        since: When it took the job.
        progress: Its latest report on the job.
        busy_seconds: Time for which it has held jobs, without the present one.
        is_lost: Whether this worker group is gone.
        has_asked: Whether it has asked for a job.
        has_worked: Whether it has reported progress, or asked for a second time.
    """

    incarnation: int
    job: QueuedJob | None = None
    last_heard: float = 0.0
    since: float = 0.0
    progress: JobProgress = field(default_factory=JobProgress)
    busy_seconds: float = 0.0
    is_lost: bool = False
    has_asked: bool = False
    has_worked: bool = False
