"""Audits a collection or a given split for leaks, errors and hints."""

import csv
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from raysk.artifacts import replacing
from raysk.data.audit import findings as checks
from raysk.data.audit.findings import Finding, cases_of, values_of_rows
from raysk.data.audit.joining import components
from raysk.data.audit.near_duplicates import find_alike
from raysk.data.audit.scanning import scan_files
from raysk.data.audit.splits import Entries

StepCallback = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class Audit:
    """The result of an audit.

    Attributes:
        entries: The rows.
        findings: The findings, leaks first.
        alike: Pairs of rows with the same picture or the same bytes; each pair must stay in one group.
        num_files: Number of image files read.
        num_compared: Number of rows whose pictures were compared with all others.
    """

    entries: Entries
    findings: list[Finding]
    alike: list[tuple[int, int]]
    num_files: int
    num_compared: int

    @property
    def leaks(self) -> list[Finding]:
        """The findings that invalidate scores."""
        return [finding for finding in self.findings if finding.severity == "leak"]

    def exposed(self, findings: Iterable[Finding]) -> set[int]:
        """Returns the rows whose scores the findings invalidate: those in a case with a row of an earlier part.

        If a case is within one part, which folds would divide, it exposes all of its rows.
        """
        order = {part: number for number, part in enumerate(self.entries.part_names)}
        rows = set()
        for finding in findings:
            for case in finding.cases:
                places = [order[self.entries.parts[row]] for row in case]
                within = min(places) == max(places)
                rows |= {row for row, place in zip(case, places, strict=True) if within or place > min(places)}
        return rows

    def leaks_between(self, first: int, second: int) -> bool:
        """Returns whether a pair of `alike` leaks: its rows are in two parts, or in two groups that folds divide."""
        entries = self.entries
        if entries.leaves_out(first) or entries.leaves_out(second):
            return False
        if entries.parts[first] != entries.parts[second]:
            return True
        groups = entries.ties.get("group", [])
        return entries.folded and entries.parts[first] == "folds" and groups[first] != groups[second]

    def counts(self, rows: Iterable[int]) -> Counter[tuple[str, str]]:
        """Counts `rows` by (part, label)."""
        return Counter((self.entries.parts[row], self.entries.labels[row]) for row in rows)

    def write(self, path: Path) -> None:
        """Writes a CSV table with one line for each row of each case."""
        ties = self.entries.ties
        with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["severity", "finding", "case", "part", "row", "image", "label", *ties, "note"])
            numbers = _numbers_in_part(self.entries.parts)
            for finding in self.findings:
                for number, case in enumerate(finding.cases):
                    for row in case:
                        identity = [
                            self.entries.parts[row],
                            numbers[row],
                            self.entries.images[row],
                            self.entries.labels[row],
                        ]
                        tie_values = [values[row] for values in ties.values()]
                        note = finding.notes.get(row, "")
                        writer.writerow([finding.severity, finding.title, number, *identity, *tie_values, note])


def audit(entries: Entries, num_parts: int = 2, progress: StepCallback | None = None) -> Audit:
    """Audits the names, ties, files, pictures and attributes of rows.

    Args:
        entries: The rows.
        num_parts: Number of parts that folds will divide the rows into, including the test part.
        progress: Called with the name of the step, the number of files done and the total.
    """
    files = list(dict.fromkeys(path for path in entries.paths if path is not None))
    file_numbers = {path: number for number, path in enumerate(files)}
    file_of_row = np.array([-1 if path is None else file_numbers[path] for path in entries.paths], dtype=np.int64)
    scan = scan_files(files, progress and (lambda done, total: progress("reading files", done, total)), entries.bits)
    shown = np.flatnonzero(scan.readable & ~scan.one_colour)
    near_duplicates = find_alike(
        scan.pictures, shown, progress and (lambda done, total: progress("comparing pictures", done, total))
    )
    digests = [""] * len(files)  # blank and unreadable images do not count as the same picture
    for file in shown.tolist():
        digests[file] = scan.digests[file]
    bytes_of_row = values_of_rows(file_of_row, digests)
    picture_of_file = components(len(files), [*near_duplicates.pairs.tolist(), *_pairs_in_order(digests)])
    picture_of_row = values_of_rows(file_of_row, [str(number) for number in picture_of_file])
    findings = [
        *checks.same_names(entries),
        *checks.ties_across_parts(entries),
        *checks.same_pictures(entries, bytes_of_row, picture_of_row),
        *checks.unlabelled_copies(entries, picture_of_row),
        *checks.conflicts(entries, picture_of_row),
        *checks.bad_files(entries, scan, file_of_row),
        *checks.lacking_classes(entries, num_parts),
        *checks.shortcut_findings(entries, scan, file_of_row),
    ]
    order = ("leak", "error", "hint")
    findings.sort(key=lambda finding: order.index(finding.severity))
    num_compared = sum(bool(digest) for digest in bytes_of_row)
    return Audit(entries, findings, _pairs_in_order(picture_of_row), len(files), num_compared)


def _pairs_in_order(values: Sequence[str]) -> list[tuple[int, int]]:
    """Returns pairs that connect the positions of each repeated value."""
    return [pair for case in cases_of(values) for pair in pairwise(case)]


def _numbers_in_part(parts: Sequence[str]) -> list[int]:
    seen: Counter[str] = Counter()
    numbers = []
    for part in parts:
        numbers.append(seen[part])
        seen[part] += 1
    return numbers
