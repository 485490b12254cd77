"""`raysk bundle`, `raysk show` and `raysk refit`: a leaderboard row as one file, and trained on all rows."""

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

from raysk.errors import ConfigError

SUFFIX = ".raysk"


def add_model_commands(commands: Any) -> None:
    """Adds the commands.

    Args:
        commands: The result of `add_subparsers` on `raysk`.
    """
    bundle = commands.add_parser("bundle", help="write a leaderboard row as one file that predicts")
    bundle.add_argument("run", metavar="RUN", help="the run directory")
    add_row(bundle)
    bundle.add_argument("--output", required=True, type=Path, metavar="FILE.raysk", help="the file to write")
    bundle.add_argument("--data-licence", default="", metavar="TEXT", help="a line on the licence of the images")
    bundle.add_argument("--weights-licence", default="", metavar="TEXT", help="a line on the licence of the weights")
    bundle.set_defaults(run_command=_bundle)
    show = commands.add_parser("show", help="print the model card of a bundle")
    show.add_argument("model", type=Path, metavar="FILE.raysk", help="a file that raysk bundle wrote")
    show.set_defaults(run_command=_show)
    refit = commands.add_parser("refit", help="train a row once more, on all rows that are not locked away")
    refit.add_argument("run", metavar="RUN", help="the run directory")
    refit.add_argument("--row", metavar="ROW", help="place, name or key of the row (ensemble: greedy)")
    refit.add_argument("--gpus-per-worker", type=int, choices=(0, 1), default=1, help="0 trains on the CPU (1 if any)")
    refit.set_defaults(run_command=_refit)


def add_row(command: argparse.ArgumentParser) -> None:
    """Adds the options that choose a row of a run."""
    command.add_argument("--row", metavar="ROW", help="place, name or key of a row of the run (ensemble: greedy)")
    command.add_argument(
        "--refitted", action="store_true", help="take the models of raysk refit, trained on all rows of the folds"
    )


def refuse_existing(path: Path) -> None:
    """Refuses to replace a file.

    Raises:
        ConfigError: It exists.
    """
    if path.exists():
        raise ConfigError(f"--output must be a new file, but {path} exists: choose another name, or remove it")


def _bundle(arguments: argparse.Namespace) -> int:
    output = arguments.output
    if output.suffix != SUFFIX:
        raise ConfigError(f"--output must end in {SUFFIX}, but got {output}: name it {output.stem}{SUFFIX}")
    refuse_existing(output)
    from raysk.evaluation.ensemble import GREEDY
    from raysk.inference.packing import pack_row
    from raysk.run import Run

    bundle = pack_row(
        Run.open(Path(arguments.run)),
        GREEDY if arguments.row is None else arguments.row,
        refitted=arguments.refitted,
        weights_licence=arguments.weights_licence,
        data_licence=arguments.data_licence,
    )
    digest = bundle.write(output)
    print(f"{output}: {bundle.facts.provenance.name}, {output.stat().st_size / 1e6:.1f} MB, digest {digest}")
    print(f"Next, predict new images: raysk predict {output} IMAGES --output predictions.csv")
    return 0


def _show(arguments: argparse.Namespace) -> int:
    from raysk.inference.bundle import Bundle

    sys.stdout.write(Bundle.read(arguments.model).card)
    return 0


def _refit(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    console = Console(soft_wrap=True, highlight=False)
    with console.status("loading torch"):
        from raysk.evaluation.ensemble import GREEDY
        from raysk.refitting import refit
        from raysk.run import Run

    run, wanted = Path(arguments.run), arguments.row
    name = refit(Run.open(run), GREEDY if wanted is None else wanted, console, arguments.gpus_per_worker > 0)
    row = [] if wanted is None else ["--row", wanted]
    words = ["raysk", "bundle", str(run), *row, "--refitted", "--output", f"model{SUFFIX}"]
    console.print(f"{name} is trained on all rows of the folds. Next: {shlex.join(words)}", markup=False)
    return 0
