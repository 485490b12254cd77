"""The content of the live panel: what is awaited, the lanes with their jobs, and the time left."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from raysk.search.jobs import JobProgress, LaneStatus, Outcome, QueueStatus
from raysk.search.lanes import Lane, LanePool, Phase
from raysk.search.resources import LanePlan
from raysk.search.searcher import SearchProgress

_BAR_WIDTH = 16
# A search of stage two counts settings rather than epochs.
_UNITS = {"stage-two search": "setting"}


@dataclass
class Awaited:
    """What the study waits for beside its lanes.

    Args:
        what: Such as "starting Ray".
        total: Number of its steps; None if its end is unknown.
        done: Number of finished steps.
        since: When it began, on the monotonic clock.
    """

    what: str
    total: int | None = None
    done: int = 0
    since: float = field(default_factory=time.monotonic)

    def line(self) -> RenderableType:
        """Returns the line: what, since when, and a bar if the end is known."""
        grid = Table.grid(padding=(0, 2))
        steps = (_bar(self.done, self.total), f"{self.done} of {self.total}") if self.total else ()
        grid.add_row(Text(f"{self.what}, {clock(time.monotonic() - self.since)}"), *steps)
        return grid


@dataclass
class Pace:
    """The pace of the search in this session, which bounds the time that is left.

    Args:
        began: When a lane first had a job, on the monotonic clock; None before.
        left: Number of folds and searches of stage two that may still follow; None if unknown.
    """

    began: float | None = None
    left: int | None = None

    def time_left(self, done: int) -> str:
        """Returns the time left at the present pace.

        Args:
            done: Number of folds and searches that were done in this session.
        """
        if not done or self.began is None or self.left is None:
            return "time left: unknown until the first fold is done"
        # Racing stops some recipes early, so this is an upper bound at the present pace.
        seconds = (time.monotonic() - self.began) / done * self.left
        return f"at most {seconds / 60:.0f} min left" if seconds > 90 else f"at most {seconds:.0f} s left"


@dataclass
class Panel:
    """What the live panel shows.

    Args:
        awaited: What the study waits for beside its lanes, if anything.
        progress: The state of the search; None before there is one.
        num_trials: Number of recipes.
        status: Jobs and lanes, as the broker reports them; None before there is a broker.
        pool: The lanes.
        pace: The pace of the search.
    """

    awaited: Awaited | None = None
    progress: SearchProgress | None = None
    num_trials: int = 0
    status: QueueStatus | None = None
    pool: LanePool | None = None
    pace: Pace = field(default_factory=Pace)
    _seen: dict[int, tuple[str, float]] = field(default_factory=dict)

    def update(self, status: QueueStatus, pool: LanePool, left: int | None) -> None:
        """Takes over the state of the study."""
        self.status, self.pool, self.pace.left = status, pool, left
        now = time.monotonic()
        if self.pace.began is None and any(lane.job for lane in status.lanes):
            self.pace.began = now
        titles = {lane.lane: lane.job for lane in status.lanes if lane.job is not None}
        before = self._seen
        self._seen = {
            lane: before[lane] if lane in before and before[lane][0] == title else (title, now)
            for lane, title in titles.items()
        }

    def lines(self) -> Group:
        """Returns the lines of the panel."""
        return Group(*self._lines())

    def _lines(self) -> Iterator[RenderableType]:
        if self.progress is not None and self.status is not None and self.pool is not None:
            yield from self._study(self.progress, self.status, self.pool)
        if self.awaited is not None:
            yield self.awaited.line()

    def _study(self, progress: SearchProgress, status: QueueStatus, pool: LanePool) -> Iterator[RenderableType]:
        done = status.ended[Outcome.DONE]
        best = (
            f"best {escape(progress.metric)} [bold]{progress.best[1]:.3f}[/bold] ({escape(progress.best[0])})"
            if progress.best
            else "no recipe complete yet"
        )
        yield Text.from_markup(
            f"recipes {progress.complete} complete, {progress.stopped} stopped, {progress.failed} failed"
            f" of {self.num_trials} · jobs done {done} · {best}"
        )
        table = Table.grid(padding=(0, 2))
        # A narrow window cuts the job and its health short, so that a lane has one line; only a failure is wrapped.
        for may_shrink in (False, True, False, False, False, True):
            table.add_column(no_wrap=not may_shrink)
        working = {(lane.lane, lane.incarnation): lane for lane in status.lanes if not lane.is_lost}
        for lane in list(pool.lanes):
            held = working.get((lane.number, lane.incarnation))
            table.add_row(f"lane {lane.number}", *self._cells(lane, held, pool.plan))
        yield table
        busy = sum(lane.job is not None for lane in status.lanes)
        images = sum(lane.progress.images / lane.progress.seconds for lane in status.lanes if lane.progress.seconds)
        left = [] if self.awaited else [self.pace.time_left(done)]  # the search is over, or has not begun
        yield Text(" · ".join([f"lanes busy {busy} of {len(pool.lanes)}", f"{images:,.0f} images/s", *left]))

    def _cells(self, lane: Lane, working: LaneStatus | None, plan: LanePlan) -> tuple[RenderableType, ...]:
        """Returns the cells of a lane, with its job if the broker knows its worker group."""
        if lane.failure:
            return (Text(lane.failure, style="bold red"),)
        passed = clock(time.monotonic() - lane.since)
        if lane.phase is Phase.WAITING:
            return (f"waits for a node with {plan.needs}, {passed}",)
        if working is None:
            return (f"starting, {passed}",)
        if working.job is None:
            return ("idle",)
        progress = working.progress
        _, since = self._seen.get(working.lane, ("", time.monotonic()))
        job = _one_line(f"{working.job}, {clock(time.monotonic() - since)}")
        if not progress.epochs:
            return job, "preparing"
        unit = _UNITS.get(progress.stage, "epoch")
        done = f"{unit} {progress.epoch} of {progress.epochs}"
        return job, progress.stage, _bar(progress.epoch, progress.epochs), done, _health(progress)


def clock(seconds: float) -> str:
    """Formats a time as minutes and seconds."""
    return "{}:{:02d}".format(*divmod(int(seconds), 60))


def _bar(done: int, total: int) -> ProgressBar:
    return ProgressBar(total=total, completed=done, width=_BAR_WIDTH)


def _one_line(text: str, style: str = "") -> Text:
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")


def _health(progress: JobProgress) -> Text:
    """Returns the scores of stage one's probe, or its alarm instead."""
    if progress.alarm:
        return _one_line(progress.alarm, "bold red")
    if progress.probe is None or progress.effective_rank is None:
        return Text("")
    return _one_line(f"probe {progress.probe:.3f}, rank {progress.effective_rank:.1f}")
