"""`raysk predict`: a trained classifier on new images."""

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raysk.cli.models import add_row
from raysk.errors import ConfigError

if TYPE_CHECKING:  # help does not wait for the console, which takes a while to import
    from rich.console import Console

    from raysk.run import Run

# Seconds between two lines where there is no terminal to draw a bar in.
_BETWEEN_LINES = 30.0


def add_predict(commands: Any) -> None:
    """Adds the command to those of `raysk`."""
    predict = commands.add_parser("predict", help="predict new images with a bundle, or with a row of a run")
    predict.add_argument("model", metavar="RUN|MODEL", help="a file that raysk bundle wrote, or a run directory")
    predict.add_argument(
        "images", nargs="+", metavar="IMAGES", help="image files, folders, or tables (CSV, Parquet) of image paths"
    )
    predict.add_argument(
        "--output",
        required=True,
        type=Path,
        metavar="FILE",
        help="the result: .csv or .parquet; of masks, a new folder",
    )
    predict.add_argument("--column", metavar="NAME", help="the column of image paths in a table (image, path, ...)")
    predict.add_argument("--address", metavar="ADDRESS", help="a Ray cluster to predict on: auto, or HOST:PORT")
    predict.add_argument("--device", metavar="DEVICE", help="cpu, cuda or cuda:1 (a GPU if there is one)")
    add_row(predict)
    predict.set_defaults(run_command=_predict)


def _predict(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    if arguments.address is not None and arguments.device is not None:
        raise ConfigError(
            f"--device must be left out with --address, whose nodes have their own, but got {arguments.device}: choose "
            "one of them"
        )
    console = Console(soft_wrap=True, highlight=False)
    with console.status("loading torch"):
        from raysk.inference.opening import mask_run, open_bundle
        from raysk.inference.parts import Parts, check_suffix
        from raysk.inference.predictor import Predictor
        from raysk.inference.streaming import predict_missing
        from raysk.inference.tables import list_images

        run = mask_run(arguments.model)
    if run is not None:
        return _predict_masks(run, arguments, console)
    with console.status("loading the model"):
        check_suffix(arguments.output)
        images = list_images(arguments.images, arguments.column)
        bundle = open_bundle(arguments.model, arguments.row, refitted=arguments.refitted)
    parts = Parts(bundle, images, arguments.output)
    try:
        with parts.reserved():
            with progress_shown(console, "predicting") as progress:
                if arguments.address is None:
                    predict_missing(Predictor(bundle, arguments.device), parts, progress)
                else:
                    from raysk.deploy.batch import predict_on_cluster

                    predict_on_cluster(bundle, parts, arguments.address, progress)
            summary = parts.join()
    except KeyboardInterrupt:
        console.print("the prediction ended early: run the same command again to continue")
        return 130
    bad = f"; {summary.num_unreadable} cannot be read: {summary.unreadable}" if summary.num_unreadable else ""
    number = f"{summary.num_images:,} image{'s' * (summary.num_images != 1)}"
    console.print(f"{arguments.output}: {number} by {bundle.facts.provenance.name}{bad}", markup=False)
    return 0


def _predict_masks(run: "Run", arguments: argparse.Namespace, console: "Console") -> int:
    from raysk.evaluation.ensemble import GREEDY
    from raysk.inference.mask_files import check_folder, write_masks
    from raysk.inference.masks import Masker
    from raysk.inference.tables import list_images

    if arguments.address is not None:
        raise ConfigError(
            f"--address must be left out for masks, which one machine predicts, but got {arguments.address}: leave it "
            "out"
        )
    check_folder(arguments.output)
    with console.status("loading the model"):
        images = list_images(arguments.images, arguments.column)
        masker = Masker(run, arguments.row or GREEDY, arguments.device, refitted=arguments.refitted)
    with progress_shown(console, "predicting") as progress:
        done, bad = write_masks(masker, images, arguments.images, arguments.output, progress)
    unread = f"; {bad} cannot be read: {arguments.output}/unreadable.csv" if bad else ""
    number = f"{done:,} mask{'s' * (done != 1)}"
    console.print(f"{arguments.output}/masks.csv: {number} by {masker.row.name}{unread}", markup=False)
    return 0


@contextmanager
def progress_shown(console: "Console", label: str) -> Iterator[Callable[[int, int], None]]:
    """Yields a function of the images done and all images.

    In a terminal it draws a bar with the rate and the time left; elsewhere it prints a line now and then.
    """
    if not console.is_terminal:
        yield _lines(console, label)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
    from rich.progress import TimeRemainingColumn as TimeLeft
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:,.0f} images/s" if task.speed else "")

    columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), Rate(), TimeLeft())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _lines(console: "Console", label: str) -> Callable[[int, int], None]:
    began = last = time.monotonic()
    first: int | None = None

    def progress(done: int, total: int) -> None:
        nonlocal first, last
        first = done if first is None else first
        now = time.monotonic()
        if now - last >= _BETWEEN_LINES and done > first:
            last = now
            rate = (done - first) / (now - began)
            left = (total - done) / rate / 60
            console.print(f"{label}: {done:,} of {total:,} images, {rate:,.1f} images/s, {left:,.0f} min left")

    return progress
