"""The request for a study, and the signals and the deadline that end it."""

import os
import shlex
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from raysk.errors import ConfigError
from raysk.search.mirror import workplace
from raysk.spaces.space import Space

# Signals that follow one another within this time are one request.
_ECHO_S = 1.0


@dataclass(frozen=True)
class StudyRequest:
    """The command line of a study.

    Args:
        space: Name or file of a space.
        overrides: KEY=VALUE, applied after the space.
        run: The run directory, or s3://bucket/prefix of its copy; by default a new one named by the space and the date.
        resume: Whether to continue an existing run.
        trials: Total number of recipes; None leaves it to the space.
        time_budget: Seconds of the whole command; None for no limit.
        address: Of an existing cluster; None starts Ray on this machine.
        workers: DDP workers per lane.
        gpus_per_worker: 0 trains on CPUs; None takes one if the cluster has any.
        words: The words typed after `raysk`.
        began: When the command began, on the monotonic clock.
    """

    space: str
    overrides: tuple[str, ...] = ()
    run: str | None = None
    resume: bool = False
    trials: int | None = None
    time_budget: float | None = None
    address: str | None = None
    workers: int = 1
    gpus_per_worker: float | None = None
    words: tuple[str, ...] = ()
    began: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        if self.trials is not None and self.trials < 1:
            raise ConfigError(f"--trials must be >= 1, but got {self.trials}: give the number of recipes to try")
        if self.time_budget is not None and not self.time_budget > 0:  # also refuses nan
            raise ConfigError(
                f"--time-budget must be > 0 seconds, but got {self.time_budget:g}: leave it out for no limit"
            )
        if self.run == "":
            raise ConfigError("--run must be a folder, but got an empty name: leave --run out for a new one")
        # A job that `ray job submit` started finds its cluster without --address.
        if self.is_mirrored and (self.address or os.environ.get("RAY_ADDRESS")):
            raise ConfigError(
                f"--run must be a folder that all nodes of a cluster see, but got {self.run}: object storage keeps the "
                "run of one machine"
            )

    @property
    def command(self) -> str:
        """The command as typed."""
        return shlex.join(["raysk", *self.words])

    @property
    def repeating_command(self) -> str:
        """The command that repeats the study in a new run directory."""
        words = iter(self.words)
        kept = []
        for word in words:
            if word == "--run":
                next(words)
            elif word != "--resume" and not word.startswith("--run="):
                kept.append(word)
        return shlex.join(["raysk", *kept])

    @property
    def is_mirrored(self) -> bool:
        """Whether the run directory is copied to object storage."""
        return self.run is not None and "://" in self.run

    def folder(self, space: Space, cache: Path) -> Path:
        """Returns the run directory: as given, or the newest of the space to resume, or a new one.

        Args:
            space: The searched space.
            cache: Where this machine keeps its working folder of a run in object storage.

        Raises:
            ConfigError: There is no run to resume.
        """
        if self.run is not None:
            return workplace(cache, self.run) if self.is_mirrored else Path(self.run)
        if not self.resume:
            return Path("runs") / f"{space.name}-{datetime.now():%Y-%m-%d-%H%M%S}"
        runs = sorted(Path("runs").glob(f"{space.name}-*/run.json"))
        if not runs:
            raise ConfigError(
                f"--resume must find a run of the space, but runs/{space.name}-* does not exist: give --run DIR"
            )
        return runs[-1].parent


@dataclass
class Interrupt:
    """Whether the study must end, and why.

    Args:
        deadline: Seconds on the monotonic clock.
    """

    deadline: float | None = None
    asked: threading.Event = field(default_factory=threading.Event)
    asked_at: float = 0.0

    def is_due(self, needed: float = 0.0) -> bool:
        """Returns whether the user interrupted the study, or no more than the needed seconds are left."""
        return self.asked.is_set() or (self.deadline is not None and time.monotonic() > self.deadline - needed)

    @contextmanager
    def catches(self, number: signal.Signals) -> Iterator[None]:
        """Takes the first signal as a request to end in order; a second one ends at once.

        A signal to all processes of a job arrives here twice, since the parent process passes signals on.
        """

        def interrupt(*_: object) -> None:
            now = time.monotonic()
            if self.asked.is_set() and now - self.asked_at > _ECHO_S:
                raise KeyboardInterrupt
            if not self.asked.is_set():
                self.asked_at = now
            self.asked.set()

        before = signal.signal(number, interrupt)
        try:
            yield
        finally:
            signal.signal(number, before)
