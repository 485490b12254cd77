# PYTHON_ARGCOMPLETE_OK
"""The command line. Each command imports the heavy packages that it needs, so that help answers at once.

Exit status: 0; 2 for an error that the user can fix; 3 for a study that was cut off and can be resumed; 130 after
Ctrl-C; 141 if the reader of the output has gone, as `head` does.
"""

import argparse
import errno
import os
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

import raysk
from raysk.cli.attention import add_explain
from raysk.cli.audit import add_audit
from raysk.cli.completions import format_names, metric_names, row_names, space_names
from raysk.cli.data import add_data_commands
from raysk.cli.deploying import add_deploying
from raysk.cli.evaluating import add_evaluate
from raysk.cli.models import add_model_commands
from raysk.cli.parser import Parser
from raysk.cli.predicting import add_predict
from raysk.errors import ConfigError, RayskError
from raysk.supervision import supervised


def program() -> int:
    """Runs the typed command, a study in a supervised child process; returns the exit status."""
    arguments = _parse(None)
    if arguments.run_command is _tune:
        return supervised(lambda: _run(arguments))
    return _run(arguments)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command in this process; returns the exit status."""
    return _run(_parse(argv))


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    began = time.monotonic()  # a time budget is that of the whole command
    parser = _parser()
    if "_ARGCOMPLETE" in os.environ:  # the shell asks for words that fit
        import argcomplete

        argcomplete.autocomplete(parser)
    arguments, late = parser.parse_known_args(argv)
    arguments.words = tuple(sys.argv[1:] if argv is None else argv)
    arguments.began = began
    # Overrides and images may be on both sides of an option, but argparse takes those of one side only.
    several = next((vars(arguments)[name] for name in ("overrides", "images") if name in arguments), None)
    if late and (several is None or any(text.startswith("-") for text in late)):
        at_fault: Parser = parser if parser.unknown_options() else arguments.parser
        at_fault.error(f"unrecognized arguments: {' '.join(late)}")
    if late and several is not None:
        several += late
    return arguments


def _run(arguments: argparse.Namespace) -> int:
    if sys.stdout is None:  # closed, as by >&-
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - open until the end
    try:
        status: int = arguments.run_command(arguments)
        sys.stdout.flush()
    except (BrokenPipeError, SystemExit) as error:
        # Rich answers a broken pipe with SystemExit; any other, such as Ray's for SIGTERM, is no broken pipe.
        if not isinstance(error.__context__ if isinstance(error, SystemExit) else error, BrokenPipeError):
            raise
        _discard_output()
        return 141
    except OSError as error:
        if error.errno != errno.ENOSPC or arguments.debug:
            raise
        print("raysk: the output must have room, but its disk is full: free space", file=sys.stderr)
        _discard_output()
        return 2
    except RayskError as error:
        if arguments.debug:
            traceback.print_exc()
        else:
            print(f"raysk: {error}", file=sys.stderr)
        return error.status
    except KeyboardInterrupt:
        if arguments.debug:
            traceback.print_exc()
        else:
            print("raysk: interrupted", file=sys.stderr)
        return 130
    return status


def _discard_output() -> None:
    """Makes the rest of the output vanish, since Python flushes once more at its end, which must not fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser() -> Parser:
    parser = Parser(prog="raysk", description=str(raysk.__doc__).partition("\n")[0])
    parser.add_argument("--version", action="version", version=f"raysk {raysk.__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    # Without abbreviations, since the run records the typed command.
    about = "search a space of recipes, ensemble the best, write the leaderboard"
    _add_tune(commands.add_parser("tune", help=about, allow_abbrev=False))
    train = commands.add_parser("train", help="train one recipe over all folds, without Ray")
    train.add_argument("recipe", type=Path, metavar="FILE", help="recipe file; raysk recipe prints one")
    train.add_argument("--run", metavar="DIR", help="run directory (runs/FILE-DATE)")
    train.add_argument("--resume", action="store_true", help="continue the run; finished folds are not repeated")
    train.add_argument("--seeds", type=int, default=1, metavar="N", help="train with N seeds, and show the spread (1)")
    train.add_argument("--gpus-per-worker", type=int, choices=(0, 1), default=1, help="0 trains on the CPU (1 if any)")
    train.set_defaults(run_command=_train)
    recipe = commands.add_parser("recipe", help="print the recipe of a leaderboard row")
    recipe.add_argument("run", metavar="RUN", help="the run directory")
    row = recipe.add_argument("row", metavar="ROW", help="place, name or key of the row")
    row.completer = row_names  # type: ignore[attr-defined]
    recipe.set_defaults(run_command=_recipe)
    config = commands.add_parser("config", help="print the configuration and explain each setting")
    config.add_argument("overrides", nargs="*", metavar="PART|KEY=VALUE", help="stage_two prints only that part")
    of_space = config.add_argument("--space", help="print the configuration of this search space")
    of_space.completer = space_names  # type: ignore[attr-defined]
    config.set_defaults(run_command=_config)
    spaces = commands.add_parser("spaces", help="list the search spaces, or show one")
    shown = spaces.add_argument("space", nargs="?", metavar="SPACE", help="show what it searches and where it starts")
    shown.completer = space_names  # type: ignore[attr-defined]
    spaces.set_defaults(run_command=_spaces)
    data = commands.add_parser("data", help="inspect, audit or prepare a collection")
    data_commands = data.add_subparsers(title="commands", required=True, metavar="COMMAND")
    add_data_commands(data_commands)
    add_audit(data_commands)
    parts = commands.add_parser("parts", help="list losses, heads, samplers, views and their settings, or show one")
    parts.add_argument("part", nargs="?", metavar="PART", help="name of a part, such as focal")
    parts.set_defaults(run_command=_parts)
    leaderboard = commands.add_parser("leaderboard", help="print the leaderboard of a run")
    leaderboard.add_argument("run", metavar="RUN", help="the run directory")
    form = leaderboard.add_argument(
        "--format", default="md", metavar="FORMAT", help="md, csv, tex, html, json, parquet (md)"
    )
    form.completer = format_names  # type: ignore[attr-defined]
    ranked_by = leaderboard.add_argument("--metric", help="rank a finished study anew, such as by auc@CLASS")
    ranked_by.completer = metric_names  # type: ignore[attr-defined]
    leaderboard.set_defaults(run_command=_leaderboard)
    add_model_commands(commands)
    add_predict(commands)
    add_explain(commands)
    add_evaluate(commands)
    add_deploying(commands)
    return parser


def _add_tune(tune: argparse.ArgumentParser) -> None:
    tune.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="data=csv data.path=..., stage_one.epochs=50")
    space = tune.add_argument("--space", required=True, help="name of a search space, or a file")
    space.completer = space_names  # type: ignore[attr-defined]
    tune.add_argument(
        "--run", metavar="DIR", help="run directory (runs/SPACE-DATE), or s3://BUCKET/PREFIX to copy it to"
    )
    tune.add_argument("--resume", action="store_true", help="continue the run; finished jobs are not repeated")
    tune.add_argument("--trials", type=int, metavar="N", help="recipes in all (the starts, a control and three drawn)")
    require = "a bound that comes before the metric, such as sensitivity@CLASS>=0.9, in quotation marks; repeatable"
    tune.add_argument("--require", action="append", default=[], metavar="BOUND", help=require)
    tune.add_argument("--time-budget", type=float, metavar="SECONDS", help="end in this time, with what is finished")
    tune.add_argument("--address", help="an existing Ray cluster, such as auto (start Ray on this machine)")
    tune.add_argument("--workers", type=int, default=1, metavar="N", help="DDP workers per lane (1)")
    tune.add_argument(
        "--gpus-per-worker",
        type=float,
        metavar="G",
        help="GPUs of each worker; 0 trains on CPUs (1 if any)",
    )
    tune.set_defaults(run_command=_tune)


def _tune(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    console = Console(soft_wrap=True)
    with console.status("loading torch and Ray"):
        from raysk.overrides import list_override
        from raysk.search.study import StudyRequest, run_study

    required = [list_override("require", arguments.require)] if arguments.require else []
    request = StudyRequest(
        space=arguments.space,
        overrides=(*arguments.overrides, *required),
        run=arguments.run,
        resume=arguments.resume,
        trials=arguments.trials,
        time_budget=arguments.time_budget,
        address=arguments.address,
        workers=arguments.workers,
        gpus_per_worker=arguments.gpus_per_worker,
        words=arguments.words,
        began=arguments.began,
    )
    if run_study(request, console) is None:
        console.print("the study ended early: run the same command with --resume to continue")
        return 130
    return 0


def _train(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    folder = None if arguments.run is None else _folder(arguments.run)
    console, gpus = Console(soft_wrap=True), arguments.gpus_per_worker > 0
    with console.status("loading torch"):
        from raysk.retraining import train_recipe

    train_recipe(arguments.recipe, folder, arguments.resume, console, gpus, arguments.seeds)
    return 0


def _recipe(arguments: argparse.Namespace) -> int:
    from raysk.retraining import RecipeFile
    from raysk.run import Run

    sys.stdout.write(RecipeFile.of_row(Run.open(_folder(arguments.run)), arguments.row).text())
    return 0


def _config(arguments: argparse.Namespace) -> int:
    from raysk.cli.explaining import explain
    from raysk.config import compose_plain
    from raysk.spaces.space import load_space

    overrides = [text for text in arguments.overrides if "=" in text]
    parts = [text for text in arguments.overrides if "=" not in text]
    if len(parts) > 1:
        raise ConfigError(f"config must print one part, but got {' and '.join(parts)}: name one")
    settings = load_space(arguments.space).settings if arguments.space else ()
    sys.stdout.write(explain(compose_plain(*settings, *overrides), *parts))
    return 0


def _spaces(arguments: argparse.Namespace) -> int:
    from raysk.spaces.files import list_spaces, show_space

    if arguments.space:
        sys.stdout.write(show_space(arguments.space))
        return 0
    for name, about in list_spaces():
        print(f"{name}: {about}")
    return 0


def _parts(arguments: argparse.Namespace) -> int:
    from raysk.cli.catalogue import catalogue

    sys.stdout.write(catalogue(arguments.part))
    return 0


def _leaderboard(arguments: argparse.Namespace) -> int:
    from raysk.evaluation.board_attention import with_attention
    from raysk.evaluation.formats import formats
    from raysk.evaluation.leaderboard import Leaderboard

    name, folder = arguments.format, _folder(arguments.run)
    write = formats[name]
    if arguments.metric is None:
        board = with_attention(Leaderboard.read(folder / "leaderboard.json"), folder)
    else:
        from raysk.reranking import rerank
        from raysk.run import Run

        board = rerank(Run.open(folder), arguments.metric)
    content = write(board)
    if isinstance(content, bytes):
        if b"\0" in content and sys.stdout.isatty():
            raise ConfigError(f"--format {name} must go to a file, but got a terminal: add > leaderboard.{name}")
        sys.stdout.buffer.write(content)
    else:
        sys.stdout.write(content)
    return 0


def _folder(text: str) -> Path:
    """Returns a run directory, which must be local."""
    if "://" in text or not text:
        raise ConfigError(
            f"a run directory must be a local folder, but got {text!r}: give the one that raysk tune prints"
        )
    return Path(text)
