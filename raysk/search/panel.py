"""The content of the live panel: what is awaited, the lanes with their jobs, and the time left."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.text import Text

from raysk.search.jobs import JobProgress, LaneStatus, Outcome, QueueStatus
from raysk.search.lane_lines import BAR, GAP, LaneAtWork, bar, lane_lines, row
from raysk.search.lanes import Lane, LanePool, Phase
from raysk.search.resources import LanePlan
from raysk.search.searcher import SearchProgress

# A search of stage two counts settings, and then the folds of the best of them, rather than epochs.
_UNITS = {"stage-two search": "setting", "best settings": "fold"}
_BETWEEN = " · "


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

    def line(self, width: int) -> RenderableType:
        """Returns the line: what, since when, and a bar if the end is known; a narrow window cuts the first short."""
        cells: list[tuple[RenderableType, int]] = [(passed := clock(time.monotonic() - self.since), len(passed))]
        if self.total:
            steps = f"{self.done} of {self.total}"
            cells += [(bar(self.done, self.total), BAR), (steps, len(steps))]
        room = width - sum(taken + GAP for _, taken in cells)
        cells.insert(0, (self.what, max(1, min(len(self.what), room))))
        return row(*zip(*cells, strict=True))


@dataclass
class Pace:
    """The pace of the search in this session, which tells the time that is left.

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
        # An estimate: racing stops some recipes early, and a search of stage two takes another time than a fold.
        seconds = (time.monotonic() - self.began) / done * self.left
        return f"about {seconds / 60:.0f} min left" if seconds > 90 else f"about {seconds:.0f} s left"


@dataclass
class Panel:
    """What the live panel shows.

    Args:
        awaited: What the study waits for beside its lanes, if anything.
        progress: The state of the search; None before there is one.
        num_trials: Number of recipes; None if only the time ends the search.
        status: Jobs and lanes, as the broker reports them; None before there is a broker.
        pool: The lanes.
        pace: The pace of the search.
    """

    awaited: Awaited | None = None
    progress: SearchProgress | None = None
    num_trials: int | None = 0
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

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yields the lines; in a low window, lanes make room for the other lines."""
        width, height = options.max_width, options.size.height
        before, lanes, after = self._parts(width)
        room = height - sum(len(console.render_lines(line, options)) for line in [*before, *after])
        if len(lanes) > room:
            num_shown = max(0, room - 1)
            lanes[num_shown:] = [Text(f"and {len(lanes) - num_shown} more lanes")]
        yield from [*before, *lane_lines(lanes, width), *after]

    def _parts(self, width: int) -> tuple[list[Text], list[LaneAtWork | Text], list[RenderableType]]:
        """Returns the lines before the lanes, the lanes, and the lines after them."""
        awaited = [self.awaited.line(width)] if self.awaited else []
        if self.progress is None or self.status is None or self.pool is None:
            return [], [], awaited
        lanes = list(self._lanes(self.status, self.pool))
        before, after = self._facts(self.progress), self._pace(self.status, len(lanes))
        return _joined(before, width), lanes, [*_joined(after, width), *awaited]

    def _facts(self, progress: SearchProgress) -> list[str]:
        """Returns what the search has done."""
        recipes = f"recipes {progress.complete} complete, {progress.stopped} stopped, {progress.failed} failed"
        best = (
            f"best {progress.metric} {progress.best[1]:.3f} ({progress.best[0]})" if progress.best else "no score yet"
        )
        done = self.status.ended[Outcome.DONE] if self.status else 0
        of_all = "" if self.num_trials is None else f" of {self.num_trials}"
        return [f"{recipes}{of_all}", f"jobs done {done}", best]

    def _pace(self, status: QueueStatus, num_lanes: int) -> list[str]:
        """Returns how fast the lanes are."""
        busy = sum(lane.job is not None for lane in status.lanes)
        images = sum(lane.progress.images / lane.progress.seconds for lane in status.lanes if lane.progress.seconds)
        # Nothing is searched while something is awaited, and the work of a study that only the time ends has no bound.
        is_bounded = not self.awaited and self.num_trials is not None
        left = [self.pace.time_left(status.ended[Outcome.DONE])] if is_bounded else []
        return [f"lanes busy {busy} of {num_lanes}", f"{images:,.0f} images/s", *left]

    def _lanes(self, status: QueueStatus, pool: LanePool) -> Iterator[LaneAtWork | Text]:
        working = {(lane.lane, lane.incarnation): lane for lane in status.lanes if not lane.is_lost}
        for lane in list(pool.lanes):
            held = working.get((lane.number, lane.incarnation))
            yield self._lane(lane, held, pool.plan)

    def _lane(self, lane: Lane, working: LaneStatus | None, plan: LanePlan) -> LaneAtWork | Text:
        """Returns the line of a lane, with its job if the broker knows its worker group."""
        name, passed = f"lane {lane.number}", clock(time.monotonic() - lane.since)
        if lane.failure:
            return Text.assemble(f"{name}  ", (lane.failure, "bold red"))
        if lane.phase is Phase.WAITING:
            return Text(f"{name}  waits for a node with {plan.needs}, {passed}")
        if working is None:
            return Text(f"{name}  starting, {passed}")
        if working.job is None:
            return Text(f"{name}  idle")
        progress = working.progress
        _, since = self._seen.get(working.lane, ("", time.monotonic()))
        unit, has_end = _UNITS.get(progress.stage, "epoch"), progress.epochs > 0
        return LaneAtWork(
            lane=Text(name),
            job=Text(working.job),
            since=Text(clock(time.monotonic() - since)),
            stage=Text(progress.stage if has_end else "preparing"),
            steps=Text(f"{unit} {progress.epoch} of {progress.epochs}" if has_end else ""),
            bar=bar(progress.epoch, progress.epochs) if has_end else None,
            health=_health(progress),
        )


def clock(seconds: float) -> str:
    """Formats a time as minutes and seconds."""
    return "{}:{:02d}".format(*divmod(int(seconds), 60))


def _joined(facts: Sequence[str], width: int) -> list[Text]:
    """Joins facts to lines, each of which has as many of them as fit."""
    lines: list[str] = []
    for fact in facts:
        if lines and len(lines[-1]) + len(_BETWEEN) + len(fact) <= width:
            lines[-1] += _BETWEEN + fact
        else:
            lines.append(fact)
    return [Text(line) for line in lines]


def _health(progress: JobProgress) -> Text:
    """Returns the scores of stage one's probes and the rank of its features, or its alarm instead."""
    if progress.alarm:
        return Text(progress.alarm, "bold red")
    measures = (
        ("probe", progress.probe, ".3f"),
        ("rank", progress.effective_rank, ".1f"),
        ("linear", progress.linear_probe, ".3f"),
        ("k-NN", progress.neighbour_probe, ".3f"),
    )
    return Text(", ".join(f"{name} {value:{digits}}" for name, value, digits in measures if value is not None))
