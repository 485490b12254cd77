"""The queue of jobs and the leases on them: which lane does what, without Ray in sight.

A job is queued once, leased to one lane at a time, and ends as done, failed or cancelled. A lane that restarts joins
anew under a higher incarnation number; whatever an earlier incarnation of it still asks or says is void, and its lease
goes back to the queue. So a request that a killed worker left behind can never swallow a job.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # The broker needs no torch, which a recipe brings along.
    from raysk.training.work import Work


class Turn(IntEnum):
    """Whose turn it is, sooner first."""

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
    """

    id: str
    plain: dict[str, Any]
    priority: list[float]
    encoder: str | None
    title: str = ""
    needs: list[str] = field(default_factory=list)
    attempts: int = 0
    stopping: bool = False
    outcome: Outcome | None = None
    reason: str = ""

    @classmethod
    def of(cls, job: "Work", *priority: float, title: str = "") -> "QueuedJob":
        """Returns a job, or a search of stage two, as the queue takes it."""
        trains = getattr(job, "part", None) == "held_out" and job.recipe.encoder_key is not None
        encoder = f"{job.recipe.encoder_key}-{getattr(job, 'fold', '')}" if trains else None
        return cls(job.id, job.to_plain(), list(priority), encoder, title or job.id)


@dataclass
class LaneState:
    """A lane as the queue sees it.

    Args:
        incarnation: How often its worker group has started.
        job: The job that it holds.
        heard: When its chief last spoke.
        progress: What it last said of its job.
        busy_seconds: Time that it has held jobs, the present one not counted.
    """

    incarnation: int = 0
    job: QueuedJob | None = None
    heard: float = 0.0
    since: float = 0.0
    progress: dict[str, Any] = field(default_factory=dict)
    busy_seconds: float = 0.0


class JobQueue:
    """Hands out jobs, and takes them back from lanes that die.

    Args:
        max_attempts: A job that was handed out so often without an end has failed.
        lease_seconds: A lane that was silent for so long loses its job.
        patience: Seconds after the end of a job in which none of a recipe without a score is begun: whoever waited for
            that job may have better work.
        clock: Seconds, from any start.
    """

    def __init__(
        self,
        max_attempts: int = 3,
        lease_seconds: float = 120.0,
        patience: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.max_attempts, self.lease_seconds, self.patience, self.clock = max_attempts, lease_seconds, patience, clock
        self._last_end = -float("inf")
        self.jobs: dict[str, QueuedJob] = {}
        self.lanes: dict[int, LaneState] = {}
        self.waiting: list[QueuedJob] = []
        self.is_closed = False

    def submit(self, job: QueuedJob) -> None:
        """Queues a job, unless one of that name is queued, at work or done; a cancelled one is queued again.

        One that is known already comes as soon as any who asked for it wants it.
        """
        known = self.jobs.get(job.id)
        if known is not None and known.outcome is not Outcome.CANCELLED:
            known.priority = min(known.priority, job.priority)
            return
        self.jobs[job.id] = job
        if self.is_closed:
            self._end(job, Outcome.CANCELLED)
        else:
            self.waiting.append(job)

    def cancel(self, job_id: str) -> None:
        """Takes a job out of the queue, or has its lane leave it after the present epoch."""
        job = self.jobs.get(job_id)
        if job is None or job.outcome is not None:
            return
        job.stopping = True
        if job in self.waiting:
            self._end(job, Outcome.CANCELLED)

    def cancel_all(self) -> None:
        """Cancels every job that has not ended."""
        for job_id in list(self.jobs):
            self.cancel(job_id)

    def close(self) -> None:
        """Cancels everything and sends the lanes home."""
        self.is_closed = True
        self.cancel_all()

    def join(self, lane: int) -> int:
        """Returns the incarnation number of a worker group that has just started; its predecessor's job goes back."""
        state = self.lanes.setdefault(lane, LaneState())
        self._take_back(state, "its lane died")
        state.incarnation += 1
        state.heard = self.clock()
        return state.incarnation

    def take(self, lane: int, incarnation: int) -> tuple[Order, QueuedJob | None]:
        """Gives a lane the next job, or tells it to wait or to leave."""
        state = self.lanes[lane]
        if incarnation != state.incarnation or self.is_closed:
            return Order.LEAVE, None
        state.heard = self.clock()
        self._take_back(state, "its lane asked for another")
        busy = {other.job.encoder for other in self.lanes.values() if other.job and other.job.encoder}
        ready = [job for job in self.waiting if job.encoder not in busy and self._has_what_it_needs(job)]
        if not ready:
            return Order.WAIT, None
        job = min(ready, key=lambda job: job.priority)
        if job.priority[0] == Turn.NEW and self.clock() - self._last_end < self.patience:
            return Order.WAIT, None
        self.waiting.remove(job)
        job.attempts += 1
        state.job, state.since, state.progress = job, self.clock(), {}
        return Order.WORK, job

    def report(self, lane: int, incarnation: int, progress: dict[str, Any]) -> Order:
        """Hears a sign of life from a lane, and tells it whether to go on with its job."""
        state = self.lanes[lane]
        if incarnation != state.incarnation or state.job is None:
            return Order.STOP
        state.heard, state.progress = self.clock(), progress
        return Order.STOP if state.job.stopping else Order.GO_ON

    def finish(self, lane: int, incarnation: int, job_id: str, outcome: Outcome, reason: str = "") -> None:
        """Hears how a lane's job ended."""
        state = self.lanes[lane]
        if incarnation != state.incarnation or state.job is None or state.job.id != job_id:
            return
        job = self._release(state)
        self._end(job, outcome, reason)
        self._last_end = self.clock()

    def crash(self, lane: int, incarnation: int, reason: str) -> None:
        """Hears why a lane is about to die; its job goes back."""
        state = self.lanes[lane]
        if incarnation == state.incarnation:
            self._take_back(state, reason)

    def expire(self) -> None:
        """Takes back the jobs of lanes that have gone silent."""
        for state in self.lanes.values():
            if state.job is not None and self.clock() - state.heard > self.lease_seconds:
                self._take_back(state, f"its lane was silent for {self.lease_seconds:g} s")

    def _has_what_it_needs(self, job: QueuedJob) -> bool:
        needed = (self.jobs.get(name) for name in job.needs)
        return all(one is None or one.outcome is Outcome.DONE for one in needed)

    def _take_back(self, state: LaneState, reason: str) -> None:
        if state.job is None:
            return
        job = self._release(state)
        if job.stopping:
            self._end(job, Outcome.CANCELLED)
        elif job.attempts >= self.max_attempts:
            self._end(job, Outcome.FAILED, f"given up after {job.attempts} attempts: {reason}")
        else:
            self.waiting.append(job)

    def _release(self, state: LaneState) -> QueuedJob:
        job = state.job
        if job is None:
            raise ValueError("the lane holds no job")
        state.busy_seconds += self.clock() - state.since
        state.job, state.progress = None, {}
        return job

    def _end(self, job: QueuedJob, outcome: Outcome, reason: str = "") -> None:
        if job in self.waiting:
            self.waiting.remove(job)
        job.outcome, job.reason = outcome, reason
