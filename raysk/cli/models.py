"""`raysk bundle`, `show`, `encoder` and `refit`: a leaderboard row as one file, and trained on all rows."""

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

from raysk.cli.completions import row_names
from raysk.errors import ConfigError

SUFFIX = ".raysk"
WEIGHTS_SUFFIX = ".safetensors"


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
    encoder = commands.add_parser("encoder", help="write the encoder of a row as weights for other studies")
    encoder.add_argument("run", metavar="RUN", help="the run directory")
    row = encoder.add_argument("row", metavar="ROW", help="place, name or key of the row")
    row.completer = row_names
    encoder.add_argument("--output", required=True, type=Path, metavar="FILE.safetensors", help="the file to write")
    encoder.add_argument(
        "--fold", type=int, metavar="N", help="take the encoder of fold N, from 0 (that of raysk refit)"
    )
    encoder.set_defaults(run_command=_encoder)
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


def _encoder(arguments: argparse.Namespace) -> int:
    output = arguments.output
    if output.suffix != WEIGHTS_SUFFIX:
        raise ConfigError(
            f"--output must end in {WEIGHTS_SUFFIX}, but got {output}: name it {output.stem}{WEIGHTS_SUFFIX}"
        )
    refuse_existing(output)
    from raysk.inference.encoders import encoder_of_row
    from raysk.parts.weights import write_weights
    from raysk.run import Run

    tensors, origin = encoder_of_row(Run.open(Path(arguments.run)), arguments.row, arguments.fold)
    write_weights(output, tensors, origin)
    of_fold = "trained on all rows of the folds" if origin.fold < 0 else f"of fold {origin.fold}"
    print(f"{output}: the {origin.backbone} of {origin.row}, {of_fold}, {output.stat().st_size / 1e6:.1f} MB")
    words = ["raysk", "tune", "--space", "probe", f"model.backbone={origin.backbone}", f"model.checkpoint={output}"]
    print(f"Next, on other images: {shlex.join(words)}")
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
