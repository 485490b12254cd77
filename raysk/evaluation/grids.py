"""The leaderboard's tables: the same cells for every format that a person reads."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from string import Template

from raysk.evaluation.attention_scores import ENERGY, ENERGY_OF_CLASS, POINTING
from raysk.evaluation.comparison_tables import Cell, ComparisonTable
from raysk.evaluation.leaderboard import MASKS_KNOWN, SUFFIXES, Leaderboard, Row
from raysk.evaluation.metrics import Metric, parse_metric
from raysk.evaluation.requirement_checks import RequirementCheck

# A mean over the classes that stands in the table of its classes.
_OF_CLASSES = "macro_precision"

# The per-class scores in the tables, each with the score that is their mean.
CLASS_SCORES = {"f1": "macro_f1", "recall": "balanced_accuracy", "precision": "macro_precision"}

_INTERVAL_NOTE = (
    "In brackets: 95% interval for new lesions and these trained weights, from whole groups; another training seed "
    "would give another score."
)
_SPREAD_NOTE = "After ±: standard deviation over the folds."
_COST_NOTE = (
    "Time: training over all folds, with the search of stage two. Images: images trained on, counted once per view, "
    "epoch and fold."
)

_REQUIREMENT_NOTE = (
    "Under a requirement: the score on all rows of the folds at once, out of fold; in parentheses its one-sided 95% "
    "confidence bound from resamples of whole groups; met if this bound meets it."
)

_OPERATING_NOTE = (
    "A row whose probability for the class reaches the threshold is decided to be of the class, any other row to be of "
    "the most probable other class. The threshold meets the requirements out of fold; without a number, none does. "
    "Sensitivity and specificity are cross-fitted: each fold is decided by the threshold that the other folds choose."
)

_ATTENTION_NOTE = (
    "Energy: mean share of the attention to the predicted class that lies inside the lesion (Grad-CAM, of an ensemble "
    "the weighted mean over its members); then that of each class. Pointing game: share of the images whose greatest "
    "attention lies inside. An attention that is the same everywhere has the share of the lesion in both."
)


@dataclass(frozen=True)
class Style:
    """The syntax of a format for the parts of a cell.

    Attributes:
        escape: Escapes text, and puts it on one line.
        bold: Marks $x: the best score of a column out of fold, or the chosen row.
        interval: Formats $low and $high, after the value.
        spread: Formats $sd, after the value.
        missing: Stands for a score that a row does not have.
    """

    escape: Callable[[str], str]
    bold: Template
    interval: Template
    spread: Template
    missing: str


@dataclass(frozen=True)
class Grid:
    """A table in a style.

    Attributes:
        title: Its title.
        label: Its name among the tables of a leaderboard.
        headings: One per column.
        num_text: Number of text columns, which come first; the others hold numbers.
        cells: The lines.
        note: How to read it.
        placed: Whether the first column is the place of the line, which the order of the lines shows too.
    """

    title: str
    label: str
    headings: list[str]
    num_text: int
    cells: list[list[str]]
    note: str
    placed: bool = True


def headline_metrics(leaderboard: Leaderboard) -> list[Metric]:
    """Returns the metrics of the main table: the one that orders the rows, and the usual ones."""
    ranked_by = leaderboard.ranked_by
    usual = [parse_metric(name) for name in ranked_by.form.usual if name != _OF_CLASSES]
    return list(dict.fromkeys((ranked_by, *usual)))


def leaderboard_grids(leaderboard: Leaderboard, style: Style) -> list[Grid]:
    """Returns the tables of the headline scores, the scores out of fold, the per-class scores, and all further tables.

    Until a row has a score on the test part, all tables are out of fold. Columns without any score are left out.
    """
    leaderboard = leaderboard.for_tables
    part = headline_part(leaderboard)
    where = "on the test part" if part == "test" else "out of fold"
    titles = {metric.name: style.escape(metric.title) for metric in headline_metrics(leaderboard)}
    name, title = next(iter(titles.items()))
    # The score of the choice of all folds stands apart from the honest scores.
    out_of_fold = {f"oof_{name}": title, f"oof_{name}_chosen": f"{title}, as chosen"}
    out_of_fold |= {f"oof_{name}": title for name, title in titles.items()}
    if part == "test":
        # The score that orders the rows comes first.
        headline = {f"oof_{name}": f"{title} out of fold"}
        headline |= {f"test_{name}": title for name, title in titles.items()}
        grids = [
            _grid(leaderboard, style, "Scores on the test part", "scores", headline),
            _grid(leaderboard, style, "Scores out of fold", "folds", out_of_fold),
        ]
    else:
        grids = [_grid(leaderboard, style, "Scores out of fold", "scores", out_of_fold)]
    plain = replace(style, spread=Template(""))
    for score, mean in CLASS_SCORES.items():
        classes = {f"{part}_{score}_{name}": style.escape(name) for name in leaderboard.class_names}
        title = f"{score.capitalize()} of each class {where}"
        grids.append(_grid(leaderboard, plain, title, score, classes | {f"{part}_{mean}": "mean"}))
    grids = [grid for grid in grids if len(grid.headings) > grid.num_text]
    grids[:1] = [_with_requirements(grid, leaderboard, style) for grid in grids[:1]]
    grids += _attention_grid(leaderboard, style) + _operating_grid(leaderboard, style)
    return grids + [_table_grid(table, style) for table in leaderboard.tables]


def headline_part(leaderboard: Leaderboard) -> str:
    """Returns the prefix of the headline scores: "test", or "oof" until a row has a test score."""
    return "test" if any(column.startswith("test_") for column in leaderboard.score_columns) else "oof"


def with_cost(grid: Grid, leaderboard: Leaderboard, style: Style) -> Grid:
    """Adds the cost of each row."""
    lines = [
        [*line, _duration(row.seconds), f"{row.images:,}"]
        for line, row in zip(grid.cells, leaderboard.rows, strict=True)
    ]
    note = " ".join(filter(None, (grid.note, style.escape(_COST_NOTE))))
    return replace(grid, headings=[*grid.headings, "time", "images"], cells=lines, note=note)


def _table_grid(table: ComparisonTable, style: Style) -> Grid:
    """Returns a comparison table in a style."""

    def cell(content: Cell) -> str:
        if content is None:
            return style.missing
        return style.escape(content if isinstance(content, str) else _number(content))

    headings = [style.escape(heading) for heading in table.headings]
    cells = [[cell(content) for content in line] for line in table.cells]
    title, note = style.escape(table.title), style.escape(table.note)
    return Grid(title, table.label, headings, table.num_text, cells, note, placed=False)


def _grid(leaderboard: Leaderboard, style: Style, title: str, label: str, columns: dict[str, str]) -> Grid:
    """Returns a table of scores; `columns` maps the name of a score to its heading."""
    shown = [column for column in columns if column in leaderboard.score_columns]
    text = ["", "name", "kind"] if label == "scores" else ["", "name"]
    if label == "scores" and any(row.encoder for row in leaderboard.rows):
        text.append("encoder")
    cells = []
    for place, row in enumerate(leaderboard.rows, start=1):
        words = [str(place), row_name(leaderboard, row, style), row.kind, style.escape(row.encoder)][: len(text)]
        cells.append(words + [score_cell(leaderboard, row, column, style) for column in shown])
    headings = text + [columns[column] for column in shown]
    return Grid(title, label, headings, len(text), cells, _note(leaderboard, style, shown))


def _with_requirements(grid: Grid, leaderboard: Leaderboard, style: Style) -> Grid:
    """Adds a column for each requirement of the study."""
    if not leaderboard.requirements:
        return grid
    cells = [
        [*line, *(style.escape(_check_cell(check)) for check in row.requirements)]
        for line, row in zip(grid.cells, leaderboard.rows, strict=True)
    ]
    headings = [*grid.headings, *map(style.escape, leaderboard.requirements)]
    return replace(grid, headings=headings, cells=cells, note=f"{grid.note} {style.escape(_REQUIREMENT_NOTE)}".strip())


def _operating_grid(leaderboard: Leaderboard, style: Style) -> list[Grid]:
    """Returns the table of the operating points; none without requirements that have one."""
    classes = leaderboard.operating_classes
    if not classes:
        return []
    shown = {"threshold": "threshold", "sensitivity": "sensitivity", "specificity": "specificity"}
    if any(point.test_sensitivity is not None for row in leaderboard.rows for point in row.operating_points):
        shown |= {"test_sensitivity": "sensitivity, test part", "test_specificity": "specificity, test part"}
    cells = []
    for place, row in enumerate(leaderboard.rows, start=1):
        values = [getattr(point, rate) for point in row.operating_points for rate in shown]
        numbers = [style.missing if value is None else _number(value) for value in values]
        cells.append([str(place), style.escape(row.name), *numbers])
    headings = ["", "name", *(style.escape(f"{name}: {heading}") for name in classes for heading in shown.values())]
    return [Grid("Operating points", "operating", headings, 2, cells, style.escape(_OPERATING_NOTE))]


def _attention_grid(leaderboard: Leaderboard, style: Style) -> list[Grid]:
    """Returns the table of the attention inside the lesion; none until it is computed."""
    if MASKS_KNOWN not in leaderboard.meta:
        return []
    columns = {f"test_{ENERGY}": "energy inside", f"test_{POINTING}": "pointing game"}
    columns |= {f"test_{ENERGY_OF_CLASS}_{name}": style.escape(name) for name in leaderboard.class_names}
    grid = _grid(leaderboard, style, "Attention inside the lesion on the test part", "attention", columns)
    note = style.escape(f"{_ATTENTION_NOTE} Masks are known of {leaderboard.meta[MASKS_KNOWN]}.")
    return [replace(grid, note=f"{grid.note} {note}")]


def _check_cell(check: RequirementCheck) -> str:
    """Returns the score, its confidence bound, and whether this meets the requirement."""
    return f"{_number(check.score)} ({_number(check.bound)}) {'met' if check.is_met else 'not met'}"


def row_name(leaderboard: Leaderboard, row: Row, style: Style) -> str:
    """Returns the name of a row: bold if it was chosen before the test part was opened."""
    name = style.escape(row.name)
    return style.bold.substitute(x=name) if row.key == leaderboard.chosen else name


def score_cell(leaderboard: Leaderboard, row: Row, column: str, style: Style) -> str:
    """Returns the cell of a score, with its interval or spread if it has one.

    It is bold if it is the best of its column of honest scores; on the test part no score is, since that invites
    choosing by it.
    """
    if column not in row.scores:
        return style.missing
    value = _number(row.scores[column])
    # Compared as printed, so that numbers that look the same are marked the same.
    is_honest = column.startswith("oof_") and not column.endswith("_chosen")
    is_best = is_honest and value == _number(_best(leaderboard, column))
    cell = style.bold.substitute(x=value) if is_best and len(leaderboard.rows) > 1 else value
    if f"{column}_low" in row.scores:
        ends = {"low": _number(row.scores[f"{column}_low"]), "high": _number(row.scores[f"{column}_high"])}
        cell += style.interval.substitute(ends)
    if f"{column}_sd" in row.scores:
        cell += style.spread.substitute(sd=_number(row.scores[f"{column}_sd"]))
    return cell


def _best(leaderboard: Leaderboard, column: str) -> float:
    """Returns the best score of a column; larger is better, unless the metric of the column says otherwise."""
    values = [row.scores[column] for row in leaderboard.rows if column in row.scores]
    smaller = [metric.name for metric in headline_metrics(leaderboard) if not metric.larger_is_better]
    is_smaller = any(column.partition("_")[2].removeprefix(name) in SUFFIXES for name in smaller)
    return min(values) if is_smaller else max(values)


def _note(leaderboard: Leaderboard, style: Style, shown: list[str]) -> str:
    """Explains the marks that occur in the cells."""
    notes = []
    if leaderboard.chosen:
        notes.append("Bold name: the single recipe that the held-out folds chose before the test part was opened.")
    if len(leaderboard.rows) > 1 and any(column.startswith("oof_") for column in shown):
        notes.append("Bold score: best of the column out of fold.")
    if style.interval.template and any(f"{column}_low" in leaderboard.score_columns for column in shown):
        notes.append(_INTERVAL_NOTE)
    if style.spread.template and any(f"{column}_sd" in leaderboard.score_columns for column in shown):
        notes.append(_SPREAD_NOTE)
    chosen = f"oof_{leaderboard.metric}_chosen"
    if chosen in leaderboard.score_columns and any(column.startswith("oof_") for column in shown):
        notes.append(
            "Out of fold, a row that the folds chose among others has its cross-fitted score: each fold is scored with "
            "the choice of the other folds."
        )
    if chosen in shown:
        notes.append(
            "As chosen: the score of the choice of all folds together, which tends to be too "
            f"{'high' if leaderboard.ranked_by.larger_is_better else 'low'}; so are the other scores of such a row, "
            "which are in leaderboard.csv only."
        )
    return style.escape(" ".join(notes))


def _number(value: float) -> str:
    return f"{value:z.3f}".replace("-", "−")


def _duration(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f}\u00a0{unit}"
    return f"{seconds:.0f}\u00a0s"
