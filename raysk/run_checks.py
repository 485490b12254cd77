"""Checks of a study before it starts: each recipe and the goal must suit each part of the rows."""

from typing import TYPE_CHECKING

import numpy as np

from raysk.data.folds.assignment import Folds
from raysk.data.manifest import Manifest
from raysk.errors import ConfigError
from raysk.evaluation.goals import Goal
from raysk.job_rows import stage_one_rows, train_rows

if TYPE_CHECKING:  # torch
    from raysk.recipe import Recipe


def check_recipe(recipe: "Recipe", manifest: Manifest, folds: Folds) -> None:
    """Refuses a recipe that cannot train on every fold.

    Raises:
        ConfigError: See `Recipe.check_rows`.
    """
    for fold in range(len(folds)):
        rows = train_rows(recipe, fold, manifest, folds)
        num_unlabelled = len(stage_one_rows(recipe, fold, manifest, folds)) - len(rows)
        recipe.check_rows(manifest.count_classes(rows), num_unlabelled)


def check_goal(goal: Goal, manifest: Manifest, folds: Folds) -> None:
    """Refuses a metric, or a requirement, that has no score on some part of the rows.

    Raises:
        ConfigError: A fold or the test part lacks a class that the metric is about, or has no other class.
    """
    parts = {f"fold {fold}": folds.held_out_rows(fold) for fold in range(len(folds))}
    parts |= {"the test part": folds.test_rows} if len(folds.test_rows) else {}
    certain = np.eye(len(manifest.class_names))
    for metric in goal.metrics:
        for name, rows in parts.items():
            labels = manifest.labels[rows]
            if np.isnan(metric(certain[labels], labels)):
                present = ", ".join(manifest.class_names[label] for label in np.unique(labels))
                raise ConfigError(
                    f"{metric.name} must be defined on each part of the rows, but {name} has only {present}: "
                    "choose another metric, or other folds"
                )
