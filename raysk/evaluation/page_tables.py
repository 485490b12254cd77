"""The tables of the page for a browser; where a table does not fit the window, each of its lines is a card."""

import re
from collections.abc import Iterable
from html import unescape
from math import ceil
from string import Template

from raysk.evaluation.grids import Grid

CSS = """table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--line); text-align: left; }
th { font-weight: 600; vertical-align: bottom; }
td { white-space: nowrap; }
td .interval { display: block; }
td.long { white-space: normal; min-width: 10rem; overflow-wrap: anywhere; }
th.number, td.number { text-align: right; }
tbody tr:hover { background: var(--shade); }
.wide { overflow-x: auto; }"""

# A card has the name of its line, and below it the other cells with their headings.
CARDS = Template("""@media $window {
  $table, $table tbody { display: block; }
  $table thead { display: none; }
  $table tr { display: grid; grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); gap: .2rem 1rem; }
  $table tr { position: relative; padding: .6rem 0; border-bottom: 1px solid var(--line); }
  $table td { border: 0; padding: 0; min-width: 0; text-align: left; white-space: normal; overflow-wrap: anywhere; }
  $table td[data-label]::before { content: attr(data-label); display: block; color: var(--quiet); font-size: .8rem; }
  $table td.place { position: absolute; left: 0; top: .6rem; }
  $table td.name { grid-column: 1 / -1; font-size: 1.05rem; }
  $table td.place + td.name { padding-left: 2rem; }
}""")

# Sizes in CSS pixels, for a wide font: the page around a table, the padding of a cell, the least width of a name, and a
# character of a cell and of an interval.
_PAGE_PX, _PADDING_PX, _NAME_PX, _CHARACTER_PX, _SMALL_PX = 64, 22.4, 160, 8.6, 7
# Widths are rounded up to this, so that few of them differ. The page is at most as wide as the last.
_STEP_PX, _WIDEST_PX = 16, 1408


def html_table(grid: Grid) -> tuple[str, str]:
    """Returns a table, and the style that turns its lines into cards in a window in which it does not fit."""
    width = _least_width(grid)
    kind = f"from{width}" if width <= _WIDEST_PX else "never"
    window = f"(max-width: {width - 1}px)" if width <= _WIDEST_PX else "all"
    classes = [_column_class(grid, place) for place in range(len(grid.headings))]
    head = "".join(f'<th scope="col"{name}>{text}</th>' for name, text in zip(classes, grid.headings, strict=True))
    # On a card each cell shows its own heading, which the place and the name of a row do not need.
    labels = [
        "" if grid.placed and place < 2 else f' data-label="{heading}"' for place, heading in enumerate(grid.headings)
    ]
    starts = [f"<td{name}{label}>" for name, label in zip(classes, labels, strict=True)]
    lines = [
        "<tr>" + "".join(f"{start}{text}</td>" for start, text in zip(starts, line, strict=True)) + "</tr>"
        for line in grid.cells
    ]
    table = [f'<div class="wide">\n<table class="{kind}">', f"<thead><tr>{head}</tr></thead>", "<tbody>", *lines]
    note = f'\n<p class="note">{grid.note}</p>' if grid.note else ""
    html = "\n".join([*table, "</tbody>", "</table>\n</div>"]) + note
    return html, CARDS.substitute(table=f"table.{kind}", window=window)


def _column_class(grid: Grid, place: int) -> str:
    if grid.placed and place == 0:
        return ' class="number place"'
    if place >= grid.num_text:
        return ' class="number"'
    if grid.placed and place > 1:
        return ""
    return ' class="name long"' if _natural_px(grid, place) > _NAME_PX else ' class="name"'


def _least_width(grid: Grid) -> int:
    """Returns about the least width of a window in which a table fits, in CSS pixels."""
    columns = [
        _NAME_PX if "long" in _column_class(grid, place) else _natural_px(grid, place)
        for place in range(len(grid.headings))
    ]
    width = _PAGE_PX + sum(columns) + _PADDING_PX * len(columns)
    return ceil(width / _STEP_PX) * _STEP_PX


def _natural_px(grid: Grid, place: int) -> float:
    """Returns about the width of a column, whose heading is broken between words, and its cells before an interval."""
    words, cells = grid.headings[place].split(), [line[place].partition(_INTERVAL) for line in grid.cells]
    values, intervals = [value for value, _, _ in cells], [interval for _, _, interval in cells]
    return max(_CHARACTER_PX * _longest([*words, *values]), _SMALL_PX * _longest(intervals))


def _longest(texts: Iterable[str]) -> int:
    return max((len(unescape(re.sub("<.*?>", "", text)).strip()) for text in texts), default=0)


_INTERVAL = '<small class="interval">'
INTERVAL = Template(f" {_INTERVAL}[$low, $high]</small>")
