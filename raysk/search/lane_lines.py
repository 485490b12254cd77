"""One line for each lane of the live panel, with as many columns as the window has room for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.console import RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

GAP = 2
BAR, _SHORT_BAR = 16, 8
# Texts that are cut short, to this width at least, before a column is left out.
_LEAST = {"job": 12, "health": 12}
# The columns of a wide window, and those that are left when it is narrower.
_CHOICES = (
    ("lane", "job", "since", "stage", "bar", "steps", "health"),
    ("lane", "job", "since", "stage", "bar", "steps"),
    ("lane", "job", "since", "steps"),
    ("lane", "job", "since", "bar"),
    ("lane", "job", "since"),
    ("lane", "job"),
)


@dataclass(frozen=True)
class LaneAtWork:
    """The cells of a lane that does a job.

    Args:
        lane: Name of the lane.
        job: Display name of the job.
        since: Time that it has done the job.
        stage: The stage of the job.
        steps: Such as "epoch 3 of 9"; "" if the end is unknown.
        bar: The bar of these steps.
        health: Health of the features.
    """

    lane: Text
    job: Text
    since: Text
    stage: Text
    steps: Text
    bar: ProgressBar | None
    health: Text


def bar(done: int, total: int) -> ProgressBar:
    """Returns a bar that is as wide as its column."""
    return ProgressBar(total=total, completed=done)


def row(cells: Sequence[RenderableType], widths: Sequence[int]) -> Table:
    """Returns a row of cells, each of which is cut to its width."""
    grid = Table.grid(padding=(0, GAP))
    for width in widths:
        grid.add_column(width=width, no_wrap=True, overflow="ellipsis")
    grid.add_row(*cells)
    return grid


def lane_lines(lanes: Sequence[LaneAtWork | Text], width: int) -> list[RenderableType]:
    """Returns the lines of lanes: the cells of a lane at work below one another, and other lines as they are."""
    at_work = [lane for lane in lanes if isinstance(lane, LaneAtWork)]
    widths = _widths(at_work, width)
    return [
        row([getattr(lane, column) or "" for column in widths], list(widths.values()))
        if isinstance(lane, LaneAtWork)
        else lane
        for lane in lanes
    ]


def _widths(at_work: Sequence[LaneAtWork], room: int) -> Mapping[str, int]:
    """Returns the columns that fit, with their widths."""
    texts = [column for column in _CHOICES[0] if column != "bar"]
    natural = {column: max((getattr(lane, column).cell_len for lane in at_work), default=0) for column in texts}
    everything = {column: natural.get(column, BAR) for column in _CHOICES[0]}
    if _total(everything) <= room:
        return everything
    for columns in _CHOICES:
        widths = {column: min(natural.get(column, _SHORT_BAR), _LEAST.get(column, room)) for column in columns}
        spare = room - _total(widths)
        if spare >= 0:
            break
    for column in [column for column in _LEAST if column in widths]:
        more = max(0, min(spare, natural[column] - widths[column]))
        widths[column], spare = widths[column] + more, spare - more
    return widths


def _total(widths: Mapping[str, int]) -> int:
    return sum(widths.values()) + GAP * (len(widths) - 1)
