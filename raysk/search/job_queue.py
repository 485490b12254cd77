"""The queue of jobs and the leases on them: which lane does what, without Ray in sight.

A job is queued once, leased to one lane at a time, and ends as done, failed or cancelled. Each worker group of a lane
has an incarnation number, and the highest one counts: whatever an earlier group still asks or says is void, and its
job goes back to the queue. So a request that a killed worker left behind can never swallow a job.

The queue lives in memory only. If it is lost, trials queue their jobs again, and lanes bring the jobs that they hold.
"""

import time
from collections.abc import Callable

from raysk.search.jobs import JobProgress, JobRequest, LaneStatus, Order, Outcome, Priority, QueueStatus
from raysk.search.queue_entries import LaneState, QueuedJob


class JobQueue:
    """Hands out jobs, and takes them back from lanes that die.

    Args:
        max_errors: A job that ended so often in an error of its own has failed.
        max_stuck: A job whose workers died so often in a row at the same point has failed: it kills them.
        lease_seconds: A lane that was silent for so long loses its job.
        patience: Seconds after the end of a job in which none of a recipe without a score is begun: whoever waited for
            that job may have better work.
        hold: Seconds after its start in which the queue hands out nothing: lanes that were at work before it was
            started anew bring their jobs first.
        clock: Seconds, from any start.
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
        self.is_closed = False

    def submit(self, request: JobRequest) -> None:
        """Queues a job, unless one of that name is queued, at work or done; a cancelled one is queued again.

        A job that several ask for gets the best of their priorities.
        """
        queued = self.jobs.get(request.id)
        if queued is not None and queued.outcome is not Outcome.CANCELLED:
            queued.priority = min(queued.priority, request.priority)
            return
        job = self.jobs[request.id] = QueuedJob(request, request.priority)
        if self.is_closed:
            self._end(job, Outcome.CANCELLED)
        else:
            self.waiting.append(job)

    def cancel(self, job_id: str) -> None:
        """Takes a job out of the queue, or tells its lane to leave it after the present epoch."""
        job = self.jobs.get(job_id)
        if job is None or job.outcome is not None:
            return
        job.is_stopping = True
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

    def take(self, lane: int, incarnation: int) -> tuple[Order, JobRequest | None]:
        """Gives a lane the next job, or tells it to wait or to leave."""
        state = self._speaker(lane, incarnation)
        if state is None or self.is_closed:
            return Order.LEAVE, None
        state.has_asked, state.has_worked = True, state.has_worked or state.has_asked
        self._take_back(state)
        if self.clock() < self._held_until:
            return Order.WAIT, None
        busy = {other.job.request.encoder for other in self.lanes.values() if other.job} - {None}
        ready = [job for job in self.waiting if job.request.encoder not in busy and self._has_what_it_needs(job)]
        if not ready:
            return Order.WAIT, None
        job = min(ready, key=lambda job: job.priority)
        if job.priority[0] == Priority.NEW and self.clock() - self._last_end < self.patience:
            return Order.WAIT, None
        self._lease(state, job)
        return Order.WORK, job.request

    def report(self, lane: int, incarnation: int, job: JobRequest, progress: JobProgress) -> Order:
        """Hears a sign of life from a lane, and tells it whether to go on with its job."""
        state = self._speaker(lane, incarnation, job)
        if state is None or state.job is None or state.job.id != job.id:
            return Order.STOP
        state.progress = progress
        return Order.STOP if state.job.is_stopping or self.is_closed else Order.GO_ON

    def finish(self, lane: int, incarnation: int, job: JobRequest, outcome: Outcome, reason: str = "") -> None:
        """Hears how a lane's job ended."""
        state = self._speaker(lane, incarnation, job)
        if state is None or state.job is None or state.job.id != job.id:
            return
        self._end(self._release(state), outcome, reason)
        self._last_end = self.clock()

    def crash(self, lane: int, incarnation: int, job: JobRequest, reason: str) -> None:
        """Hears that a job ended in an error of its own; it is tried again until it has done so too often."""
        state = self._speaker(lane, incarnation, job)
        if state is None or state.job is None or state.job.id != job.id:
            return
        self._blame(state, reason)

    def lose(self, lane: int, incarnation: int, error: str = "", is_suspect: bool = False) -> bool:
        """Takes back the job of a worker group that is gone; returns whether the group has worked.

        Args:
            error: What the job did to the group, if it was the job's fault.
            is_suspect: Whether the job may have been at fault, since its nodes live on.
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
        """Takes back the jobs of lanes that have gone silent."""
        for state in self.lanes.values():
            if state.job is not None and self.clock() - state.heard > self.lease_seconds:
                self._take_back(state)

    def status(self) -> QueueStatus:
        """Returns what the display shows."""
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

    def _speaker(self, lane: int, incarnation: int, job: JobRequest | None = None) -> LaneState | None:
        """Returns the state of a worker group that speaks; None if it is replaced or counts as lost.

        A group that is heard for the first time is new, or older than the queue; then it brings the job that it holds.
        """
        state = self.lanes.get(lane)
        if state is None or incarnation > state.incarnation:
            state = self._replace(lane, incarnation)
            if job is not None and (job.id not in self.jobs or self.jobs[job.id] in self.waiting):
                self._lease(state, self.jobs.setdefault(job.id, QueuedJob(job, job.priority)))
        elif incarnation < state.incarnation or state.is_lost:
            return None
        state.heard = self.clock()
        state.has_worked = state.has_worked or job is not None
        return state

    def _replace(self, lane: int, incarnation: int) -> LaneState:
        """Puts a worker group in the place of an earlier one, whose job goes back."""
        before = self.lanes.get(lane)
        if before is not None:
            self._take_back(before)
        self.lanes[lane] = LaneState(incarnation, busy_seconds=before.busy_seconds if before else 0.0)
        return self.lanes[lane]

    def _lease(self, state: LaneState, job: QueuedJob) -> None:
        if job in self.waiting:
            self.waiting.remove(job)
        state.job, state.since, state.progress = job, self.clock(), JobProgress()

    def _has_what_it_needs(self, job: QueuedJob) -> bool:
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
        """Counts an error of the job that a lane holds; it has failed after so many, and goes back until then."""
        if state.job is None:
            return
        state.job.errors += 1
        if state.job.errors >= self.max_errors:
            job = self._release(state)
            self._end(job, Outcome.FAILED, f"given up after {job.errors} errors: {reason}")
        else:
            self._take_back(state)

    def _suspect(self, state: LaneState, job: QueuedJob) -> None:
        """Counts a death of a lane at a point of its job; the job has failed after so many at the same one."""
        point = f"{state.progress.stage} {state.progress.epoch}"
        job.stuck = job.stuck + 1 if point == job.point else 1
        job.point = point
        if job.stuck >= self.max_stuck:
            self._end(
                self._release(state), Outcome.FAILED, f"given up after its workers died {job.stuck} times at {point}"
            )

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
