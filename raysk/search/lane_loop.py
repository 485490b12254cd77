"""What every worker of a lane runs: it asks the broker for a job, does it, says how it ended, and asks again."""

import json
import logging
import threading
from collections.abc import Callable, Iterator
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
from raysk.search.broker import find_broker
from raysk.search.jobs import Order, Outcome
from raysk.training.loop import Progress, Report
from raysk.training.work import Work, do_work, work_from_plain
from raysk.training.world import World

logger = logging.getLogger(__name__)

_HEARTBEAT_S = 2.0

# Does a job on every worker of a lane; it leaves the job's predictions and its line of the ledger in the run.
Do = Callable[[Work, Run, World, Report], None]


class JobStopped(Exception):  # noqa: N818 - leaving a job is no error
    """The broker wants the job left; raised on all ranks together."""


@dataclass(frozen=True)
class LaneSettings:
    """What the workers of a lane are told.

    Args:
        lane: Its number.
        broker: Name of the broker.
        run: The run directory.
        threads: Of torch in each worker; Ray would leave it at one.
        do: What it does with a job; None trains, and benchmarks have it do nothing.
        loader: Processes that draw views beside each worker; None leaves it to the machine.
    """

    lane: int
    broker: str
    run: str
    threads: int
    do: Do | None = None
    loader: int | None = None


def lane_loop(lane: LaneSettings) -> None:
    """Does jobs until the broker sends the lane home."""
    world = World.current(get_device(), lane.loader)
    run = Run.open(Path(lane.run))
    _log_to(run.folder / "logs" / f"lane{lane.lane}-rank{world.rank}.log")
    torch.set_num_threads(lane.threads)
    broker = find_broker(lane.broker)
    joined = str(ray.get(broker.join.remote(lane.lane))) if world.is_chief else ""
    line = _Line(broker, lane.lane, int(world.broadcast_text(joined)), world)
    while True:
        order, job = line.next_order()
        if order == Order.LEAVE:
            return
        if job is not None:
            _do(job, run, line, lane.do or do_work)


@dataclass
class _Line:
    """A rank's line to the broker: the chief asks and reports, any rank may call for help."""

    broker: Any
    lane: int
    incarnation: int
    world: World
    progress: dict[str, Any] = field(default_factory=dict)

    def next_order(self) -> tuple[str, Work | None]:
        """Asks on the chief, and tells every rank."""
        asks = self.world.is_chief
        answer = json.dumps(ray.get(self.broker.take.remote(self.lane, self.incarnation))) if asks else ""
        order, plain = json.loads(self.world.broadcast_text(answer))
        return order, work_from_plain(plain) if plain else None

    def report(self, progress: Progress) -> None:
        """Tells the broker of an epoch; raises `JobStopped` on all ranks when the job is to be left."""
        self.progress = {name: value for name, value in vars(progress).items() if name not in ("losses", "health")}
        self.progress |= {"health": progress.health[-1]} if progress.health else {}
        if self.world.agree(self.world.is_chief and self._beat()):
            raise JobStopped

    def finish(self, job: Work, outcome: Outcome, reason: str = "") -> None:
        """Tells the broker how the job ended."""
        logger.info("%s %s %s", outcome, job.id, reason)
        ray.get(self.broker.finish.remote(self.lane, self.incarnation, job.id, str(outcome), reason))

    def crash(self, reason: str) -> None:
        """Tells the broker why this worker group dies."""
        ray.get(self.broker.crash.remote(self.lane, self.incarnation, reason))

    @contextmanager
    def heartbeat(self) -> Iterator[None]:
        """Shows between epochs, from a thread of the chief, that the lane lives."""
        over = threading.Event()

        def beat() -> None:
            # A broker that is gone takes the whole study with it; there is nobody left to tell.
            with suppress(RayError):
                while not over.wait(_HEARTBEAT_S):
                    self._beat()

        thread = threading.Thread(target=beat, daemon=True)
        if self.world.is_chief:
            thread.start()
        try:
            yield
        finally:
            over.set()

    def _beat(self) -> bool:
        answer = ray.get(self.broker.report.remote(self.lane, self.incarnation, self.progress))
        return bool(answer == Order.STOP)


def _do(job: Work, run: Run, line: _Line, do: Do) -> None:
    """Does one job on this rank, and has the broker know how it ended."""
    logger.info("begin %s", job.id)
    line.progress = {}
    try:
        with line.heartbeat():
            do(job, run, line.world, line.report)
    except JobStopped:
        outcome, reason = Outcome.CANCELLED, ""
    except RayskError as error:
        outcome = Outcome.BROKEN if isinstance(error, ArtifactError) else Outcome.FAILED
        reason = str(error)
        if line.world.size > 1:
            # Other ranks may be waiting for this one: the group dies, and Ray Train starts it anew for the next job.
            line.finish(job, outcome, reason)
            raise
    except Exception as error:
        logger.exception("crash %s", job.id)
        line.crash(f"{type(error).__name__}: {error}")
        raise
    else:
        outcome, reason = Outcome.DONE, ""
    if line.world.is_chief:
        line.finish(job, outcome, reason)


def _log_to(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s pid %(process)d %(levelname)s %(message)s"))
    package = logging.getLogger("raysk")
    package.handlers = [handler]
    package.setLevel(logging.INFO)
