"""`raysk explain`: what a trained classifier looks at."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raysk.cli.models import add_row
from raysk.cli.predicting import progress_shown
from raysk.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console


def add_explain(commands: Any) -> None:
    """Adds the command to those of `raysk`."""
    explain = commands.add_parser("explain", help="draw what a bundle, or a row of a run, looks at (Grad-CAM)")
    explain.add_argument("model", metavar="RUN|MODEL", help="a file that raysk bundle wrote, or a run directory")
    explain.add_argument(
        "images", nargs="*", metavar="IMAGES",
        help="image files, folders, or tables of image paths (the test part of the run: its confident errors, and the "
        "share of the attention on the lesions)",
    )  # fmt: skip
    explain.add_argument("--output", type=Path, metavar="DIR", help="a new folder for the pictures")
    explain.add_argument(
        "--all", action="store_true",
        help="explain all rows of the run on its test part: columns of its leaderboard, where masks are known, and the "
        "confident errors of the chosen row in leaderboard.html",
    )  # fmt: skip
    explain.add_argument("--column", metavar="NAME", help="the column of image paths in a table (image, path, ...)")
    explain.add_argument("--class", dest="name", metavar="NAME", help="the class (the most probable one of each image)")
    explain.add_argument("--device", metavar="DEVICE", help="cpu, cuda or cuda:1 (a GPU if there is one)")
    add_row(explain)
    explain.set_defaults(run_command=_explain)


def _explain(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    console = Console(soft_wrap=True, highlight=False)
    is_run = Path(arguments.model).expanduser().is_dir()
    if arguments.all:
        return _explain_all(arguments, is_run, console)
    folder = arguments.output
    if folder is None or folder.exists():
        got = "got none" if folder is None else f"{folder} exists"
        raise ConfigError(f"--output must be a new folder, but {got}: choose a name, or explain a run with --all")
    if not arguments.images and (not is_run or arguments.name is not None):
        got = arguments.model if not is_run else f"--class {arguments.name}"
        raise ConfigError(f"images must be given for a file and with --class, but got {got}: name images or folders")
    with console.status("loading torch"):
        from raysk.inference.board_explaining import explain_test_part
        from raysk.inference.explaining import Explainer, explain_images
        from raysk.inference.opening import open_bundle
        from raysk.inference.predictor import Predictor
        from raysk.inference.tables import list_images
        from raysk.registry import unknown_name
        from raysk.run import Run

        images = list_images(arguments.images, arguments.column) if arguments.images else []
        bundle = open_bundle(arguments.model, arguments.row, refitted=arguments.refitted)
        names = list(bundle.facts.class_names)
        if arguments.name is not None and arguments.name not in names:
            raise unknown_name("--class", arguments.name, names)
        explainer = Explainer(Predictor(bundle, arguments.device))
    if images:
        label = None if arguments.name is None else names.index(arguments.name)
        lines = explain_images(explainer, images, folder, label)
        console.print("\n".join(lines), markup=False)
    else:
        run = Run.open(Path(arguments.model).expanduser())
        with progress_shown(console, "explaining") as progress:
            table = explain_test_part(explainer, run, folder, progress)
        console.print(table, markup=False)
    console.print(
        f"{folder}: {len(list(folder.glob('*.png')))} pictures of {bundle.facts.provenance.name}", markup=False
    )
    return 0


def _explain_all(arguments: argparse.Namespace, is_run: bool, console: "Console") -> int:
    """Adds the attention of all rows to the leaderboard of a run, and says what is known now."""
    of_one = ("images", "output", "column", "name", "row", "refitted")
    given = [name for name in of_one if getattr(arguments, name)]
    if given or not is_run:
        got = f"{given[0]} as well" if given else f"{arguments.model}, which is no folder"
        raise ConfigError(f"--all must be given with a run and nothing else to explain, but got {got}: leave it out")
    with console.status("loading torch"):
        from raysk.inference.board_explaining import explain_board
        from raysk.run import Run

        run = Run.open(Path(arguments.model).expanduser())
    with progress_shown(console, "explaining") as progress:
        record = explain_board(run, arguments.device, progress)
    for reason in record.left_out.values():
        console.print(f"left out: {reason}", markup=False)
    console.print(
        f"{run.folder / 'leaderboard.html'}: the attention of {len(record.scores)} rows on {record.num_lesions} of "
        f"{record.num_images} images with masks, and {len(record.errors)} confident errors; raysk leaderboard "
        f"{arguments.model} prints the scores",
        markup=False,
    )
    return 0
