"""The broker: the job queue as a Ray actor, found by its name, which trials and lanes talk to."""

import asyncio
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raysk.search.job_queue import JobQueue
from raysk.search.jobs import JobEnd, JobProgress, JobRequest, Order, QueueStatus

NAMESPACE = "raysk"
# Lanes send signs of life so often.
HEARTBEAT_S = 2.0
# A lane's question is answered within this time, with "wait" if need be, so that no request is ever left hanging.
_LONGEST_ANSWER_S = 2.0
# A trial hears of its job's end, and says what comes next, within a twentieth of a second on an idle machine.
_PATIENCE_S = 0.1


class Broker:
    """Feeds the lanes. Every method runs on one event loop, so the queue needs no lock.

    Ray starts a broker that died anew, and makes again whatever call it had not answered. So every call is safe to
    repeat, and those that wait bring along what the queue needs to know.
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

    async def cancel(self, job_ids: list[str]) -> None:
        """Cancels jobs; those at work end with their present epoch."""
        for job_id in job_ids:
            self.queue.cancel(job_id)
        await self._notify()

    async def cancel_all(self) -> None:
        """Cancels every job."""
        self.queue.cancel_all()
        await self._notify()

    async def close(self) -> None:
        """Cancels every job and sends the lanes home."""
        self.queue.close()
        await self._notify()

    async def outcome(self, jobs: list[JobRequest]) -> JobEnd:
        """Queues jobs, and waits until the first of them ends; returns how."""
        await self.submit(jobs)
        job = self.queue.jobs[jobs[0].id]
        async with self._changed:
            while job.outcome is None:
                await self._changed.wait()
        return JobEnd(outcome=job.outcome, reason=job.reason)

    async def take(self, lane: int, incarnation: int) -> tuple[Order, JobRequest | None]:
        """Gives a lane its next order: work (and the job), wait (ask again), or leave."""
        deadline = asyncio.get_running_loop().time() + _LONGEST_ANSWER_S
        while True:
            self.queue.expire()
            order, job = self.queue.take(lane, incarnation)
            left = deadline - asyncio.get_running_loop().time()
            if order is not Order.WAIT or left <= 0:
                return order, job
            async with self._changed:
                try:
                    await asyncio.wait_for(self._changed.wait(), min(left, _PATIENCE_S))
                except TimeoutError:
                    continue

    async def report(self, lane: int, incarnation: int, job: JobRequest, progress: JobProgress) -> Order:
        """Hears a sign of life; answers "go on" or "stop"."""
        return self.queue.report(lane, incarnation, job, progress)

    async def finish(self, lane: int, incarnation: int, job: JobRequest, end: JobEnd) -> None:
        """Hears how a job ended."""
        self.queue.finish(lane, incarnation, job, end.outcome, end.reason)
        await self._notify()

    async def crash(self, lane: int, incarnation: int, job: JobRequest, reason: str) -> None:
        """Hears that a job ended in an error that takes its lane along."""
        self.queue.crash(lane, incarnation, job, reason)
        await self._notify()

    async def lose(self, lane: int, incarnation: int, error: str, is_suspect: bool) -> bool:
        """Hears that a worker group is gone, and whether its job may be why; answers whether the group has worked."""
        has_worked = self.queue.lose(lane, incarnation, error, is_suspect)
        await self._notify()
        return has_worked

    async def status(self) -> QueueStatus:
        """Returns what the display shows."""
        return self.queue.status()

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()


def start_broker(name: str) -> Any:
    """Starts the broker of a study under a name of its own, on the driver's node: it dies with the driver only."""
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
