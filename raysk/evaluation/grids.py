"""What the leaderboard's tables show: the same cells for every format that a person reads."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from string import Template

from raysk.evaluation.leaderboard import Leaderboard, Row

HEADINGS = {
    "macro_f1": "macro-F1",
    "balanced_accuracy": "balanced accuracy",
    "macro_auc": "AUC",
    "accuracy": "accuracy",
}

# The scores of single classes that are shown, each with the score that is their mean.
CLASS_SCORES = {"f1": "macro_f1", "recall": "balanced_accuracy", "precision": "macro_precision"}


@dataclass(frozen=True)
class Style:
    """How one format writes the parts of a cell.

    Attributes:
        escape: Makes any text safe in the format, and one line.
        bold: Of $x, the best value of a column.
        interval: Of $low and $high, after the value.
        spread: Of $sd, after the value.
        missing: Stands for a score that a row does not have.
    """

    escape: Callable[[str], str]
    bold: Template
    interval: Template
    spread: Template
    missing: str


@dataclass(frozen=True)
class Grid:
    """One table, written in a style.

    Attributes:
        title: What it shows, in the words of the style.
        label: Names it among the tables of a leaderboard.
        headings: One a column.
        num_text: How many columns at the left hold words, of which the first is the place; the others hold numbers.
        cells: The lines.
        note: How to read it.
    """

    title: str
    label: str
    headings: list[str]
    num_text: int
    cells: list[list[str]]
    note: str


def leaderboard_grids(leaderboard: Leaderboard, style: Style) -> list[Grid]:
    """Returns the headline scores, those out of fold with their spread, and the scores of every class.

    As long as no row has a score on the test part, all of them are out of fold. What no row has is left out.
    """
    tested = "test_macro_f1" in leaderboard.score_columns
    part, where = ("test", "on the test part") if tested else ("oof", "out of fold")
    headline = {f"{part}_{name}": heading for name, heading in HEADINGS.items()}
    grids = [_grid(leaderboard, style, f"Scores {where}", "scores", headline)]
    if tested:
        out_of_fold = {f"oof_{name}": heading for name, heading in HEADINGS.items()}
        grids.append(_grid(leaderboard, style, "Scores out of fold", "folds", out_of_fold))
    plain = replace(style, interval=Template(""), spread=Template(""))
    for score, mean in CLASS_SCORES.items():
        classes = {f"{part}_{score}_{name}": style.escape(name) for name in leaderboard.class_names}
        title = f"{score.capitalize()} of each class {where}"
        grids.append(_grid(leaderboard, plain, title, score, classes | {f"{part}_{mean}": "mean"}))
    return [grid for grid in grids if len(grid.headings) > grid.num_text]


def _grid(leaderboard: Leaderboard, style: Style, title: str, label: str, columns: dict[str, str]) -> Grid:
    """Returns a table of the scores `columns`, which maps the name of a score to its heading."""
    shown = [column for column in columns if column in leaderboard.score_columns]
    text = ["", "name", "kind"] if label == "scores" else ["", "name"]
    cells = []
    for place, row in enumerate(leaderboard.rows, start=1):
        words = [str(place), style.escape(row.name), row.kind][: len(text)]
        cells.append(words + [score_cell(leaderboard, row, column, style) for column in shown])
    headings = text + [columns[column] for column in shown]
    return Grid(title, label, headings, len(text), cells, _note(leaderboard, style, shown))


def score_cell(leaderboard: Leaderboard, row: Row, column: str, style: Style) -> str:
    """Returns the score of a row, bold if no row has a better one, with its interval or spread if it has one."""
    if column not in row.scores:
        return style.missing
    value = _number(row.scores[column])
    # The best as it is printed: numbers that look the same are marked the same.
    best = max(_number(other.scores[column]) for other in leaderboard.rows if column in other.scores)
    cell = style.bold.substitute(x=value) if value == best and len(leaderboard.rows) > 1 else value
    if f"{column}_low" in row.scores:
        ends = {"low": _number(row.scores[f"{column}_low"]), "high": _number(row.scores[f"{column}_high"])}
        cell += style.interval.substitute(ends)
    if f"{column}_sd" in row.scores:
        cell += style.spread.substitute(sd=_number(row.scores[f"{column}_sd"]))
    return cell


def _note(leaderboard: Leaderboard, style: Style, shown: list[str]) -> str:
    """Returns what the marks in the cells mean, of those that there are."""
    notes = ["Bold: best of the column."] if len(leaderboard.rows) > 1 else []
    if style.interval.template and any(f"{column}_low" in leaderboard.score_columns for column in shown):
        notes.append("In brackets: 95% interval from resamples of whole groups.")
    if style.spread.template and any(f"{column}_sd" in leaderboard.score_columns for column in shown):
        notes.append("After ±: standard deviation over the folds.")
    return style.escape(" ".join(notes))


def _number(value: float) -> str:
    return f"{value:.3f}"
