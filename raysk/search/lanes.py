"""Lanes: long-lived Ray Train worker groups that do job after job.

A worker group is one `TorchTrainer.fit()`. Its train loop requests a job from the broker, does it, reports its end, and
repeats. When a worker dies the whole group ends; its job returns to the queue, and the lane starts another group as
soon as the cluster has room for one.
"""

import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum

import ray
from ray.exceptions import OutOfMemoryError, RayError
from ray.train import ControllerError, RunConfig, ScalingConfig, TrainingFailedError, WorkerGroupError
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError, WorkerHealthCheckFailedError
from ray.train.v2.api.config import FailureConfig
from ray.util import placement_group, remove_placement_group

from raysk.errors import ConfigError, in_one_line
from raysk.run import Run
from raysk.search.broker import find_broker
from raysk.search.jobs import JobRunner, LaneSettings
from raysk.search.lane_entry import enter_lane
from raysk.search.resources import LanePlan, plan_lanes

# A lane is given up after this many groups in a row that failed before they worked.
_MAX_FALSE_STARTS = 3
_POLL_S = 0.5
# Room that appears within this time, as when a dead group's is released, is not worth a line.
_BRIEFLY_S = 3.0
# Interval at which the size of the cluster is checked.
_LOOK_S = 5.0


class Phase(StrEnum):
    """The state of a lane."""

    UP = "up"
    """Its worker group starts, or works."""
    WAITING = "waiting"
    """The cluster has no room for a worker group."""
    ENDED = "ended"
    """It has left, or was given up."""


@dataclass
class Lane:
    """A lane as the driver sees it.

    Args:
        number: From 0.
        incarnation: Number of its worker group, from 1.
        phase: Its state.
        since: When that state began, on the monotonic clock.
        failure: Why it was given up.
    """

    number: int
    incarnation: int = 0
    phase: Phase = Phase.UP
    since: float = field(default_factory=time.monotonic)
    failure: str = ""

    def enter(self, phase: Phase) -> None:
        """Sets the state of the lane."""
        if phase is not self.phase:
            self.phase, self.since = phase, time.monotonic()


class LanePool:
    """The lanes of a study, each with its `TorchTrainer.fit()` in a thread of the driver.

    Args:
        run: The run directory.
        broker: Name of the broker.
        plan: Number of lanes, and of workers in each.
        say: Prints a line for the user.
        runner: Does a job; None trains.
        loader: Number of loader processes beside each worker; None leaves it to the machine.
    """

    def __init__(
        self,
        run: Run,
        broker: str,
        plan: LanePlan,
        say: Callable[[str], None],
        runner: JobRunner | None = None,
        loader: int | None = None,
    ) -> None:
        self.run, self.broker, self.plan, self.say = run, broker, plan, say
        self.runner, self.loader = runner, loader
        self.lanes: list[Lane] = []
        self._threads: list[threading.Thread] = []
        self._is_closed = threading.Event()
        self._asked_at: float | None = None
        self.grow(plan)
        threading.Thread(target=self._follow, daemon=True, name="lanes").start()

    def grow(self, plan: LanePlan) -> None:
        """Starts the lanes that a plan adds."""
        self.plan = plan
        given_up = sum(bool(lane.failure) for lane in self.lanes)
        for number in range(len(self.lanes), plan.lanes + given_up):
            lane = Lane(number)
            thread = threading.Thread(target=self._keep, args=(lane,), daemon=True, name=f"lane{number}")
            self.lanes.append(lane)
            self._threads.append(thread)
            thread.start()

    @property
    def failure(self) -> str:
        """Why no lane works; empty while one may."""
        failed = [lane.failure for lane in self.lanes if lane.failure]
        return failed[0] if len(failed) == len(self.lanes) else ""

    @property
    def blocked_since(self) -> float | None:
        """Since when all lanes have waited for room, on the monotonic clock; None while a lane has room."""
        lanes = [lane for lane in self.lanes if not lane.failure]
        if not lanes or any(lane.phase is not Phase.WAITING for lane in lanes):
            return None
        return max(lane.since for lane in lanes)

    @property
    def silence(self) -> float:
        """Seconds for which Ray has not reported the size of the cluster."""
        asked_at = self._asked_at
        return time.monotonic() - asked_at if asked_at else 0.0

    def close(self, timeout: float) -> None:
        """Makes the lanes leave, and waits until they have left."""
        self._is_closed.set()
        deadline = time.monotonic() + timeout
        while any(thread.is_alive() for thread in self._threads) and time.monotonic() < deadline:
            # Repeated, since a broker that has just been restarted does not know that it is closed.
            with suppress(RayError):
                ray.get(find_broker(self.broker).close.remote(), timeout=_POLL_S)
            time.sleep(_POLL_S)

    def _follow(self) -> None:
        """Starts more lanes when nodes have joined."""
        while not self._is_closed.wait(_LOOK_S):
            self._asked_at = time.monotonic()
            total = ray.cluster_resources()
            self._asked_at = None
            with suppress(ConfigError):  # the remaining nodes have no room for a lane: the lanes wait
                plan = plan_lanes(
                    total.get("CPU", 0), total.get("GPU", 0), self.plan.workers, self.plan.gpus_per_worker
                )
                if plan.lanes > sum(not lane.failure for lane in self.lanes):
                    self.say(f"the cluster has grown: {plan.lanes} lanes, {plan.sum}")
                    # The new lanes keep the number of threads, on which the last digits of a score depend.
                    self.grow(replace(plan, threads=self.plan.threads))

    def _keep(self, lane: Lane) -> None:
        """Runs the worker groups of a lane, one after another, until the lane leaves."""
        try:
            false_starts = 0
            while false_starts < _MAX_FALSE_STARTS and self._finds_room(lane):
                lane.incarnation += 1
                nodes = _living_nodes()
                try:
                    self._trainer(lane).fit()
                    return
                except (TrainingFailedError, RayError) as error:
                    is_excused = bool(nodes - _living_nodes()) or _has_no_room(error)
                    has_worked = self._lose(lane, error, is_excused)
                    false_starts = 0 if has_worked or is_excused else false_starts + 1
                    lane.failure = _reason(error) if false_starts == _MAX_FALSE_STARTS else ""
        except Exception as error:  # Any error must reach the study.
            lane.failure = _reason(error)
            raise
        finally:
            lane.enter(Phase.ENDED)

    def _finds_room(self, lane: Lane) -> bool:
        """Waits until the cluster has room for a worker group; returns whether to start one.

        Requests a placement group and releases it, which also tells an autoscaler what is needed. The first worker
        group of a lane does not wait, since the lanes were planned from the cluster's resources.
        """
        if lane.incarnation == 0:
            return True
        room = placement_group([self.plan.worker_resources] * self.plan.workers, strategy="PACK")
        ready = room.ready()
        began, is_announced = time.monotonic(), False
        try:
            while not self._is_closed.is_set():
                if ray.wait([ready], timeout=_POLL_S)[0]:
                    if is_announced:
                        self.say(f"lane {lane.number} has room again, and starts")
                    lane.enter(Phase.UP)
                    return True
                lane.enter(Phase.WAITING)
                if not is_announced and time.monotonic() - began > _BRIEFLY_S:
                    is_announced = True
                    self.say(f"lane {lane.number} waits for room: it needs {self.plan.needs}")
            return False
        finally:
            remove_placement_group(room)

    def _lose(self, lane: Lane, error: Exception, is_excused: bool) -> bool:
        """Returns the job of a lost worker group to the queue; returns whether the group has worked."""
        cause = _cause(error)
        # The node killed the worker for its job's use of memory: unlike any other death, an error of the job's own.
        fault = "it took more memory than its node has" if isinstance(cause, OutOfMemoryError) else ""
        broker = find_broker(self.broker)
        has_worked = bool(ray.get(broker.lose.remote(lane.number, lane.incarnation, fault, not is_excused)))
        if not self._is_closed.is_set():
            traceback.print_exception(error)  # into the log
            why = "a worker or its node is gone" if isinstance(cause, RayError) else _reason(error)
            self.say(f"lane {lane.number} is lost, {why}: its job goes back to the queue")
        return has_worked

    def _trainer(self, lane: Lane) -> TorchTrainer:
        plan = self.plan
        settings = LaneSettings(
            lane=lane.number,
            incarnation=lane.incarnation,
            broker=self.broker,
            run=str(self.run.folder.resolve()),
            threads=plan.threads,
            runner=self.runner,
            loader=self.loader,
        )
        return TorchTrainer(
            enter_lane,
            train_loop_config={"settings": settings},
            torch_config=TorchConfig(backend="nccl" if plan.gpus_per_worker else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=plan.workers,
                use_gpu=plan.gpus_per_worker > 0,
                resources_per_worker=plan.worker_resources,
            ),
            run_config=RunConfig(
                name=f"lane{lane.number}",
                storage_path=str((self.run.folder / "logs" / "ray").resolve()),
                # The lane handles the end of a group: it gives the job back at once, and knows what it waits for.
                failure_config=FailureConfig(max_failures=0, controller_failure_limit=0, max_preemption_failures=0),
            ),
        )


def _living_nodes() -> set[str]:
    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}


def _has_no_room(error: Exception) -> bool:
    return isinstance(_cause(error), WorkerGroupStartupTimeoutError)


def _cause(error: Exception) -> Exception:
    """Returns the worker's error behind an error of Ray Train; a dead worker's before those that its death caused."""
    if isinstance(error, WorkerGroupError):
        failures = [
            failure.health_check_failure if isinstance(failure, WorkerHealthCheckFailedError) else failure
            for failure in error.worker_failures.values()
        ]
        return next((failure for failure in failures if isinstance(failure, RayError)), failures[0])
    return error.controller_failure if isinstance(error, ControllerError) else error


def _reason(error: Exception) -> str:
    cause = _cause(error)
    return f"{type(cause).__name__}: {in_one_line(cause)}"
