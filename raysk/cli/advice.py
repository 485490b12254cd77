"""The last sentence of an audit: what it checked, and what to do next."""

import argparse
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from raysk.data.audit.auditing import Audit
from raysk.data.audit.coverage import coverage
from raysk.data.sources import DataSettings


def advice(report: Audit, arguments: argparse.Namespace, settings: DataSettings | None) -> str:
    """Returns a sentence on what to do next; if nothing leaks, it names what was checked and what could not be."""
    collection = shlex.join(arguments.overrides)
    rows = "the rows that --out FILE lists" if arguments.out is None else f"the rows in {arguments.out}"
    if report.leaks and arguments.split:
        exposed = len(report.exposed(report.leaks))
        return (
            f"Do not trust scores on this split: {exposed} of its rows leak; take {rows} out of train, or split again."
        )
    if any(report.entries.parts[row] == "test" for row in report.exposed(report.leaks)):
        return f"Do not trust scores on this collection's test part: correct the roles of {rows}."
    if report.leaks and arguments.join is not None:
        return (
            "Folds of this collection would leak, but the joined table keeps duplicates together. Continue with raysk "
            f"tune --space supcon {_of_joined(report, arguments.overrides, arguments.join)}"
        )
    if report.leaks:
        extras = " and leave out the train_only rows of their groups" * ("train_only" in report.entries.parts)
        return (
            f"Folds of this collection would leak: join its duplicates{extras} with raysk data audit {collection} "
            f"--join joined.parquet, and use {_of_joined(report, arguments.overrides, Path('joined.parquet'))}"
        )
    if errors := [finding for finding in report.findings if finding.severity == "error"]:
        skip = "; data.on_error=skip leaves out bad files" * any(finding.of_files for finding in errors)
        return f"{_verdict(report, settings)}. But there are errors: correct {rows}{skip * (not arguments.split)}."
    if arguments.split:
        return f"{_verdict(report, settings)}."
    return f"{_verdict(report, settings)}. Continue with raysk tune --space supcon {collection}"


def _of_joined(report: Audit, overrides: Sequence[str], path: Path) -> str:
    """Returns the overrides for the joined table: it has its own columns, roles and classes, and all else stays."""
    kept = [text for text in overrides if re.split(r"[.@=]", text.lstrip("+~"))[0] != "data"]
    kept += [text for text in overrides if text.partition("=")[0] in ("data.classes", "data.on_error")]
    kept += [] if report.entries.bits is None else [f"data.bits={report.entries.bits}"]
    return shlex.join(["data=parquet", f"data.path={path}", *kept])


def _verdict(report: Audit, settings: DataSettings | None) -> str:
    """States what was checked without finding a leak, and what could not be checked."""
    checked, unchecked = coverage(report.entries, report.num_compared, settings)
    verdict = f"Checked without a leak: {'; '.join(checked) or 'nothing'}"
    return verdict + (f". Not checked: {'; '.join(unchecked)}" if unchecked else "")
