"""The audit of a collection or of somebody's split: what leaks, what is wrong, and what is to be looked at."""

import csv
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from raysk.artifacts import replacing
from raysk.data.audit import findings as look
from raysk.data.audit.findings import Finding, cases_of, values_of_rows
from raysk.data.audit.joining import components
from raysk.data.audit.near_duplicates import find_alike
from raysk.data.audit.scanning import scan_files
from raysk.data.audit.splits import Entries

StepCallback = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class Audit:
    """What an audit found.

    Attributes:
        entries: The rows.
        findings: The findings, leaks first.
        alike: Pairs of rows that show the same picture, or are the same bytes, and are to stay in one group.
        num_files: How many image files were read.
    """

    entries: Entries
    findings: list[Finding]
    alike: list[tuple[int, int]]
    num_files: int

    @property
    def leaks(self) -> list[Finding]:
        """The findings that make scores worthless."""
        return [finding for finding in self.findings if finding.severity == "leak"]

    def exposed(self, findings: Iterable[Finding]) -> set[int]:
        """Returns the rows to be scored on that leak: those in a case with a row of a part that comes before.

        In a case within one part, which folds would divide, these are all of its rows.
        """
        place = {part: number for number, part in enumerate(self.entries.part_names)}
        rows = set()
        for finding in findings:
            for case in finding.cases:
                places = [place[self.entries.parts[row]] for row in case]
                within = min(places) == max(places)
                rows |= {row for row, at in zip(case, places, strict=True) if within or at > min(places)}
        return rows

    def counts(self, rows: Iterable[int]) -> Counter[tuple[str, str]]:
        """Returns how many of `rows` each part has of each class, by (part, label)."""
        return Counter((self.entries.parts[row], self.entries.labels[row]) for row in rows)

    def write(self, path: Path) -> None:
        """Writes a CSV table with a line for each row of each case."""
        ties = self.entries.ties
        with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["severity", "finding", "case", "part", "row", "image", "label", *ties, "note"])
            numbers = _numbers_in_part(self.entries.parts)
            for finding in self.findings:
                for number, case in enumerate(finding.cases):
                    for row in case:
                        known = [
                            self.entries.parts[row],
                            numbers[row],
                            self.entries.images[row],
                            self.entries.labels[row],
                        ]
                        tied = [values[row] for values in ties.values()]
                        note = finding.notes.get(row, "")
                        writer.writerow([finding.severity, finding.title, number, *known, *tied, note])


def audit(entries: Entries, num_parts: int = 2, progress: StepCallback | None = None) -> Audit:
    """Audits rows: their names, what ties them together, their files, their pictures and their attributes.

    Args:
        entries: The rows.
        num_parts: Into how many parts folds are to divide them, the test part included.
        progress: Called with what is being done, and the numbers of files done and in all.
    """
    files = list(dict.fromkeys(path for path in entries.paths if path is not None))
    place = {path: at for at, path in enumerate(files)}
    file_of_row = np.array([-1 if path is None else place[path] for path in entries.paths], dtype=np.int64)
    scan = scan_files(files, progress and (lambda done, total: progress("reading files", done, total)))
    shown = np.flatnonzero(scan.readable & ~scan.one_colour)
    near_duplicates = find_alike(
        scan.pictures, shown, progress and (lambda done, total: progress("comparing pictures", done, total))
    )
    digests = [""] * len(files)  # images that show nothing, or cannot be read, are not the same picture
    for file in shown.tolist():
        digests[file] = scan.digests[file]
    bytes_of_row = values_of_rows(file_of_row, digests)
    picture_of_file = components(len(files), [*near_duplicates.pairs.tolist(), *_pairs_in_order(digests)])
    picture_of_row = values_of_rows(file_of_row, [str(number) for number in picture_of_file])
    findings = [
        *look.same_names(entries),
        *look.ties_across_parts(entries),
        *look.same_pictures(entries, bytes_of_row, picture_of_row),
        *look.conflicts(entries, picture_of_row),
        *look.bad_files(entries, scan, file_of_row),
        *look.lacking_classes(entries, num_parts),
        *look.given_away(entries, scan, file_of_row),
    ]
    order = ("leak", "error", "hint")
    findings.sort(key=lambda finding: order.index(finding.severity))
    return Audit(entries, findings, _pairs_in_order(picture_of_row), len(files))


def _pairs_in_order(values: Sequence[str]) -> list[tuple[int, int]]:
    """Returns pairs that connect the places of each value, where it has several."""
    return [pair for case in cases_of(values) for pair in pairwise(case)]


def _numbers_in_part(parts: Sequence[str]) -> list[int]:
    seen: Counter[str] = Counter()
    numbers = []
    for part in parts:
        numbers.append(seen[part])
        seen[part] += 1
    return numbers
