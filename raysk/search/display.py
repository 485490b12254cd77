"""The display of a study: a live panel in a terminal, plain lines elsewhere, and Ray's chatter in a file."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Self, TextIO

from rich.console import Console
from rich.markup import escape

from raysk.errors import ArtifactError
from raysk.search.jobs import QueueStatus
from raysk.search.lanes import LanePool
from raysk.search.live_panel import LivePanel
from raysk.search.panel import Awaited, Panel, clock
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


class Terminal(Console):
    """The terminal, or a pipe whose reader may go: the study then goes on in silence, since its results are files."""

    def on_broken_pipe(self) -> None:
        """Prints nothing from now on."""
        self.quiet = True


class StudyDisplay:
    """Shows a study from the start of Ray to its end: a live panel in a terminal, plain lines elsewhere.

    The panel draws itself four times a second, so that its clocks run while the study waits.

    Args:
        console: Where to draw.
    """

    def __init__(self, console: Console) -> None:
        self.console, self.panel = console, Panel()
        self._began = time.monotonic()
        is_live = console.is_terminal and not console.is_dumb_terminal
        self._live = LivePanel(console, self.panel) if is_live else None

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
        with self._live.lock if self._live else nullcontext():
            self.console.print(f"[dim]{passed:>6}[/dim]  {escape(line)}", highlight=False, soft_wrap=True)

    def wait(self, what: str, total: int | None = None, is_told: bool = True) -> None:
        """Shows what the study waits for from now on, and since when, in place of what it waited for before.

        Args:
            what: Such as "starting Ray"; "" if it waits for its lanes only.
            total: Number of steps, which `advance` counts; None if the end is unknown.
            is_told: Whether it is also a line that stays.
        """
        self.panel.awaited = Awaited(what, total) if what else None
        if what and is_told:
            self.say(what)

    def advance(self, done: int) -> None:
        """Moves the bar of what the study waits for."""
        if self.panel.awaited is not None:
            self.panel.awaited.done = done

    def follow(self, progress: SearchProgress, num_trials: int | None) -> None:
        """Shows a search from now on.

        Args:
            progress: The state of the search; read at every update.
            num_trials: Number of recipes; None if only the time ends the search.
        """
        self.panel.progress, self.panel.num_trials = progress, num_trials

    def update(self, status: QueueStatus, pool: LanePool, left: int | None = None) -> None:
        """Shows the state of the lanes.

        Args:
            status: Jobs and lanes, as the broker reports them.
            pool: The lanes.
            left: Number of folds and searches of stage two that may still follow; None if unknown.
        """
        self.panel.update(status, pool, left)
