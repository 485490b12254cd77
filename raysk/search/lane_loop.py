"""What every worker of a lane runs: it asks the broker for a job, does it, says how it ended, and asks again."""

import json
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import ray
import torch
from ray.exceptions import RayError
from ray.train.torch import get_device

from raysk.errors import ArtifactError, RayskError
from raysk.run import Run
from raysk.search.broker import HEARTBEAT_S, find_broker
from raysk.search.jobs import Order, Outcome, QueuedJob
from raysk.training.loop import Progress, Report
from raysk.training.work import Work, do_work, work_from_plain
from raysk.training.world import World, is_lost_contact

logger = logging.getLogger(__name__)

# Does a job on every worker of a lane; it leaves the job's predictions and its line of the ledger in the run.
JobRunner = Callable[[Work, Run, World, Report], None]


class JobStopped(Exception):  # noqa: N818 - leaving a job is no error
    """The broker wants the job left; raised on all ranks together."""


@dataclass(frozen=True)
class LaneSettings:
    """What the workers of a lane are told.

    Args:
        lane: Its number.
        incarnation: Number of this worker group.
        broker: Name of the broker.
        run: The run directory.
        threads: Of torch in each worker; Ray would leave it at one.
        runner: What it does with a job; None trains, and benchmarks have it do nothing.
        loader: Processes that draw views beside each worker; None leaves it to the machine.
    """

    lane: int
    incarnation: int
    broker: str
    run: str
    threads: int
    runner: JobRunner | None = None
    loader: int | None = None


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
    job: QueuedJob | None = None
    progress: dict[str, Any] = field(default_factory=dict)

    def next_order(self) -> tuple[str, Work | None]:
        """Asks on the main rank, and tells every rank."""
        answer = ""
        if self.world.is_main_rank:
            order, job = ray.get(self.broker.take.remote(self.lane, self.incarnation))
            answer = json.dumps([order, asdict(job) if job else None])
        order, plain = json.loads(self.world.broadcast_text(answer))
        self.job, self.progress = QueuedJob(**plain) if plain else None, {}
        return order, work_from_plain(plain["plain"]) if plain else None

    def report(self, progress: Progress) -> None:
        """Tells the broker of an epoch; raises `JobStopped` on all ranks when the job is to be left."""
        self.progress = {name: value for name, value in vars(progress).items() if name not in ("losses", "health")}
        self.progress |= {"health": progress.health[-1]} if progress.health else {}
        if self.world.agree(self.world.is_main_rank and self._beat()):
            raise JobStopped

    def finish(self, outcome: Outcome, reason: str = "") -> None:
        """Tells the broker how the job ended."""
        self._tell("finish", str(outcome), reason)

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
        outcome, reason = Outcome.CANCELLED, ""
    except RayskError as error:
        outcome = Outcome.BROKEN if isinstance(error, ArtifactError) else Outcome.FAILED
        reason = str(error)
        if client.world.size > 1:
            # Other ranks may be waiting for this one: the group dies, and the next job finds a new one.
            logger.info("%s %s %s", outcome, job.id, reason)
            client.finish(outcome, reason)
            raise
    except Exception as error:
        logger.exception("crash %s", job.id)
        # A rank that has only lost contact is not the one that failed: its job is begun again, however often.
        if not is_lost_contact(error):
            client.crash(f"{type(error).__name__}: {error}")
        raise
    else:
        outcome, reason = Outcome.DONE, ""
    if client.world.is_main_rank:
        logger.info("%s %s %s", outcome, job.id, reason)
        client.finish(outcome, reason)


def _log_to(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s pid %(process)d %(levelname)s %(message)s"))
    package = logging.getLogger("raysk")
    package.handlers = [handler]
    package.setLevel(logging.INFO)
