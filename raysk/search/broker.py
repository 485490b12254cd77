"""The broker: the job queue as a named Ray actor, which trials and lanes call."""

import asyncio
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raysk.search.job_queue import JobQueue
from raysk.search.jobs import JobEnd, JobProgress, JobRequest, Order, Outcome, QueueStatus

NAMESPACE = "raysk"
# Interval of the lanes' heartbeats.
HEARTBEAT_S = 2.0
# A lane's request is answered within this time, with "wait" if necessary, so that no request hangs.
_LONGEST_ANSWER_S = 2.0
# On an idle machine a trial receives its job's end and updates its priorities within a twentieth of a second.
_PATIENCE_S = 0.1


class Broker:
    """Hands out jobs to the lanes. Every method runs on one event loop, so the queue needs no lock.

    Ray restarts a broker that died and repeats the calls that it had not answered. So every call is safe to repeat, and
    the calls that wait carry what a new queue needs to know.
    """

    def __init__(self) -> None:
        is_restarted = ray.get_runtime_context().was_current_actor_reconstructed
        self.queue = JobQueue(patience=_PATIENCE_S, hold=2 * HEARTBEAT_S if is_restarted else 0.0)
        self._changed = asyncio.Condition()

    async def submit(self, jobs: list[JobRequest]) -> None:
        """Queues jobs."""
        for job in jobs:
            self.queue.submit(job)
        await self._notify()

    async def cancel(self, job_ids: list[str], trial: int | None = None) -> None:
        """Withdraws a trial's claim to jobs; running jobs that no other trial claims end after their present epoch."""
        for job_id in job_ids:
            self.queue.cancel(job_id, trial)
        await self._notify()

    async def cancel_all(self, but_searches: bool = False) -> None:
        """Cancels every job, or every job but the searches of stage two."""
        self.queue.cancel_all(but_searches)
        await self._notify()

    async def hurry(self) -> None:
        """Makes searches of stage two end with what they have."""
        self.queue.hurry()

    async def close(self) -> None:
        """Cancels every job and tells the lanes to leave."""
        self.queue.close()
        await self._notify()

    async def outcome(self, jobs: list[JobRequest]) -> JobEnd:
        """Queues a trial's jobs, waits until the first of them ends, and returns its end.

        If the trial withdraws its claim and another trial goes on with the job, the job is cancelled for this trial.
        """
        await self.submit(jobs)
        job, trial = self.queue.jobs[jobs[0].id], jobs[0].trial
        async with self._changed:
            while job.outcome is None and (job.is_stopping or trial in job.claims):
                await self._changed.wait()
        return JobEnd(outcome=job.outcome or Outcome.CANCELLED, reason=job.reason)

    async def take(self, lane: int, incarnation: int) -> tuple[Order, JobRequest | None]:
        """Returns a lane's next order: work (with the job), wait (ask again), or leave."""
        deadline = asyncio.get_running_loop().time() + _LONGEST_ANSWER_S
        while True:
            self.queue.expire()
            order, job = self.queue.take(lane, incarnation)
            remaining = deadline - asyncio.get_running_loop().time()
            if order is not Order.WAIT or remaining <= 0:
                return order, job
            async with self._changed:
                try:
                    await asyncio.wait_for(self._changed.wait(), min(remaining, _PATIENCE_S))
                except TimeoutError:
                    continue

    async def report(self, lane: int, incarnation: int, job: JobRequest, progress: JobProgress) -> Order:
        """Records a lane's heartbeat; returns "go on", "hurry" or "stop"."""
        return self.queue.report(lane, incarnation, job, progress)

    async def finish(self, lane: int, incarnation: int, job: JobRequest, end: JobEnd) -> None:
        """Records the end of a job."""
        self.queue.finish(lane, incarnation, job, end.outcome, end.reason)
        await self._notify()

    async def crash(self, lane: int, incarnation: int, job: JobRequest, reason: str) -> None:
        """Records an error of a job that ends its worker group."""
        self.queue.crash(lane, incarnation, job, reason)
        await self._notify()

    async def lose(self, lane: int, incarnation: int, error: str, is_suspect: bool) -> bool:
        """Records the loss of a worker group, and whether its job may be the cause; returns whether it has worked."""
        has_worked = self.queue.lose(lane, incarnation, error, is_suspect)
        await self._notify()
        return has_worked

    async def status(self) -> QueueStatus:
        """Returns the status for the display."""
        return self.queue.status()

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()


def start_broker(name: str) -> Any:
    """Starts the broker of a study as a named actor on the driver's node, so that it dies only with the driver."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor = ray.remote(Broker).options(
        name=name,
        namespace=NAMESPACE,
        num_cpus=0,
        max_concurrency=10_000,
        max_restarts=-1,
        max_task_retries=-1,
        scheduling_strategy=here,
    )
    return actor.remote()


def find_broker(name: str) -> Any:
    """Returns the broker of a study, from any process of the cluster."""
    return ray.get_actor(name, namespace=NAMESPACE)
