"""The job queue and its leases: which lane does which job, without any Ray.

A job is queued once, leased to one lane at a time, and ends as done, failed, cancelled or broken. Trials that share a
recipe claim the same jobs; a job is cancelled once no trial claims it. Each worker group of
a lane has an incarnation number, and only the highest counts: requests and reports of earlier groups are void, and
their jobs return to the queue. So a request that a killed worker left behind can never swallow a job.

The queue lives in memory only. If it is lost, trials queue their jobs again, and lanes report the jobs that they hold.
"""

import time
from collections.abc import Callable

from raysk.search.jobs import JobProgress, JobRequest, LaneStatus, Order, Outcome, Priority, QueueStatus
from raysk.search.queue_entries import LaneState, QueuedJob


class JobQueue:
    """Hands out jobs, and takes them back from lanes that die.

    Args:
        max_errors: A job fails after this many errors of its own.
        max_stuck: A job fails after its workers died this many times in a row at the same point: it kills them.
        lease_seconds: A lane loses its job after this much silence.
        patience: Seconds after the end of a job in which no recipe without a score begins: the trial that waited for
            the job may submit better work.
        hold: Seconds after the start in which no job is handed out: after a restart, lanes at work report their jobs
            first.
        clock: Returns seconds, from any origin.
    """

    def __init__(
        self,
        max_errors: int = 3,
        max_stuck: int = 10,
        lease_seconds: float = 120.0,
        patience: float = 0.0,
        hold: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.max_errors, self.max_stuck, self.lease_seconds, self.patience, self.clock = (
            max_errors,
            max_stuck,
            lease_seconds,
            patience,
            clock,
        )
        self._last_end = -float("inf")
        self._held_until = clock() + hold if hold else -float("inf")
        self.jobs: dict[str, QueuedJob] = {}
        self.lanes: dict[int, LaneState] = {}
        self.waiting: list[QueuedJob] = []
        self.is_hurried = False
        self.is_closed = False

    def submit(self, request: JobRequest) -> None:
        """Queues a job, unless it is queued, at work or ended; a cancelled job is queued again.

        A job that is submitted several times has the best of its priorities, and every trial that submits it claims it.
        """
        queued = self.jobs.get(request.id)
        if queued is not None and queued.outcome is not Outcome.CANCELLED:
            queued.claim(request)
            return
        job = self.jobs[request.id] = _claimed(request)
        if self.is_closed:
            self._end(job, Outcome.CANCELLED)
        else:
            self.waiting.append(job)

    def cancel(self, job_id: str, trial: int | None = None) -> None:
        """Withdraws a trial's claim to a job.

        A job that no other trial claims leaves the queue, or its lane stops it after the present epoch.
        """
        job = self.jobs.get(job_id)
        if job is not None and job.outcome is None:
            job.claims.pop(trial, None)
            self._drop_unclaimed(job)

    def cancel_all(self, but_searches: bool = False) -> None:
        """Cancels every job that has not ended, whoever claims it.

        Args:
            but_searches: Leaves searches of stage two, which are short and complete what folds have cost.
        """
        for job in self.jobs.values():
            if job.outcome is None and not (but_searches and job.request.is_search):
                job.claims.clear()
                self._drop_unclaimed(job)

    def hurry(self) -> None:
        """Makes searches of stage two end with what they have."""
        self.is_hurried = True

    def close(self) -> None:
        """Cancels every job and makes the lanes leave."""
        self.is_closed = True
        self.cancel_all()

    def take(self, lane: int, incarnation: int) -> tuple[Order, JobRequest | None]:
        """Returns a lane's next order: work (with the job), wait, or leave."""
        state = self._current_group(lane, incarnation)
        if state is None or self.is_closed:
            return Order.LEAVE, None
        state.has_asked, state.has_worked = True, state.has_worked or state.has_asked
        self._take_back(state)
        if self.clock() < self._held_until:
            return Order.WAIT, None
        busy = {other.job.request.encoder for other in self.lanes.values() if other.job} - {None}
        ready = [job for job in self.waiting if job.request.encoder not in busy and self._needs_are_done(job)]
        if not ready:
            return Order.WAIT, None
        job = min(ready, key=lambda job: job.priority)
        if job.priority[0] == Priority.NEW and self.clock() - self._last_end < self.patience:
            return Order.WAIT, None
        self._lease(state, job)
        return Order.WORK, job.request

    def report(self, lane: int, incarnation: int, job: JobRequest, progress: JobProgress) -> Order:
        """Records a lane's progress; returns whether the lane goes on with its job, hurries or stops."""
        state = self._current_group(lane, incarnation, job)
        if state is None or state.job is None or state.job.id != job.id:
            return Order.STOP
        state.progress = progress
        if state.job.is_stopping or self.is_closed:
            return Order.STOP
        return Order.HURRY if self.is_hurried else Order.GO_ON

    def finish(self, lane: int, incarnation: int, job: JobRequest, outcome: Outcome, reason: str = "") -> None:
        """Records the end of a lane's job."""
        state = self._current_group(lane, incarnation, job)
        if state is None or state.job is None or state.job.id != job.id:
            return
        held = self._release(state)
        if outcome is Outcome.CANCELLED and held.claims:
            # Another trial has claimed it after its lane was told to stop.
            self.waiting.append(held)
        else:
            self._end(held, outcome, reason)
        self._last_end = self.clock()

    def crash(self, lane: int, incarnation: int, job: JobRequest, reason: str) -> None:
        """Records an error of a job, which is tried again until it has had `max_errors`."""
        state = self._current_group(lane, incarnation, job)
        if state is None or state.job is None or state.job.id != job.id:
            return
        self._blame(state, reason)

    def lose(self, lane: int, incarnation: int, error: str = "", is_suspect: bool = False) -> bool:
        """Takes back the job of a lost worker group; returns whether the group has worked.

        Args:
            lane: Number of the lane.
            incarnation: Number of the lost worker group.
            error: The job's error that ended the group; "" if the job was not at fault.
            is_suspect: Whether the job may be at fault, since the group's nodes live on.
        """
        state = self.lanes.get(lane)
        if state is not None and state.incarnation > incarnation:
            return True
        has_worked = state is not None and state.incarnation == incarnation and state.has_worked
        if state is not None and state.job is not None:
            if error:
                self._blame(state, error)
            elif is_suspect:
                self._suspect(state, state.job)
        self._replace(lane, incarnation).is_lost = True
        return has_worked

    def expire(self) -> None:
        """Takes back the jobs of silent lanes."""
        for state in self.lanes.values():
            if state.job is not None and self.clock() - state.last_heard > self.lease_seconds:
                self._take_back(state)

    def status(self) -> QueueStatus:
        """Returns the status for the display."""
        now = self.clock()
        lanes = [
            LaneStatus(
                lane=number,
                incarnation=state.incarnation,
                is_lost=state.is_lost,
                job=state.job.request.title if state.job else None,
                busy_seconds=state.busy_seconds + (now - state.since if state.job else 0.0),
                progress=state.progress,
            )
            for number, state in sorted(self.lanes.items())
        ]
        outcomes = [job.outcome for job in self.jobs.values()]
        ended = {outcome: outcomes.count(outcome) for outcome in Outcome}
        return QueueStatus(lanes=tuple(lanes), waiting=len(self.waiting), ended=ended)

    def _current_group(self, lane: int, incarnation: int, job: JobRequest | None = None) -> LaneState | None:
        """Returns the state of the worker group that calls; None if it has been replaced or lost.

        A group that calls for the first time is new, or older than the queue; an older one reports the job it holds.
        """
        state = self.lanes.get(lane)
        if state is None or incarnation > state.incarnation:
            state = self._replace(lane, incarnation)
            if job is not None and (job.id not in self.jobs or self.jobs[job.id] in self.waiting):
                self._lease(state, self.jobs.setdefault(job.id, _claimed(job)))
        elif incarnation < state.incarnation or state.is_lost:
            return None
        state.last_heard = self.clock()
        state.has_worked = state.has_worked or job is not None
        return state

    def _replace(self, lane: int, incarnation: int) -> LaneState:
        """Replaces a lane's worker group; the job of the earlier one returns to the queue."""
        before = self.lanes.get(lane)
        if before is not None:
            self._take_back(before)
        self.lanes[lane] = LaneState(incarnation, busy_seconds=before.busy_seconds if before else 0.0)
        return self.lanes[lane]

    def _lease(self, state: LaneState, job: QueuedJob) -> None:
        if job in self.waiting:
            self.waiting.remove(job)
        state.job, state.since, state.progress = job, self.clock(), JobProgress()

    def _needs_are_done(self, job: QueuedJob) -> bool:
        """Returns whether the jobs that a job needs are done; a job unknown to the queue was done earlier."""
        needed = (self.jobs.get(name) for name in job.request.needs)
        return all(other is None or other.outcome is Outcome.DONE for other in needed)

    def _take_back(self, state: LaneState) -> None:
        if state.job is None:
            return
        job = self._release(state)
        if job.is_stopping:
            self._end(job, Outcome.CANCELLED)
        else:
            self.waiting.append(job)

    def _blame(self, state: LaneState, reason: str) -> None:
        """Counts an error of a lane's job, which fails after `max_errors` and returns to the queue until then."""
        if state.job is None:
            return
        state.job.errors += 1
        if state.job.errors >= self.max_errors:
            job = self._release(state)
            self._end(job, Outcome.FAILED, f"given up after {job.errors} errors: {reason}")
        else:
            self._take_back(state)

    def _suspect(self, state: LaneState, job: QueuedJob) -> None:
        """Counts the death of a lane at a point of its job, which fails after `max_stuck` deaths at the same point."""
        point = f"{state.progress.stage} {state.progress.epoch}"
        job.stuck = job.stuck + 1 if point == job.point else 1
        job.point = point
        if job.stuck >= self.max_stuck:
            self._end(
                self._release(state), Outcome.FAILED, f"given up after its workers died {job.stuck} times at {point}"
            )

    def _drop_unclaimed(self, job: QueuedJob) -> None:
        if job.is_stopping and job in self.waiting:
            self._end(job, Outcome.CANCELLED)

    def _release(self, state: LaneState) -> QueuedJob:
        job = state.job
        if job is None:
            raise ValueError("the lane holds no job")
        state.busy_seconds += self.clock() - state.since
        state.job, state.progress = None, JobProgress()
        return job

    def _end(self, job: QueuedJob, outcome: Outcome, reason: str = "") -> None:
        if job in self.waiting:
            self.waiting.remove(job)
        job.outcome, job.reason = outcome, reason


def _claimed(request: JobRequest) -> QueuedJob:
    return QueuedJob(request, {request.trial: request.priority})
