"""What every worker of a lane runs: it asks the broker for a job, does it, says how it ended, and asks again."""

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


class JobStopped(Exception):  # noqa: N818 - leaving a job is no error
    """The broker wants the job left; raised on all ranks together."""


def lane_loop(lane: LaneSettings) -> None:
    """Does jobs until the broker sends the lane home."""
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
    """A rank's side of the talk with the broker: the main rank asks and reports, any rank may say why it fails.

    Args:
        broker: Handle of the broker.
        lane: Number of the lane.
        incarnation: Number of its worker group.
        world: Its workers.
        job: The job that the group holds.
        progress: What is known of it.
    """

    broker: Any
    lane: int
    incarnation: int
    world: World
    job: JobRequest | None = None
    progress: JobProgress = field(default_factory=JobProgress)

    def next_order(self) -> tuple[Order, Work | None]:
        """Asks on the main rank, and tells every rank."""
        answer = ""
        if self.world.is_main_rank:
            order, job = ray.get(self.broker.take.remote(self.lane, self.incarnation))
            answer = json.dumps([order, job.to_plain() if job else None])
        word, plain = json.loads(self.world.broadcast_text(answer))
        self.job = JobRequest.from_plain(plain, "a job from the broker") if plain else None
        self.progress = JobProgress()
        return Order(word), work_from_plain(self.job.work) if self.job else None

    def report(self, progress: StageProgress) -> None:
        """Tells the broker of an epoch; raises `JobStopped` on all ranks when the job is to be left."""
        health = progress.health[-1] if progress.health else None
        self.progress = JobProgress(
            stage=progress.stage,
            epochs=progress.epochs,
            epoch=progress.epoch,
            images=progress.images,
            seconds=progress.seconds,
            probe=health.probe if health else None,
            effective_rank=health.effective_rank if health else None,
            alarm=health.alarm if health else None,
        )
        if self.world.agree(self.world.is_main_rank and self._beat()):
            raise JobStopped

    def finish(self, end: JobEnd) -> None:
        """Tells the broker how the job ended."""
        self._tell("finish", end)

    def crash(self, reason: str) -> None:
        """Tells the broker of an error that takes this worker group along."""
        self._tell("crash", reason)

    @contextmanager
    def heartbeat(self) -> Iterator[None]:
        """Sends signs of life from the main rank, in a thread, while the block runs."""
        over = threading.Event()

        def beat() -> None:
            # A broker that cannot be started anew takes the whole study with it; there is nobody left to tell.
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

    def _beat(self) -> bool:
        return bool(self._tell("report", self.progress) == Order.STOP)

    def _tell(self, what: str, *words: Any) -> Any:
        return ray.get(getattr(self.broker, what).remote(self.lane, self.incarnation, self.job, *words))


def _do(job: Work, run: Run, client: BrokerClient, runner: JobRunner) -> None:
    """Does one job on this rank, and tells the broker how it ended."""
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
            # Other ranks may be waiting for this one: the group dies, and the next job finds a new one.
            _log_end(job, end)
            client.finish(end)
            raise
    except Exception as error:
        logger.exception("crash %s", job.id)
        # A rank that has only lost contact is not the one that failed: its job is begun again, however often.
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
