"""Prints the recipe of a leaderboard row, and trains it over all folds in this process, without Ray."""

import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import torch.distributed as dist
import yaml
from rich.console import Console

from raysk.config import Config
from raysk.data.folds.dividing import FoldSettings
from raysk.data.sources import DataSettings
from raysk.errors import ArtifactError, ConfigError, in_one_line
from raysk.evaluation.comparison_tables import seeds_table
from raysk.evaluation.formats import write_leaderboard
from raysk.evaluation.leaderboard import Leaderboard, Row, find_row
from raysk.evaluation.metrics import DEFAULT_METRIC, parse_metric
from raysk.evaluation.requirement_checks import requirement_facts
from raysk.evaluation.summary import show_summary
from raysk.loading import prepare_rows, read_rows
from raysk.mask_sheet import write_mask_sheet
from raysk.recipe import Job, Recipe
from raysk.run import Run
from raysk.run_facts import unlabelled_facts
from raysk.scoring import (
    NOTHING,
    TEST_PART,
    all_scores,
    chosen_on,
    commit,
    encoder_note,
    read_held_out,
    read_test,
    requirement_checks,
    row_operating_points,
    training_cost,
)
from raysk.settings import Between, Settings
from raysk.training.job import run_job
from raysk.training.loop import StageProgress
from raysk.training.world import World

_MOST_SEEDS = 100
# How many of the usual metrics have their spread over seeds shown, beside the one of the run.
_OF_THE_SPREAD = 3


@dataclass(frozen=True, kw_only=True)
class RecipeFile(Settings):
    """The file that `raysk recipe` prints and `raysk train` reads: a recipe, and all else that its score depends on.

    Args:
        data: The rows.
        folds: How the rows are divided.
        recipe: The recipe to train.
        cache: Folder of decoded images on this machine.
        stores: Folder of decoded images for all machines.
        workers: Number of DDP workers that trained the row; batch norm sees their shares of a batch.
        threads: Number of threads of each worker; sums of floats depend on how they are divided.
        name: Display name of the row; without one, the row is named by the file.
        chosen_on: The rows on which the run chose the recipe.
        metric: Metric of the study, by which the row is scored; it does not change what is trained.
        require: Requirements of the study.
    """

    data: DataSettings
    folds: FoldSettings
    recipe: Recipe
    cache: str = "~/.cache/raysk"
    stores: str | None = None
    workers: Annotated[int, Between(1, 100_000)] = 1
    threads: Annotated[int, Between(1, 100_000)] | None = None
    name: str | None = None
    chosen_on: str = NOTHING
    metric: str = DEFAULT_METRIC
    require: tuple[str, ...] = ()

    @classmethod
    def of_row(cls, run: Run, row: str) -> "RecipeFile":
        """Returns the recipe of a leaderboard row.

        Args:
            run: The run directory.
            row: The place, the name or the key of the row, or the first characters of the key.

        Raises:
            ArtifactError: The row does not exist, or is an ensemble.
        """
        match = find_row(Leaderboard.read(run.folder / "leaderboard.json"), row)
        if match.kind == "ensemble":
            raise ArtifactError(
                f"ROW must be a single recipe, but {match.name!r} averages several: give the key of one of its "
                f"members, which are in {run.ensemble_file(match.name)}"
            )
        recipe = run.recipe(match.key)
        record = run.record(Job(recipe, 0))
        return cls(
            data=DataSettings.from_plain(run.facts.data),
            folds=FoldSettings.from_plain(run.facts.divide),
            recipe=recipe,
            cache=run.facts.cache,
            stores=run.stores,
            workers=record.workers,
            threads=record.threads,
            name=match.name,
            chosen_on=match.chosen_on,
            metric=run.goal.metric.name,
            require=run.goal.required,
        )

    @classmethod
    def read(cls, path: Path) -> "RecipeFile":
        """Reads the file.

        Raises:
            ConfigError: It is missing, is not YAML, or a value breaks a rule.
        """
        try:
            plain = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ConfigError(
                f"FILE must be a recipe in YAML, but {in_one_line(error)}: print one with raysk recipe"
            ) from error
        if not isinstance(plain, dict) or not {"data", "folds", "recipe"} <= plain.keys():
            raise ConfigError(
                f"FILE must be a recipe with data, folds and recipe, but {path} is not: print one with raysk recipe"
            )
        return cls.from_plain(plain)

    def text(self) -> str:
        """Returns the file's text."""
        return yaml.safe_dump(self.to_plain(), sort_keys=False, allow_unicode=True)


def train_recipe(
    path: Path, folder: Path | None, resume: bool, console: Console, gpus: bool = True, seeds: int = 1
) -> Leaderboard | None:
    """Trains the recipe of a file over all folds, scores it on the locked test part, and writes and shows its row.

    With several seeds, each has a row, and a table shows the spread of their scores.

    Under torchrun all processes train together.

    Args:
        path: The file.
        folder: The run directory; None makes a new one.
        resume: Whether to continue an existing run.
        console: Shows progress.
        gpus: Whether each process takes a GPU, if there are any.
        seeds: Number of training seeds: that of the recipe, and the next ones.

    Returns:
        The leaderboard; None on all processes but the main rank.

    Raises:
        RayskError: The user can fix the problem.
    """
    file = RecipeFile.read(path)
    recipes = _with_seeds(file.recipe, seeds)
    with _joined(gpus) as world:
        quiet = Console(quiet=not world.is_main_rank, soft_wrap=True) if not world.is_main_rank else console
        if file.workers != world.size:
            quiet.print(
                f"{file.workers} workers trained the row, but this run has {world.size}: scores will differ a little"
                f" (torchrun --nproc-per-node {file.workers} -m -- raysk.cli train ...)",
                highlight=False,
            )
        if file.threads is not None:
            torch.set_num_threads(file.threads)
        quiet.print(f"training on {device_name(world.device)}", highlight=False)
        run = _open_run(path, file, recipes, folder, resume, world, quiet)
        with Run.reserved(run.folder) if world.is_main_rank else nullcontext():
            for job in (Job(recipe, fold) for recipe in recipes for fold in range(len(run.folds))):
                where = f"seed {job.recipe.seed}, " if len(recipes) > 1 else ""
                where += f"fold {job.fold + 1} of {len(run.folds)}"
                run_job(job, run, world, partial(_report, quiet, where))
                run_job(job.for_test(), run, world, lambda progress: False)
            leaderboard = _leaderboard(run, file, recipes, path) if world.is_main_rank else None
        if leaderboard is not None:
            show_summary(leaderboard, str(run.folder), quiet)
        return leaderboard


def _with_seeds(recipe: Recipe, seeds: int) -> list[Recipe]:
    if not 1 <= seeds <= _MOST_SEEDS:
        raise ConfigError(f"--seeds must be in [1, {_MOST_SEEDS}], but got {seeds}: give the number of training seeds")
    return [replace(recipe, seed=recipe.seed + number) for number in range(seeds)]


def _open_run(
    path: Path,
    file: RecipeFile,
    recipes: Sequence[Recipe],
    folder: Path | None,
    resume: bool,
    world: World,
    console: Console,
) -> Run:
    """Makes or opens the run directory on the main rank; the other ranks receive its path."""
    if world.is_main_rank:
        folder = folder or Path("runs") / f"{path.stem}-{datetime.now():%Y-%m-%d-%H%M%S}"
        exists = (folder / "run.json").exists()
        if exists and not resume:
            raise ArtifactError(f"--run must be a new folder, but {folder} has a study: add --resume to continue it")
        shared = {
            name: getattr(file, name) for name in ("data", "folds", "recipe", "metric", "require", "cache", "stores")
        }
        config = Config(**shared)
        rows = read_rows(config, console)
        manifest, folds, facts = prepare_rows(rows, config, [file.recipe], console, recipe=file.recipe.key)
        if exists:
            Run.open(folder).check_same(facts)
        run = Run.open(folder) if exists else Run.create(folder, manifest, folds, facts)
        for recipe in recipes:
            run.keep_recipe(recipe)
        console.print(f"run directory: {folder}", markup=False, highlight=False)
    return Run.open(Path(world.broadcast_text(str(folder))))


def _report(console: Console, where: str, progress: StageProgress) -> bool:
    if not progress.epoch:
        return False
    loss = f"loss {progress.losses[-1]:.4f}" if progress.losses else ""
    probes = ""
    if progress.health:
        health = progress.health[-1]
        probes = f", probe {health.probe:.3f}, linear {health.linear_probe:.3f}, k-NN {health.neighbour_probe:.3f}"
    epoch = f"{progress.stage}, epoch {progress.epoch} of {progress.epochs}"
    console.print(f"{where}, {epoch}: {loss}{probes}", highlight=False)
    return False


def _leaderboard(run: Run, file: RecipeFile, recipes: Sequence[Recipe], path: Path) -> Leaderboard:
    """Scores the recipe with each seed, and writes the leaderboard."""
    rows = tuple(_row(run, file, recipe, path, len(recipes) > 1) for recipe in recipes)
    checks = {row.name: row.requirements for row in rows}
    meta = {"recipe": str(path)} | unlabelled_facts(run.folds) | requirement_facts(run.goal.requirements, checks)
    usual = run.goal.metric.form.usual[:_OF_THE_SPREAD]
    metrics = dict.fromkeys((run.goal.metric, *map(parse_metric, usual)))
    tables = (seeds_table([row.scores for row in rows], list(metrics)),) if len(rows) > 1 else ()
    leaderboard = Leaderboard(rows, run.class_names, meta, tables, run.goal.metric.name)
    write_leaderboard(leaderboard, run.folder)
    if not run.class_names:
        write_mask_sheet(run, leaderboard)
    return leaderboard


def _row(run: Run, file: RecipeFile, recipe: Recipe, path: Path, names_seed: bool) -> Row:
    held_out, test = read_held_out(run, recipe.key), read_test(run, recipe.key)
    seconds, images = training_cost(run, recipe.key)
    name = file.name or path.stem
    return Row(
        key=recipe.key,
        name=f"{name}, seed {recipe.seed}" if names_seed else name,
        kind=recipe.kind,
        scores=all_scores(run, held_out, held_out.mean(), test.mean(), run.goal.metric),
        chosen_on=chosen_on(recipe, file.chosen_on),
        scored_on=TEST_PART,
        seconds=seconds,
        images=images,
        commit=commit(),
        command=shlex.join(["raysk", "train", str(path)]),
        settings="",
        encoder=encoder_note(run, [recipe.key]),
        requirements=requirement_checks(run, held_out, held_out.mean()),
        operating_points=row_operating_points(run, held_out, held_out.mean(), test.mean()),
    )


def device_name(device: torch.device) -> str:
    """Describes a device."""
    if device.type == "cuda":
        return f"a GPU, {torch.cuda.get_device_name(device)}"
    return f"the CPU, {torch.get_num_threads()} threads"


@contextmanager
def _joined(gpus: bool) -> Iterator[World]:
    """Joins the process group under torchrun; elsewhere, yields a world of one process."""
    uses_gpu = gpus and torch.cuda.is_available()
    local_rank = os.environ.get("LOCAL_RANK")
    if local_rank is None:
        yield World.current(torch.device("cuda" if uses_gpu else "cpu"))
        return
    device = torch.device("cuda", int(local_rank)) if uses_gpu else torch.device("cpu")
    if uses_gpu:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if uses_gpu else "gloo")
    try:
        yield World.current(device)
    finally:
        dist.destroy_process_group()
