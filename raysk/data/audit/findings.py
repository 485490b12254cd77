"""What an audit can find: each function looks for one kind of thing and returns its findings."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from raysk.data.audit.scanning import TINY, Scan
from raysk.data.audit.shortcuts import Giveaway, find_giveaways
from raysk.data.audit.splits import Entries
from raysk.data.manifest import IntArray

Severity = Literal["leak", "error", "hint"]


@dataclass(frozen=True, eq=False)
class Finding:
    """One kind of thing that was found, with every case of it.

    Attributes:
        severity: "leak": a score on these rows means nothing; "error": a row is wrong; "hint": to be looked at.
        title: What it is.
        cases: The rows of each case.
        note: What else there is to say.
        notes: What there is to say of single rows.
    """

    severity: Severity
    title: str
    cases: list[list[int]]
    note: str = ""
    notes: dict[int, str] = field(default_factory=dict)

    @property
    def rows(self) -> list[int]:
        """Every row of a case, once, in order."""
        return sorted({row for case in self.cases for row in case})


def cases_of(values: Sequence[str], *differ: Sequence[str]) -> list[list[int]]:
    """Returns the rows that share a value, where there are two or more that are different in each of `differ`."""
    rows = defaultdict(list)
    for row, value in enumerate(values):
        if value:
            rows[value].append(row)
    return [
        case for case in rows.values() if len(case) > 1 and all(len({one[row] for row in case}) > 1 for one in differ)
    ]


def values_of_rows(file_of_row: IntArray, values: Sequence[str]) -> list[str]:
    """Returns what each row has of the values of the files, "" without a file."""
    return [values[at] if at >= 0 else "" for at in file_of_row.tolist()]


def _finding(severity: Severity, title: str, cases: list[list[int]], note: str = "") -> list[Finding]:
    return [Finding(severity, title, cases, note)] if cases else []


def same_names(entries: Entries) -> list[Finding]:
    """Tells of images that are in two rows."""
    across = cases_of(entries.names, entries.parts)
    within = [f"{part}\0{name}" for part, name in zip(entries.parts, entries.names, strict=True)]
    return [
        *_finding("leak", "the same image in two parts", across),
        *_finding("hint", "the same image twice in a part", cases_of(within)),
    ]


def ties_across_parts(entries: Entries) -> list[Finding]:
    """Tells of lesions, patients and groups that are in two parts."""
    # An image that is in two parts is told of already; without a group of its own, it is its own group.
    return [
        finding
        for column, values in entries.ties.items()
        for finding in _finding(
            "leak", f"the same {column} in two parts", cases_of(values, entries.parts, entries.names)
        )
    ]


def same_pictures(entries: Entries, digests: Sequence[str], pictures: Sequence[str]) -> list[Finding]:
    """Tells of equal bytes and of like pictures, apart; a picture is told of where its bytes are not all equal."""
    found = []
    known = {tuple(case) for case in cases_of(digests)}
    for title, values in (("bytes", digests), ("picture", pictures)):
        across = cases_of(values, entries.parts, entries.names)
        parts = [values[row] if entries.parts[row] == "folds" else "" for row in range(len(entries))]
        within = cases_of(parts, entries.ties["group"], entries.names) if entries.folded else []
        inside = [f"{value}\0{part}" if value else "" for value, part in zip(values, entries.parts, strict=True)]
        twice = [] if entries.folded else cases_of(inside, entries.names)
        if title == "picture":
            across, within, twice = (
                [case for case in cases if tuple(case) not in known] for cases in (across, within, twice)
            )
        found += _finding("leak", f"the same {title} in two parts", across)
        found += _finding("leak", f"the same {title} in two groups", within, "folds would part them")
        found += _finding("hint", f"the same {title} twice in a part", twice)
    return found


def conflicts(entries: Entries, pictures: Sequence[str]) -> list[Finding]:
    """Tells of images and pictures that have two labels."""
    named = [name if label else "" for name, label in zip(entries.names, entries.labels, strict=True)]
    shown = [picture if label else "" for picture, label in zip(pictures, entries.labels, strict=True)]
    by_name = cases_of(named, entries.labels)
    known = {tuple(case) for case in by_name}
    by_picture = [case for case in cases_of(shown, entries.labels, entries.names) if tuple(case) not in known]
    return [
        *_finding("error", "one image with two labels", by_name),
        *_finding("error", "one picture with two labels", by_picture),
    ]


def bad_files(entries: Entries, scan: Scan, file_of_row: IntArray) -> list[Finding]:
    """Tells of files that cannot be read or show little, and of rows without one where others have one."""
    found = []
    known = file_of_row >= 0
    unreadable = [row for row in np.flatnonzero(known).tolist() if scan.reasons[file_of_row[row]]]
    if unreadable:
        reasons = {row: scan.reasons[file_of_row[row]] for row in unreadable}
        found.append(Finding("error", "a file that cannot be read", [[row] for row in unreadable], notes=reasons))
    if known.any() and not known.all():
        found += _finding("error", "a row without an image file", [[row] for row in np.flatnonzero(~known).tolist()])
    blank = [[row] for row in np.flatnonzero(known).tolist() if scan.one_colour[file_of_row[row]]]
    tiny = [[row] for row in np.flatnonzero(known).tolist() if scan.tiny[file_of_row[row]]]
    found += _finding("error", "an image of a single colour", blank)
    found += _finding("hint", f"an image of less than {TINY} pixels", tiny)
    return found


def lacking_classes(entries: Entries, num_parts: int) -> list[Finding]:
    """Tells of classes that cannot be in every part, and of those that a model could not have learnt."""
    found = []
    for label in sorted({label for label in entries.labels if label}):
        rows = [row for row, one in enumerate(entries.labels) if one == label]
        if entries.folded:
            rows = [row for row in rows if entries.parts[row] == "folds"]
            num_groups = len({entries.ties["group"][row] for row in rows})
            if rows and num_groups < num_parts:
                note = f"{label}: {num_groups} groups for {num_parts} parts; lower folds.k, or map it to another class"
                found += _finding("error", "a class with too few groups", [rows], note)
        elif all(entries.parts[row] != entries.part_names[0] for row in rows):
            found += _finding("error", f"a class that {entries.part_names[0]} lacks", [rows], label)
    return found


def given_away(entries: Entries, scan: Scan, file_of_row: IntArray) -> list[Finding]:
    """Tells of attributes, those of the files among them, that predict the label."""
    columns = dict(entries.attributes)
    if len(scan):
        width, height = (values_of_rows(file_of_row, [str(size) for size in scan.sizes[:, at]]) for at in (0, 1))
        columns["width of the image"], columns["height of the image"] = width, height
        columns["bytes of the file"] = values_of_rows(file_of_row, [str(number) for number in scan.num_bytes])
    groups = next((values for values in entries.ties.values()), entries.names)
    known = [group or name for group, name in zip(groups, entries.names, strict=True)]
    found = []
    for one in find_giveaways(columns, entries.labels, known):
        note = f"balanced accuracy {one.score:.2f}, chance {one.chance:.2f}{_certainty(one)}"
        found.append(Finding("hint", f"{one.name} gives the label away", [], note))
    return found


def _certainty(shortcut: Giveaway) -> str:
    """Returns words for the value that only one class has, if there is one."""
    if shortcut.certain is None:
        return ""
    value, label = shortcut.certain
    return "; it repeats the label" if value == label else f"; rows with {value!r} are all {label!r}"
