"""The tables of an evaluation on new images, for a person and for a program."""

import csv
import io
from collections.abc import Sequence
from typing import NamedTuple

from raysk.evaluation.promise import Evaluation, Interval

# The columns of scores; those after the second are corrected for other class shares.
_COLUMNS = {"promised": "promised", "here": "here", "corrected": "corrected", "best": "with the true shares"}
_OF_CLASSES = (
    "Promised: on the locked test part of the study. Intervals of 95 % resample whole groups; those of a class are "
    "Wilson's. Corrected: for the shift of the class shares since training, if the predictions show one, without any "
    "label (Saerens et al. 2002); right only if nothing but the shares has changed. With the true shares: what a "
    "perfect estimate of them would give. The correction serves accuracy; it can cost recall of rare classes.",
)
_OF_MASKS = (
    "Promised: on the locked test part of the study, in the square in the middle of each picture, at the size of the "
    "network's images. Here: in whole pictures, at the size of each. Distances are shares of the diagonal. Intervals "
    "of 95 % resample whole groups.",
)


class Cells(NamedTuple):
    """A table as texts; the first column holds names, the others numbers."""

    title: str
    headings: Sequence[str]
    lines: Sequence[Sequence[str]]


def tables(evaluation: Evaluation) -> list[Cells]:
    """Returns the table of the scores and that of the classes."""
    columns = _COLUMNS if evaluation.classes else dict(list(_COLUMNS.items())[:2])
    scores = [
        [line.name.replace("_", " "), *(_text(getattr(line, column)) for column in columns)]
        for line in evaluation.scores
    ]
    of_scores = Cells("Scores", ["score", *columns.values()], scores)
    if not evaluation.classes:
        return [of_scores]
    classes = [
        [
            line.name, str(line.num_images), f"{line.share_in_training:.1%}", f"{line.share_here:.1%}",
            f"{line.share_estimated:.1%}", *map(_text, (line.promised, line.here, line.corrected)),
        ]
        for line in evaluation.classes
    ]  # fmt: skip
    return [
        of_scores,
        Cells(
            "Classes",
            ["class", "images", "share in training", "share here", "share estimated", "recall promised", "recall here",
             "recall corrected"],
            classes,
        ),
    ]  # fmt: skip


def sentences(evaluation: Evaluation) -> list[str]:
    """Returns what the tables are about, and what a reader must know."""
    grouped = "each a group of its own"
    if evaluation.num_groups < evaluation.num_images:
        grouped = f"in {evaluation.num_groups:,} groups"
    return [
        f"{evaluation.name} on {evaluation.num_images:,} images of {evaluation.data}, {grouped}.",
        *evaluation.notes,
        *(_OF_CLASSES if evaluation.classes else _OF_MASKS),
    ]


def as_markdown(evaluation: Evaluation) -> str:
    """Returns evaluation.md."""
    first, *others = sentences(evaluation)
    blocks = ["# Promised and found", first]
    for title, headings, lines in tables(evaluation):
        rows = [headings, ["---", *["---:"] * (len(headings) - 1)], *lines]
        table = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)
        blocks += [f"## {title}", table]
    return "\n\n".join([*blocks, *others]) + "\n"


def as_csv(evaluation: Evaluation) -> str:
    """Returns evaluation.csv: one line per score or recall and column, with the ends of its interval."""
    lines: list[list[object]] = [["score", "of", "value", "low", "high"]]
    for score in evaluation.scores:
        lines += [_numbers(score.name, of, getattr(score, of)) for of in ("promised", "here", "corrected", "best")]
    for line in evaluation.classes:
        lines += [_numbers(f"recall_{line.name}", of, getattr(line, of)) for of in ("promised", "here", "corrected")]
        lines += [
            _numbers(f"share_{line.name}", of, Interval(value=getattr(line, f"share_{of}")))
            for of in ("in_training", "here", "estimated")
        ]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()


def _numbers(name: str, of: str, interval: Interval) -> list[object]:
    return [name, of, interval.value, interval.low, interval.high]


def _text(interval: Interval) -> str:
    if interval.value is None:
        return "–"
    if interval.low is None or interval.high is None:
        return f"{interval.value:.3f}"
    return f"{interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"
