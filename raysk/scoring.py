"""The scores of a recipe, from the predictions in a run."""

import subprocess
from pathlib import Path

import numpy as np

import raysk
from raysk.evaluation.predictions import OutOfFold, TestPredictions, fold_average
from raysk.evaluation.row_scores import scores_on_test, scores_out_of_fold
from raysk.recipe import Job, Recipe
from raysk.run import Run

HELD_OUT = "held-out folds"
TEST_PART = "locked test part"
NOTHING = "nothing"


def read_held_out(run: Run, recipe: Recipe) -> OutOfFold:
    """Reads the predictions of a recipe's fold models on their held-out rows."""
    return OutOfFold.from_folds([run.predictions(recipe.key, fold) for fold in range(len(run.folds))], run.folds)


def read_test(run: Run, recipe: Recipe) -> TestPredictions:
    """Reads the predictions of a recipe's fold models on the locked test part, averaged."""
    return fold_average([run.predictions(recipe.key, fold, "test") for fold in range(len(run.folds))], run.folds)


def all_scores(run: Run, where: OutOfFold, held_out: np.ndarray, test: np.ndarray) -> dict[str, float]:
    """Returns the scores out of fold and on the test part.

    Args:
        run: The labels and groups, and the metric.
        where: The rows and folds of `held_out`.
        held_out: (N, C) probabilities.
        test: (M, C) probabilities of the test part.
    """
    manifest, names, metric = run.manifest, run.manifest.class_names, run.goal.metric
    out_of_fold = scores_out_of_fold(held_out, manifest.labels[where.rows], where.fold_of_row, names, metric)
    rows = run.folds.test_rows
    return out_of_fold | scores_on_test(test, manifest.labels[rows], manifest.groups[rows], names, metric)


def chosen_on(recipe: Recipe) -> str:
    """Returns the rows that influenced a recipe that was fixed before any score was seen.

    A probe that can end stage one reads the held-out folds.
    """
    return HELD_OUT if recipe.stage_one is not None and recipe.stage_one.patience > 0 else NOTHING


def training_cost(run: Run, recipe: Recipe) -> tuple[float, int]:
    """Returns the seconds and images of all folds; a shared encoder counts in full for each recipe."""
    seconds, images = 0.0, 0
    for fold in range(len(run.folds)):
        record = run.record(Job(recipe, fold))
        for stage in filter(None, (record.stage_one, record.stage_two)):
            seconds, images = seconds + stage.seconds, images + stage.images
    return seconds, images


def commit() -> str:
    """Returns the commit of the running source tree, or the version of an installed package."""
    tree = Path(raysk.__file__).parent.parent
    if not (tree / ".git").exists():
        return raysk.__version__
    git = subprocess.run(["git", "-C", str(tree), "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return git.stdout.strip() or raysk.__version__
