"""The loop of every worker of a lane: requests a job from the broker, does it, reports its end, and repeats."""

import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
import torch
from ray.exceptions import RayError
from ray.train.torch import get_device

from raysk.errors import ArtifactError, RayskError
from raysk.run import Run
from raysk.search.broker import HEARTBEAT_S, find_broker
from raysk.search.jobs import JobEnd, JobProgress, JobRequest, JobRunner, LaneSettings, Order, Outcome
from raysk.training.loop import StageProgress
from raysk.training.work import Work, do_work, work_from_plain
from raysk.training.world import World, is_lost_contact

logger = logging.getLogger(__name__)


class JobStopped(Exception):  # noqa: N818 - stopping a job is no error
    """The broker stopped the job; raised on all ranks together."""


def lane_loop(lane: LaneSettings) -> None:
    """Does jobs until the broker tells the lane to leave."""
    world = World.current(get_device(), lane.loader)
    run = Run.open(Path(lane.run))
    _log_to(run.folder / "logs" / f"lane{lane.lane}-rank{world.rank}.log")
    torch.set_num_threads(lane.threads)
    client = BrokerClient(find_broker(lane.broker), lane.lane, lane.incarnation, world)
    while True:
        order, job = client.next_order()
        if order == Order.LEAVE:
            return
        if job is not None:
            _do(job, run, client, lane.runner or do_work)


@dataclass
class BrokerClient:
    """A rank's connection to the broker: the main rank requests and reports, any rank may report an error.

    Args:
        broker: Handle of the broker.
        lane: Number of the lane.
        incarnation: Number of its worker group.
        world: Its workers.
        job: The job that the group holds.
        progress: The progress with that job.
    """

    broker: Any
    lane: int
    incarnation: int
    world: World
    job: JobRequest | None = None
    progress: JobProgress = field(default_factory=JobProgress)

    def next_order(self) -> tuple[Order, Work | None]:
        """Requests an order on the main rank, and broadcasts it to all ranks."""
        answer = ""
        if self.world.is_main_rank:
            order, job = ray.get(self.broker.take.remote(self.lane, self.incarnation))
            answer = json.dumps([order, job.to_plain() if job else None])
        word, plain = json.loads(self.world.broadcast_text(answer))
        self.job = JobRequest.from_plain(plain, "a job from the broker") if plain else None
        self.progress = JobProgress()
        return Order(word), work_from_plain(self.job.work) if self.job else None

    def report(self, progress: StageProgress) -> bool:
        """Reports an epoch to the broker, and returns on all ranks whether time is short.

        Raises:
            JobStopped: The broker stops the job; raised on all ranks.
        """
        health = progress.health[-1] if progress.health else None
        self.progress = JobProgress(
            stage=progress.stage,
            epochs=progress.epochs,
            epoch=progress.epoch,
            images=progress.images,
            seconds=progress.seconds,
            probe=health.probe if health else None,
            linear_probe=health.linear_probe if health else None,
            neighbour_probe=health.neighbour_probe if health else None,
            effective_rank=health.effective_rank if health else None,
            alarm=health.alarm if health else None,
        )
        order = Order(self.world.broadcast_text(self._beat() if self.world.is_main_rank else ""))
        if order is Order.STOP:
            raise JobStopped
        return order is Order.HURRY

    def finish(self, end: JobEnd) -> None:
        """Reports the end of the job to the broker."""
        self._call("finish", end)

    def crash(self, reason: str) -> None:
        """Reports an error that ends this worker group to the broker."""
        self._call("crash", reason)

    @contextmanager
    def heartbeat(self) -> Iterator[None]:
        """Sends heartbeats from a thread of the main rank while the block runs."""
        over = threading.Event()

        def beat() -> None:
            # A broker that cannot be restarted ends the whole study; nothing is left to report to.
            with suppress(RayError):
                while not over.wait(HEARTBEAT_S):
                    self._beat()

        thread = threading.Thread(target=beat, daemon=True)
        if self.world.is_main_rank:
            thread.start()
        try:
            yield
        finally:
            over.set()

    def _beat(self) -> Order:
        order: Order = self._call("report", self.progress)
        return order

    def _call(self, method: str, *arguments: Any) -> Any:
        return ray.get(getattr(self.broker, method).remote(self.lane, self.incarnation, self.job, *arguments))


def _do(job: Work, run: Run, client: BrokerClient, runner: JobRunner) -> None:
    """Does one job on this rank, and reports its end to the broker."""
    logger.info("begin %s", job.id)
    try:
        with client.heartbeat():
            runner(job, run, client.world, client.report)
    except JobStopped:
        end = JobEnd(outcome=Outcome.CANCELLED)
    except RayskError as error:
        outcome = Outcome.BROKEN if isinstance(error, ArtifactError) else Outcome.FAILED
        end = JobEnd(outcome=outcome, reason=str(error))
        if client.world.size > 1:
            # Other ranks may be waiting for this one: the group dies, and a new one takes the next job.
            _log_end(job, end)
            client.finish(end)
            raise
    except Exception as error:
        logger.exception("crash %s", job.id)
        # A rank that only lost contact is not the one that failed: its job begins again, however often.
        if not is_lost_contact(error):
            client.crash(f"{type(error).__name__}: {error}")
        raise
    else:
        end = JobEnd(outcome=Outcome.DONE)
    if client.world.is_main_rank:
        _log_end(job, end)
        client.finish(end)


def _log_end(job: Work, end: JobEnd) -> None:
    logger.info("%s %s %s", end.outcome, job.id, end.reason)


def _log_to(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s pid %(process)d %(levelname)s %(message)s"))
    package = logging.getLogger("raysk")
    package.handlers = [handler]
    package.setLevel(logging.INFO)
