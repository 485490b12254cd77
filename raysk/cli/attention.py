"""`raysk explain`: what a trained classifier looks at."""

import argparse
from pathlib import Path
from typing import Any

from raysk.cli.models import add_row
from raysk.cli.predicting import progress_shown
from raysk.errors import ConfigError


def add_explain(commands: Any) -> None:
    """Adds the command to those of `raysk`."""
    explain = commands.add_parser("explain", help="draw what a bundle, or a row of a run, looks at (Grad-CAM)")
    explain.add_argument("model", metavar="RUN|MODEL", help="a file that raysk bundle wrote, or a run directory")
    explain.add_argument(
        "images", nargs="*", metavar="IMAGES",
        help="image files, folders, or tables of image paths (the test part of the run: its confident errors, and the "
        "share of the attention on the lesions)",
    )  # fmt: skip
    explain.add_argument("--output", required=True, type=Path, metavar="DIR", help="a new folder for the pictures")
    explain.add_argument("--column", metavar="NAME", help="the column of image paths in a table (image, path, ...)")
    explain.add_argument("--class", dest="name", metavar="NAME", help="the class (the most probable one of each image)")
    explain.add_argument("--device", metavar="DEVICE", help="cpu, cuda or cuda:1 (a GPU if there is one)")
    add_row(explain)
    explain.set_defaults(run_command=_explain)


def _explain(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    folder = arguments.output
    if folder.exists():
        raise ConfigError(f"--output must be a new folder, but {folder} exists: choose another name, or remove it")
    is_run = Path(arguments.model).expanduser().is_dir()
    if not arguments.images and (not is_run or arguments.name is not None):
        got = arguments.model if not is_run else f"--class {arguments.name}"
        raise ConfigError(f"images must be given for a file and with --class, but got {got}: name images or folders")
    console = Console(soft_wrap=True, highlight=False)
    with console.status("loading torch"):
        from raysk.inference.explaining import Explainer, explain_images, explain_test_part
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
