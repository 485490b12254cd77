"""`raysk evaluate`: what a study promised, beside what labelled new images show."""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raysk.cli.data import EXAMPLE
from raysk.cli.models import add_row
from raysk.cli.predicting import progress_shown
from raysk.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from raysk.data.manifest import Manifest
    from raysk.evaluation.promise import Evaluation
    from raysk.inference.streaming import ProgressCallback
    from raysk.run import Run

    _Evaluate = Callable[[Manifest, str, str, ProgressCallback], Evaluation]

# Columns of a terminal in which a score and its interval fit on one line.
_WIDE = 125


def add_evaluate(commands: Any) -> None:
    """Adds the command to those of `raysk`."""
    evaluate = commands.add_parser("evaluate", help="compare what a study promised with labelled new images")
    evaluate.add_argument("model", metavar="RUN|MODEL", help="a file that raysk bundle wrote, or a run directory")
    evaluate.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help=f"the images: {EXAMPLE.partition(',')[0]}")
    evaluate.add_argument("--output", type=Path, metavar="DIR", help="write evaluation.json, .md and .csv there")
    evaluate.add_argument("--device", metavar="DEVICE", help="cpu, cuda or cuda:1 (a GPU if there is one)")
    add_row(evaluate)
    evaluate.set_defaults(run_command=_evaluate)


def _evaluate(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    console = Console(soft_wrap=True, highlight=False)
    _check(arguments)
    with console.status("loading torch"):
        from raysk.config import compose_plain, read_config
        from raysk.data.sources import load_manifest
        from raysk.inference.evaluating import write_evaluation
        from raysk.inference.opening import mask_run

        config = read_config(compose_plain(*arguments.overrides))
        evaluate = _of_classes(arguments) if (run := mask_run(arguments.model)) is None else _of_masks(run, arguments)
    with console.status("reading the rows"):
        manifest = load_manifest(config.data, config.cache_folder)
    data = " ".join(text for text in arguments.overrides if text.startswith("data"))
    with progress_shown(console, "predicting") as progress:
        evaluation = evaluate(manifest, data, config.data.on_error, progress)
    _show(evaluation, console)
    if arguments.output is not None:
        write_evaluation(evaluation, arguments.output)
        console.print(f"Files: {arguments.output}/evaluation.md, .csv, .json", markup=False)
    return 0


def _of_classes(arguments: argparse.Namespace) -> "_Evaluate":
    """Returns the evaluation of a classifier."""
    from raysk.inference.evaluating import evaluate
    from raysk.inference.opening import open_bundle
    from raysk.inference.predictor import Predictor
    from raysk.run import Run

    bundle = open_bundle(arguments.model, arguments.row, refitted=arguments.refitted)
    model = Path(arguments.model).expanduser()
    return partial(evaluate, Predictor(bundle, arguments.device), Run.open(model) if model.is_dir() else None)


def _of_masks(run: "Run", arguments: argparse.Namespace) -> "_Evaluate":
    """Returns the evaluation of a row that predicts masks."""
    from raysk.evaluation.ensemble import GREEDY
    from raysk.inference.mask_evaluating import evaluate_masks
    from raysk.inference.masks import Masker

    masker = Masker(run, arguments.row or GREEDY, arguments.device, refitted=arguments.refitted)
    return partial(evaluate_masks, masker, run)


def _check(arguments: argparse.Namespace) -> None:
    if not any(text.partition("=")[0] == "data" for text in arguments.overrides):
        raise ConfigError(
            f"evaluate must get labelled images, but got no data=: write for example {EXAMPLE.partition(',')[0]}"
        )
    folder = arguments.output
    if folder is not None and folder.exists() and ((folder / "evaluation.json").exists() or not folder.is_dir()):
        what = "has an evaluation" if folder.is_dir() else "is a file"
        raise ConfigError(f"--output must be a new folder, but {folder} {what}: choose another name")


def _show(evaluation: "Evaluation", console: "Console") -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from raysk.evaluation.promise_tables import sentences, tables

    first, *others = sentences(evaluation)
    is_wide = console.width >= _WIDE
    console.print(Text(first), soft_wrap=False)
    for _, headings, lines in tables(evaluation):
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, pad_edge=False)
        for place, heading in enumerate(headings):
            table.add_column(heading, justify="right" if place else "left")
        for line in lines:
            table.add_row(*(Text(cell if is_wide else cell.replace(" [", "\n[")) for cell in line))
        console.print()
        console.print(table, soft_wrap=False)
    console.print()
    for sentence in others:
        console.print(Text(sentence), soft_wrap=False)
