"""`raysk data audit`: finds problems in a collection or in a given split."""

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raysk.errors import ConfigError

if TYPE_CHECKING:  # help does not wait for the console and the data, which take a second to import
    from rich.console import Console

    from raysk.data.audit.auditing import Audit, StepCallback
    from raysk.data.audit.findings import Finding
    from raysk.data.audit.splits import Entries
    from raysk.data.contact_sheets import Captioned
    from raysk.data.manifest import Manifest
    from raysk.data.sources import DataSettings

NUM_EXAMPLES = 3
MOST_NAMES = 20


def add_audit(commands: Any) -> None:
    """Adds the command to those of `raysk data`."""
    audit = commands.add_parser("audit", help="find leaks, duplicates and bad files in a collection or a split")
    audit.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="a collection: data=csv data.path=...")
    audit.add_argument(
        "--split",
        nargs="+",
        action="extend",
        metavar="PART=FILE",
        help="instead, the lists of a split: train=FILE test=FILE val=FILE",
    )
    audit.add_argument("--images", type=Path, metavar="DIR", help="folder of the listed images, at any depth")
    audit.add_argument(
        "--metadata", type=Path, metavar="FILE", help="table of the listed images: lesion, patient, label"
    )
    audit.add_argument("--out", type=Path, metavar="FILE", help="write each row of each finding as CSV")
    audit.add_argument("--pairs", type=Path, metavar="FILE", help="draw duplicates side by side as PNG, leaks first")
    audit.add_argument(
        "--join", type=Path, metavar="FILE", help="write the collection as Parquet with duplicates in one group"
    )
    audit.set_defaults(run_command=run_audit)


def run_audit(arguments: argparse.Namespace) -> int:
    """Runs the audit and prints its findings; returns 1 if anything leaks, else 0."""
    from rich.console import Console

    from raysk.cli.advice import advice
    from raysk.data.audit.auditing import audit
    from raysk.data.audit.splits import entries_of, read_split

    console = Console(soft_wrap=True, highlight=False)
    _check_request(arguments)
    manifest: Manifest | None = None
    settings: DataSettings | None = None
    if arguments.split:
        entries = read_split(_lists(arguments.split), arguments.images, arguments.metadata)
        num_parts = 2
    else:
        manifest, num_parts, settings = _collection(arguments.overrides)
        entries = entries_of(manifest)
    with _progress(console) as progress:
        report = audit(entries, num_parts, progress)
    _print_classes(report, console)
    _print_findings(report, console)
    if arguments.out is not None:
        report.write(arguments.out)
        console.print(f"rows of all findings: {arguments.out}", markup=False)
    if arguments.pairs is not None:
        _draw(report, arguments.pairs, console)
    if arguments.join is not None and manifest is not None:
        _join(manifest, report, arguments.join, console)
    console.print(advice(report, arguments, settings), markup=False)
    return 1 if report.leaks else 0


def _check_request(arguments: argparse.Namespace) -> None:
    if bool(arguments.split) == bool(arguments.overrides):
        raise ConfigError(
            "an audit must have either a collection or a split, but got "
            f"{'both' if arguments.split else 'neither'}: give data=NAME data.path=DIR, or --split train=FILE test=FILE"
        )
    if arguments.join is not None and arguments.split:
        raise ConfigError("--join must have a collection, but got --split: give data=NAME data.path=DIR instead")
    if not arguments.split and (arguments.images or arguments.metadata):
        raise ConfigError("--images and --metadata must have a split, but got none: give --split train=FILE test=FILE")
    if arguments.pairs is not None and arguments.pairs.suffix.lower() != ".png":
        raise ConfigError(f"--pairs must be a PNG file, but got {arguments.pairs}: end its name with .png")
    if arguments.join is not None and arguments.join.suffix.lower() != ".parquet":
        raise ConfigError(f"--join must be a Parquet file, but got {arguments.join}: end its name with .parquet")


def _lists(texts: Sequence[str]) -> dict[str, Path]:
    lists: dict[str, Path] = {}
    for text in texts:
        part, equals, path = text.partition("=")
        if not equals or not part or not path or part in lists:
            raise ConfigError(f"--split must be PART=FILE, each part once, but got {text!r}: write train={text}")
        lists[part] = Path(path)
    if len(lists) < 2:
        raise ConfigError(f"--split must have two parts or more, but got {', '.join(lists)}: add test=FILE")
    return lists


def _collection(overrides: Sequence[str]) -> "tuple[Manifest, int, DataSettings]":
    from raysk.config import compose_plain, read_config
    from raysk.data.sources import load_manifest

    config = read_config(compose_plain(*overrides))
    manifest = load_manifest(config.data, config.cache_folder)
    with_test = "test" not in manifest.roles and config.folds.test_share > 0
    return manifest, config.folds.k + with_test, config.data


@contextmanager
def _progress(console: "Console") -> "Iterator[StepCallback]":
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bars(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        tasks: dict[str, Any] = {}

        def show(step: str, done: int, total: int) -> None:
            if step not in tasks:
                tasks[step] = bars.add_task(step, total=total)
            bars.update(tasks[step], completed=done)

        yield show


def _print_classes(report: "Audit", console: "Console") -> None:
    """Prints the number of rows by class and part, and for each leak the number of rows that leak."""
    from rich.table import Table
    from rich.text import Text

    entries, leaks = report.entries, report.leaks
    table = Table(title=f"{len(entries)} rows, {report.num_files} image files", title_justify="left")
    table.add_column("class")
    parts = entries.part_names
    for part in parts:
        table.add_column(Text(part if len(parts) > 1 else "rows"), justify="right")
    scored = [part for part in parts if len(parts) == 1 or part != parts[0]]
    exposed = [(part, leak.title, report.counts(report.exposed([leak]))) for part in scored for leak in leaks]
    shown = [column for column in exposed if any(part == column[0] for part, _ in column[2])]
    for part, title, _ in shown:
        table.add_column(Text(f"of {part}: {title}" if len(parts) > 1 else title), justify="right")
    counts = report.counts(range(len(entries)))
    labels = sorted({label for _, label in counts})
    for label in labels:
        row = [str(counts[part, label]) for part in parts]
        row += [_share(leaking[part, label], counts[part, label]) for part, _, leaking in shown]
        table.add_row(Text(label or "(no label)"), *row)
    if len(labels) > 1:
        totals = {part: sum(counts[part, label] for label in labels) for part in parts}
        row = [str(totals[part]) for part in parts]
        row += [_share(sum(leaking[part, label] for label in labels), totals[part]) for part, _, leaking in shown]
        table.add_section()
        table.add_row("all", *row)
    console.print(table)


def _share(count: int, total: int) -> str:
    return f"{count} ({count / total:.1%})" if total else "0"


def _print_findings(report: "Audit", console: "Console") -> None:
    for option, count in report.entries.matched.items():
        if count < len(report.entries):
            console.print(f"{option} matched {count} of {len(report.entries)} rows", markup=False)
    colours = {"leak": "bold red", "error": "yellow", "hint": "cyan"}
    for finding in report.findings:
        console.print(f"{finding.severity:<6}", style=colours[finding.severity], end="")
        console.print(_sentence(finding, report.entries), markup=False)


def _sentence(finding: "Finding", entries: "Entries") -> str:
    words = finding.title
    if finding.cases:
        cases, rows = len(finding.cases), len(finding.rows)
        words += f": {rows} row{'s' * (rows > 1)}"
        words += f" in {cases} case{'s' * (cases > 1)}" if cases < rows else ""
    if finding.note:
        words += f" ({finding.note})"
    examples = [
        " and ".join(_row(row, finding, entries) for row in _example(case, entries))
        for case in finding.cases[:NUM_EXAMPLES]
    ]
    if examples:
        words += f"; for example {'; '.join(examples)}{'; …' if len(finding.cases) > NUM_EXAMPLES else ''}"
    return words


def _example(case: Sequence[int], entries: "Entries") -> list[int]:
    """Returns two rows of a case that differ in part, label or group, if any do."""
    first, *others = case

    def difference(row: int) -> tuple[bool, bool, bool]:
        ties = any(values[row] != values[first] for values in entries.ties.values())
        return entries.parts[row] != entries.parts[first], entries.labels[row] != entries.labels[first], ties

    return [first, *sorted(others, key=difference)[-1:]]


def _row(row: int, finding: "Finding", entries: "Entries") -> str:
    note = f": {finding.notes[row]}" if row in finding.notes else ""
    part = entries.parts[row] if len(entries.part_names) > 1 else ""
    words = " ".join(word for word in (part, entries.labels[row]) if word)
    return f"{entries.images[row]} ({words}{note})" if words or note else entries.images[row]


def _draw(report: "Audit", path: Path, console: "Console") -> None:
    from raysk.data.contact_sheets import Pair, draw_pairs
    from raysk.data.sources.base import number_of

    pairs = []
    for first, second in report.alike:
        images = (_captioned(report.entries, first), _captioned(report.entries, second))
        if images[0] is not None and images[1] is not None:
            pairs.append(Pair((images[0], images[1]), report.leaks_between(first, second)))
    files = draw_pairs(pairs, path, report.entries.bits)
    num_leaks = sum(pair.leaks for pair in pairs)
    words = "none, so nothing is drawn"
    if files:
        shown = [str(file) for file in files]
        names = ", ".join(shown if len(shown) <= MOST_NAMES else [*shown[:2], "...", shown[-1]])
        words = f"{number_of(len(pairs), 'pair')}, of which {num_leaks} leak{'s' * (num_leaks == 1)}: {names}"
    console.print(f"duplicates: {words}", markup=False)


def _captioned(entries: "Entries", row: int) -> "Captioned | None":
    """Returns the file of a row with its part, its label and its groups, None without a file."""
    from raysk.data.contact_sheets import Captioned

    path = entries.paths[row]
    lines = [" ".join(word for word in (entries.parts[row], entries.labels[row]) if word)]
    for column, values in entries.ties.items():
        if values[row]:
            lines.append("a group of its own" if values[row] == entries.images[row] else f"{column} {values[row]}")
    return None if path is None else Captioned(path, tuple(lines))


def _join(manifest: "Manifest", report: "Audit", path: Path, console: "Console") -> None:
    from raysk.data.audit.joining import joined_groups, shared_extras, write_table
    from raysk.data.sources.base import number_of

    joined = joined_groups(manifest, report.alike)
    shared = shared_extras(joined)
    write_table(joined.without(shared) if shared else joined, path)
    if shared:
        console.print(
            f"left out of {path}: {number_of(len(shared), 'train_only row')} whose groups have rows of other roles",
            markup=False,
        )
