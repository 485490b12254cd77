"""The end of a command: the best rows in a table that fits the window, the verdict, and the files."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from string import Template
from textwrap import wrap

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from raysk.evaluation.ensemble import GREEDY
from raysk.evaluation.formats import formats
from raysk.evaluation.grids import Style, headline_part, row_name, score_cell
from raysk.evaluation.leaderboard import Leaderboard, Row
from raysk.evaluation.metrics import Metric, parse_metric
from raysk.evaluation.requirement_checks import REQUIREMENT, RequirementCheck

# Facts of a study that the end of a command quotes.
BEST_SINGLE = "best single recipe on the held-out folds"
TEST_OPENED = "test part"
CHOICE = "how that choice is scored"

# The most rows of the table; the files have all rows.
MOST_ROWS = 10
# Columns are left out before names are wrapped to less than this.
LEAST_NAME = 16
# Longer headings of metrics have several lines.
MOST_HEADING = 16
_GAP = 2


def _escape(text: str) -> str:
    return escape(" ".join(text.split()))


STYLE = Style(_escape, Template("[bold]$x[/bold]"), Template(" [$low, $high]"), Template(" ± $sd"), "–")
_BARE = replace(STYLE, interval=Template(""), spread=Template(""))


@dataclass(frozen=True)
class _Column:
    """A column: its heading, which may have two lines, and its cells in markup."""

    heading: str
    cells: list[str]
    is_number: bool = True

    @property
    def width(self) -> int:
        lines = [Text(line) for line in self.heading.split("\n")] + [Text.from_markup(cell) for cell in self.cells]
        return max(line.cell_len for line in lines)


def show_summary(leaderboard: Leaderboard, where: str, console: Console) -> None:
    """Prints the best rows, the verdict, and where the files are.

    Args:
        leaderboard: The leaderboard.
        where: The run directory, or the address of its copy.
        console: Where to print; the table is at most as wide.
    """
    rows, num_rows = leaderboard.rows[:MOST_ROWS], len(leaderboard.rows)
    plural = f"{num_rows} row{'s' * (num_rows != 1)}"
    which = f"the {len(rows)} best of {plural}" if len(rows) < num_rows else plural
    console.print()
    console.print(Text(f"Leaderboard: {which}, by {leaderboard.ranked_by.title} out of fold"), soft_wrap=False)
    if rows:
        tables = leaderboard.for_tables
        console.print(_table(tables, tables.rows[:MOST_ROWS], console.width), soft_wrap=False)
    console.print()
    facts = [
        f"{name}: {_one_line(fact)}."
        for name, fact in leaderboard.meta.items()
        if name.startswith(REQUIREMENT) or name in (CHOICE, TEST_OPENED)
    ]
    for sentence in [*_verdict(leaderboard), *facts]:
        console.print(Text(sentence), soft_wrap=False)
    others = ", ".join(f".{name}" for name in formats if name != "md")
    console.print(f"Files: {where}/leaderboard.md, {others}", markup=False, highlight=False, soft_wrap=True)


def _table(leaderboard: Leaderboard, rows: Sequence[Row], width: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, _GAP - 1, 0, 0), show_edge=False, pad_edge=False)
    columns = _fitting(leaderboard, rows, width)
    for column in columns:
        if column.is_number:
            table.add_column(column.heading, justify="right", no_wrap=True)
        else:
            table.add_column(column.heading, overflow="fold")
    for cells in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*cells)
    return table


def _fitting(leaderboard: Leaderboard, rows: Sequence[Row], width: int) -> list[_Column]:
    """Returns as many columns as fit; without room, the second score, kind and the scores out of fold are left out."""
    part = headline_part(leaderboard)

    def scores(heading: str, column: str, style: Style) -> _Column:
        return _Column(heading, [score_cell(leaderboard, row, column, style) for row in rows])

    place = _Column("", [str(place) for place in range(1, len(rows) + 1)])
    name = _Column("name", [row_name(leaderboard, row, STYLE) for row in rows], is_number=False)
    kinds = [", ".join(filter(None, [row.kind, STYLE.escape(row.encoder)])) for row in rows]
    kind = _Column("kind", kinds, is_number=False)
    metric = leaderboard.ranked_by
    title = "\n".join(map(STYLE.escape, wrap(metric.title, MOST_HEADING, break_long_words=False)))
    whole, bare = (scores(title, f"{part}_{metric.name}", style) for style in (STYLE, _BARE))
    second = parse_metric(metric.form.usual[1])
    folds = [scores(f"{title}\nout of fold", f"oof_{metric.name}", _BARE)] if part == "test" else []
    others = [scores(second.title.replace(" ", "\n", 1), f"{part}_{second.name}", _BARE)] if metric != second else []
    required = [
        _Column(f"{STYLE.escape(text)}\nout of fold", [_checked(row.requirements[number]) for row in rows])
        for number, text in enumerate(leaderboard.requirements)
    ]
    with_required = [[place, name, kind, *folds, whole, *others, *required], [place, name, *folds, whole, *required]]
    choices = [
        *(with_required if required else []),
        [place, name, kind, *folds, whole, *others],
        [place, name, kind, *folds, whole],
        [place, name, *folds, whole],
        [place, name, whole],
        [place, name, bare],
    ]
    return next((columns for columns in choices if _width(columns) <= width), choices[-1])


def _checked(check: RequirementCheck) -> str:
    return f"{check.score:.3f} {'met' if check.is_met else 'not met'}"


def _width(columns: Sequence[_Column]) -> int:
    """Returns the least width of a table of columns, in which a long name is wrapped."""
    widths = [min(column.width, LEAST_NAME) if column.heading == "name" else column.width for column in columns]
    return sum(widths) + _GAP * (len(columns) - 1)


def cross_fitted_fact(metric: Metric) -> str:
    """Returns the name of the fact that holds the honest score of the choice of the best single recipe."""
    return f"{metric.title} of that choice, cross-fitted"


def _verdict(leaderboard: Leaderboard) -> Iterator[str]:
    """Yields what the study chose on the held-out folds, and its scores; for a single recipe, its scores."""
    metric = leaderboard.ranked_by
    title = metric.title[0].upper() + metric.title[1:]
    rows = {row.name: row for row in leaderboard.rows}
    best = rows.get(leaderboard.meta.get(BEST_SINGLE, ""))
    if best is None:
        if len(leaderboard.rows) == 1:
            (row,) = leaderboard.rows
            how = "" if row.chosen_on == "nothing" else f", chosen on the {_one_line(row.chosen_on)}"
            yield f"{_one_line(row.name)}{how}: {metric.title} {_out_of_fold(row, metric)}{_on_test(row, metric)}."
        return
    fact = leaderboard.meta.get(cross_fitted_fact(metric))
    out_of_fold = f"{fact} out of fold, cross-fitted over that choice" if fact else _out_of_fold(best, metric)
    name = _one_line(best.name)
    yield f"Best single recipe, chosen on the held-out folds: {name}. {title} {out_of_fold}{_on_test(best, metric)}."
    greedy = rows.get(GREEDY)
    if greedy is not None:
        out_of_fold = _out_of_fold(greedy, metric, "with cross-fitted weights")
        yield f"{GREEDY}, chosen on the {greedy.chosen_on}. {title} {out_of_fold}{_on_test(greedy, metric)}."


def _out_of_fold(row: Row, metric: Metric, how: str = "mean of the folds") -> str:
    value = row.scores.get(f"oof_{metric.name}")
    return "unknown out of fold" if value is None else f"{value:.3f} out of fold, {how}"


def _on_test(row: Row, metric: Metric) -> str:
    value = row.scores.get(f"test_{metric.name}")
    if value is None:
        return ""
    ends = [row.scores.get(f"test_{metric.name}_{end}") for end in ("low", "high")]
    interval = f" [{ends[0]:.3f}, {ends[1]:.3f}]" if None not in ends else ""
    return f"; {value:.3f}{interval} on the locked test part"


def _one_line(text: str) -> str:
    return " ".join(text.split())
