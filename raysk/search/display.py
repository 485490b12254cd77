"""The display of a study: a live panel in a terminal, plain lines elsewhere, and Ray's chatter in a file."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from raysk.errors import ArtifactError
from raysk.search.jobs import JobProgress, LaneStatus, Outcome, QueueStatus
from raysk.search.lanes import Lane, LanePool, Phase
from raysk.search.resources import LanePlan
from raysk.search.searcher import SearchProgress


@contextmanager
def chatter_to(path: Path) -> Iterator[TextIO]:
    """Redirects the output of this process and its children to a file; yields a stream to the terminal.

    Works on file descriptors, since Ray's processes and compiled libraries bypass Python's streams.

    Raises:
        ArtifactError: The file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
    except OSError as error:
        raise ArtifactError(
            f"{path} must be writable, but {error.strerror}: free space or choose another folder"
        ) from error
    sys.stdout.flush()
    sys.stderr.flush()
    terminal, errors = os.dup(1), os.dup(2)
    with file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        with os.fdopen(os.dup(terminal), "w", buffering=1) as stream:
            yield stream
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(terminal, 1)
        os.dup2(errors, 2)
        os.close(terminal)
        os.close(errors)


class StudyDisplay:
    """Shows a running study: trials, folds done, best so far, busy lanes, images per second, time left.

    Args:
        console: Where to draw.
        progress: The state of the search; read at every update.
        num_trials: Number of recipes.
        num_folds: Folds of each recipe.
    """

    def __init__(self, console: Console, progress: SearchProgress, num_trials: int, num_folds: int) -> None:
        self.console, self.progress = console, progress
        self.num_trials, self.num_folds = num_trials, num_folds
        self._began = time.monotonic()
        self._live = (
            Live(
                # With redirection, Ray's chatter would return from the log to the terminal.
                console=console,
                refresh_per_second=4,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            if console.is_terminal
            else None
        )

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def say(self, line: str) -> None:
        """Prints a line that stays on the screen."""
        passed = clock(time.monotonic() - self._began)
        self.console.print(f"[dim]{passed:>6}[/dim]  {escape(line)}", highlight=False, soft_wrap=True)

    def update(self, status: QueueStatus, pool: LanePool) -> None:
        """Redraws the panel.

        Args:
            status: Jobs and lanes, as the broker reports them.
            pool: The lanes.
        """
        if self._live:
            self._live.update(self._panel(status, pool))

    def _panel(self, status: QueueStatus, pool: LanePool) -> Group:
        progress = self.progress
        done, all_jobs = status.ended[Outcome.DONE], self.num_trials * self.num_folds
        busy = sum(lane.job is not None for lane in status.lanes)
        best = (
            f"best macro-F1 [bold]{progress.best[1]:.3f}[/bold] ({escape(progress.best[0])})"
            if progress.best
            else "no recipe complete yet"
        )
        head = Text.from_markup(
            f"recipes {progress.complete} complete, {progress.stopped} stopped, {progress.failed} failed"
            f" of {self.num_trials} · jobs done {done} · {best}"
        )
        images = sum(lane.progress.images / lane.progress.seconds for lane in status.lanes if lane.progress.seconds)
        foot = Text.from_markup(
            f"lanes busy {busy} of {len(pool.lanes)} · {images:,.0f} images/s · {self._time_left(done, all_jobs)}"
        )
        table = Table.grid(padding=(0, 2))
        working = {(lane.lane, lane.incarnation): lane for lane in status.lanes if not lane.is_lost}
        for lane in pool.lanes:
            table.add_row(f"lane {lane.number}", *_cells(lane, working.get((lane.number, lane.incarnation)), pool.plan))
        return Group(head, table, foot)

    def _time_left(self, done: int, all_jobs: int) -> str:
        if not done:
            return "time left: unknown until the first fold is done"
        # Racing stops some recipes early, so this is an upper bound at the present pace.
        seconds = (time.monotonic() - self._began) / done * max(0, all_jobs - done)
        return f"at most {seconds / 60:.0f} min left" if seconds > 90 else f"at most {seconds:.0f} s left"


def clock(seconds: float) -> str:
    """Formats a time as minutes and seconds."""
    return "{}:{:02d}".format(*divmod(int(seconds), 60))


def _cells(lane: Lane, working: LaneStatus | None, plan: LanePlan) -> tuple[str | Text, ...]:
    """Returns the panel's cells of a lane, with its job if the broker knows its worker group."""
    if lane.failure:
        return (Text(lane.failure, style="bold red"),)
    passed = clock(time.monotonic() - lane.since)
    if lane.phase is Phase.WAITING:
        return (f"waits for a node with {plan.needs}, {passed}",)
    if working is None:
        return (f"starting, {passed}",)
    progress = working.progress
    if working.job is None or not progress.epochs:
        return working.job or "idle", "", "", ""
    return working.job, progress.stage, f"epoch {progress.epoch} of {progress.epochs}", _health(progress)


def _health(progress: JobProgress) -> Text:
    """Returns the scores of stage one's probe, or its alarm instead."""
    if progress.alarm:
        return Text(progress.alarm, style="bold red")
    if progress.probe is None or progress.effective_rank is None:
        return Text("")
    return Text(f"probe {progress.probe:.3f}, rank {progress.effective_rank:.1f}")
