"""The checks of an audit: each function looks for one kind of problem and returns its findings."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from raysk.data.audit.scanning import TINY, Scan
from raysk.data.audit.shortcuts import Shortcut, find_shortcuts
from raysk.data.audit.splits import Entries
from raysk.data.manifest import IntArray
from raysk.data.sources.base import number_of

Severity = Literal["leak", "error", "hint"]


@dataclass(frozen=True, eq=False)
class Finding:
    """One kind of problem, with every case of it.

    Attributes:
        severity: "leak" (scores on these rows mean nothing), "error" (a row is wrong) or "hint" (worth a look).
        title: The problem.
        cases: The rows of each case.
        note: A remark on the finding.
        notes: Remarks on single rows.
        of_files: Whether the files of the rows are missing or cannot be read.
    """

    severity: Severity
    title: str
    cases: list[list[int]]
    note: str = ""
    notes: dict[int, str] = field(default_factory=dict)
    of_files: bool = False

    @property
    def rows(self) -> list[int]:
        """The rows of all cases, sorted, each once."""
        return sorted({row for case in self.cases for row in case})


def cases_of(values: Sequence[str], *varying: Sequence[str]) -> list[list[int]]:
    """Returns the cases of two or more rows that share a non-empty value but vary in every column of `varying`."""
    rows = defaultdict(list)
    for row, value in enumerate(values):
        if value:
            rows[value].append(row)
    return [
        case
        for case in rows.values()
        if len(case) > 1 and all(len({column[row] for row in case}) > 1 for column in varying)
    ]


def values_of_rows(file_of_row: IntArray, values: Sequence[str]) -> list[str]:
    """Returns the value of each row's file, "" without a file."""
    return [values[file] if file >= 0 else "" for file in file_of_row.tolist()]


def _finding(severity: Severity, title: str, cases: list[list[int]], note: str = "") -> list[Finding]:
    return [Finding(severity, title, cases, note)] if cases else []


def _scored(entries: Entries, values: Sequence[str]) -> list[str]:
    """Returns the values, "" for rows that raysk keeps away from their like by itself."""
    return ["" if entries.leaves_out(row) else value for row, value in enumerate(values)]


def same_names(entries: Entries) -> list[Finding]:
    """Finds images that are in two rows."""
    across = cases_of(entries.names, entries.parts)
    within = [f"{part}\0{name}" for part, name in zip(entries.parts, entries.names, strict=True)]
    return [
        *_finding("leak", "the same image in two parts", across),
        *_finding("hint", "the same image twice in a part", cases_of(within)),
    ]


def ties_across_parts(entries: Entries) -> list[Finding]:
    """Finds lesions, patients and groups that are in two parts."""
    # `same_names` reports an image that is in two parts, and an image without a group is its own group.
    return [
        finding
        for column, values in entries.ties.items()
        for finding in _finding(
            "leak",
            f"the same {column} in two parts",
            cases_of(_scored(entries, values), entries.parts, entries.names),
        )
    ]


def unlabelled_copies(entries: Entries, pictures: Sequence[str]) -> list[Finding]:
    """Finds unlabelled rows that share a picture or a group with labelled ones."""
    if not entries.folded:
        return []
    roles = ["unlabelled" if part == "unlabelled" else "" for part in entries.parts]
    cases = {tuple(case) for values in (pictures, entries.ties["group"]) for case in cases_of(values, roles)}
    note = "stage one leaves them out of each fold that holds the labelled ones out, and out of all for the test part"
    title = "unlabelled rows of labelled pictures or groups"
    return _finding("hint", title, [list(case) for case in sorted(cases)], note)


def same_pictures(entries: Entries, digests: Sequence[str], pictures: Sequence[str]) -> list[Finding]:
    """Finds equal bytes and equal pictures; skips a case of equal pictures if all its bytes are equal."""
    findings = []
    byte_cases = {tuple(case) for case in cases_of(digests)}
    for title, values in (("bytes", digests), ("picture", pictures)):
        across = cases_of(_scored(entries, values), entries.parts, entries.names)
        in_folds = [values[row] if entries.parts[row] == "folds" else "" for row in range(len(entries))]
        within = cases_of(in_folds, entries.ties["group"], entries.names) if entries.folded else []
        in_part = [f"{value}\0{part}" if value else "" for value, part in zip(values, entries.parts, strict=True)]
        twice = [] if entries.folded else cases_of(in_part, entries.names)
        if title == "picture":
            across, within, twice = (
                [case for case in cases if tuple(case) not in byte_cases] for cases in (across, within, twice)
            )
        findings += _finding("leak", f"the same {title} in two parts", across)
        findings += _finding("leak", f"the same {title} in two groups", within, "folds would separate them")
        findings += _finding("hint", f"the same {title} twice in a part", twice)
    return findings


def conflicts(entries: Entries, pictures: Sequence[str]) -> list[Finding]:
    """Finds images and pictures that have two labels."""
    labelled_names = [name if label else "" for name, label in zip(entries.names, entries.labels, strict=True)]
    labelled_pictures = [picture if label else "" for picture, label in zip(pictures, entries.labels, strict=True)]
    by_name = cases_of(labelled_names, entries.labels)
    reported = {tuple(case) for case in by_name}
    picture_cases = cases_of(labelled_pictures, entries.labels, entries.names)
    by_picture = [case for case in picture_cases if tuple(case) not in reported]
    return [
        *_finding("error", "one image with two labels", by_name),
        *_finding("error", "one picture with two labels", by_picture),
    ]


def bad_files(entries: Entries, scan: Scan, file_of_row: IntArray) -> list[Finding]:
    """Finds unreadable, blank and tiny files, and rows without a file if other rows have one."""
    findings = []
    has_file = file_of_row >= 0
    unreadable = [row for row in np.flatnonzero(has_file).tolist() if scan.reasons[file_of_row[row]]]
    if unreadable:
        reasons = {row: scan.reasons[file_of_row[row]] for row in unreadable}
        cases = [[row] for row in unreadable]
        findings.append(Finding("error", "a file that cannot be read", cases, notes=reasons, of_files=True))
    if has_file.any() and not has_file.all():
        without = [[row] for row in np.flatnonzero(~has_file).tolist()]
        findings.append(Finding("error", "a row without an image file", without, of_files=True))
    blank = [[row] for row in np.flatnonzero(has_file).tolist() if scan.one_colour[file_of_row[row]]]
    tiny = [[row] for row in np.flatnonzero(has_file).tolist() if scan.tiny[file_of_row[row]]]
    findings += _finding("error", "an image of a single colour", blank)
    findings += _finding("hint", f"an image with a side of less than {TINY} pixels", tiny)
    return findings


def lacking_classes(entries: Entries, num_parts: int) -> list[Finding]:
    """Finds classes with too few groups for all parts, and classes that the training part lacks."""
    findings = []
    for label in sorted({label for label in entries.labels if label}):
        rows = [row for row, row_label in enumerate(entries.labels) if row_label == label]
        if entries.folded:
            rows = [row for row in rows if entries.parts[row] == "folds"]
            num_groups = len({entries.ties["group"][row] for row in rows})
            if rows and num_groups < num_parts:
                few = number_of(num_groups, "group")
                note = f"{label}: {few} for {num_parts} parts; lower folds.k, or map it to another class"
                findings += _finding("error", "a class with too few groups", [rows], note)
        elif all(entries.parts[row] != entries.part_names[0] for row in rows):
            findings += _finding("error", f"a class that {entries.part_names[0]} lacks", [rows], label)
    return findings


def shortcut_findings(entries: Entries, scan: Scan, file_of_row: IntArray) -> list[Finding]:
    """Finds shortcuts: attributes of the rows or of their files that predict the label."""
    columns = dict(entries.attributes)
    if len(scan):
        width, height = (values_of_rows(file_of_row, [str(size) for size in scan.sizes[:, axis]]) for axis in (0, 1))
        columns["width of the image"], columns["height of the image"] = width, height
        columns["bytes of the file"] = values_of_rows(file_of_row, [str(number) for number in scan.num_bytes])
    groups = next((values for values in entries.ties.values()), entries.names)
    filled = [group or name for group, name in zip(groups, entries.names, strict=True)]
    findings = []
    for shortcut in find_shortcuts(columns, entries.labels, filled):
        note = f"balanced accuracy {shortcut.score:.2f}, chance {shortcut.chance:.2f}{_certainty(shortcut)}"
        findings.append(Finding("hint", f"{shortcut.name} gives the label away", [], note))
    return findings


def _certainty(shortcut: Shortcut) -> str:
    """Describes the value that only one class has, if any."""
    if shortcut.certain is None:
        return ""
    value, label = shortcut.certain
    return "; it repeats the label" if value == label else f"; rows with {value!r} are all {label!r}"
