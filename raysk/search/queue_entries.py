"""Entries of the job queue: jobs and lanes with their states."""

from dataclasses import dataclass, field

from raysk.search.jobs import JobProgress, JobRequest, Outcome


@dataclass
class QueuedJob:
    """A job and its state; it never leaves the queue.

    Args:
        request: Its first request.
        claims: The trials that want it done, and the best priority that each has given it; empty once it must stop.
        errors: Number of its own errors; lost lanes do not count.
        stuck: Number of successive deaths of its workers at the same point, on nodes that live on.
        point: That point.
        outcome: How it ended; None until then.
        reason: Why it is not done.
    """

    request: JobRequest
    claims: dict[int | None, tuple[float, ...]] = field(default_factory=dict)
    errors: int = 0
    stuck: int = 0
    point: str = ""
    outcome: Outcome | None = None
    reason: str = ""

    @property
    def id(self) -> str:
        """Name of the job."""
        return self.request.id

    @property
    def priority(self) -> tuple[float, ...]:
        """The best priority of all its claims."""
        return min(self.claims.values(), default=self.request.priority)

    @property
    def is_stopping(self) -> bool:
        """Whether its lane must stop it, since no trial wants it done."""
        return not self.claims

    def claim(self, request: JobRequest) -> None:
        """Adds the claim of the trial that requests it."""
        self.claims[request.trial] = min(self.claims.get(request.trial, request.priority), request.priority)


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
