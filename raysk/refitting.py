"""Trains the recipes of a leaderboard row once more, on all rows that are not locked away, in this process."""

import torch
from rich.console import Console

from raysk.data.folds.assignment import WHOLE
from raysk.inference.packing import recipe_weights, row_of
from raysk.parts.precision import sum_in_one_order
from raysk.recipe import Job
from raysk.retraining import device_name
from raysk.run import Run
from raysk.training.loop import Report, StageProgress
from raysk.training.stage_one import train_stage_one
from raysk.training.stage_two import train_stage_two
from raysk.training.world import World


def refit(run: Run, wanted: str, console: Console, gpus: bool = True) -> str:
    """Trains each recipe of a row on all rows of the folds, and keeps the models beside those of the folds.

    Stage one ends after as many epochs as it had in the folds, on average. An interrupted training continues.

    Args:
        run: The run directory.
        wanted: Place, name or key of the row.
        console: Shows progress.
        gpus: Whether to train on a GPU, if there is one.

    Returns:
        The name of the row.

    Raises:
        ArtifactError: No row matches, several do, another raysk uses the run, or a file of the folds is missing.
        TrainingError: The training cannot continue.
    """
    row = row_of(run, wanted)
    recipes = [run.recipe(key) for key in recipe_weights(run, row)]
    world = World.current(torch.device("cuda" if gpus and torch.cuda.is_available() else "cpu"))
    num_rows = max(len(run.train_rows(Job(recipe, WHOLE))) for recipe in recipes)
    console.print(f"training {row.name} on {num_rows} rows, on {device_name(world.device)}", markup=False)
    sum_in_one_order()
    with run.reserved(run.folder):
        for number, recipe in enumerate(recipes, start=1):
            job, report = Job(recipe, WHOLE), _lines(console, f"recipe {number} of {len(recipes)}")
            if recipe.stage_one is not None:
                train_stage_one(job, run, world, report)
            train_stage_two(job, run, world, report)
    return row.name


def _lines(console: Console, label: str) -> Report:
    def report(progress: StageProgress) -> bool:
        if progress.losses:
            epochs = f"epoch {progress.epoch} of {progress.epochs}"
            console.print(f"{label}, {progress.stage}, {epochs}: loss {progress.losses[-1]:.4f}", markup=False)
        return False

    return report
