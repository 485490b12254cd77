"""Checks of a study before it starts: each recipe and the goal must suit each part of the rows."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from raysk.data.folds.assignment import Folds
from raysk.data.manifest import IntArray, Manifest
from raysk.data.regions import BOX, MASK, rows_with
from raysk.errors import ConfigError
from raysk.evaluation.goals import Goal
from raysk.job_rows import stage_one_rows, train_rows
from raysk.registry import unknown_name
from raysk.settings import check_within

if TYPE_CHECKING:  # torch
    from raysk.parts.attention import Care
    from raysk.recipe import Recipe


def check_recipe(recipe: "Recipe", manifest: Manifest, folds: Folds) -> None:
    """Refuses a recipe that cannot train on every fold.

    Raises:
        ConfigError: See `Recipe.check_rows`.
    """
    for fold in range(len(folds)):
        rows = train_rows(recipe, fold, manifest, folds)
        num_unlabelled = len(stage_one_rows(recipe, fold, manifest, folds)) - len(rows)
        check_rows(recipe, manifest, rows, num_unlabelled)


def check_rows(recipe: "Recipe", manifest: Manifest, rows: IntArray, num_unlabelled: int) -> None:
    """Refuses rows that a recipe cannot train on.

    Args:
        recipe: The recipe.
        manifest: All rows.
        rows: The labelled rows that it trains on.
        num_unlabelled: Number of unlabelled rows beside them.

    Raises:
        ConfigError: See `Recipe.check_rows`; or it guides the attention to lesions, of which none is known.
    """
    recipe.check_rows(manifest.count_classes(rows), num_unlabelled)
    if recipe.stage_two.care is not None:
        check_within("stage_two.attention", partial(_check_lesions, recipe.stage_two.care, rows, manifest))


def check_task(recipes: Sequence["Recipe"], goal: Goal) -> None:
    """Refuses recipes whose predictions have another form than the metric of the study scores, or differ in size.

    Raises:
        ConfigError: One has.
    """
    form = goal.metric.form
    for recipe in recipes:
        if recipe.task.form != form:
            wanted = recipe.task.form.usual[0]
            raise ConfigError(
                f"metric must score {recipe.task.form.name}, which the recipes predict, but got {goal.metric.name}: "
                f"set metric={wanted}, or another task.name"
            )
    sizes = sorted({recipe.image_size for recipe in recipes if recipe.task.reads_masks})
    if len(sizes) > 1:
        raise ConfigError(
            f"image_size must be the same for all recipes that predict masks, but got {sizes}: choose one"
        )


def rare_classes(care: "Care", class_counts: IntArray, class_names: Sequence[str]) -> list[int]:
    """Returns the codes of the classes whose attention is guided.

    Args:
        care: Names them, or the share below which a class is rare.
        class_counts: Number of training rows of each class, (C,).
        class_names: The names of the classes.

    Raises:
        ConfigError: No class has such a name, or none is rare.
    """
    for name in care.classes:
        if name not in class_names:
            raise unknown_name("classes", name, list(class_names))
    if care.classes:
        return [class_names.index(name) for name in care.classes]
    rare = np.flatnonzero(class_counts <= care.rare * class_counts.sum()).tolist()
    if not rare:
        least = class_counts.min() / class_counts.sum()
        raise ConfigError(
            f"rare must be a share that some class does not exceed, but got {care.rare:g} and the rarest class has "
            f"{least:.3g} of the rows: raise it, or name the classes"
        )
    return rare


def _check_lesions(care: "Care", rows: IntArray, manifest: Manifest) -> None:
    """Refuses attention without a single lesion to guide it."""
    rare = rare_classes(care, manifest.count_classes(rows), manifest.class_names)
    if not care.reads_regions:
        return
    if not rows_with(manifest, care.region)[rows[np.isin(manifest.labels[rows], rare)]].any():
        names = ", ".join(manifest.class_names[label] for label in rare)
        columns = "a column mask" if care.region == MASK else f"the columns {', '.join(BOX)}"
        raise ConfigError(
            f"region must be known in some training rows of the rare classes, but no row of {names} has a "
            f"{care.region}: add {columns}, or set region=fine_grained"
        )


def check_goal(goal: Goal, manifest: Manifest, folds: Folds) -> None:
    """Refuses a metric, or a requirement, that has no score on some part of the rows.

    Raises:
        ConfigError: A fold or the test part lacks a class that the metric is about, or has no other class.
    """
    parts = {f"fold {fold}": folds.held_out_rows(fold) for fold in range(len(folds))}
    parts |= {"the test part": folds.test_rows} if len(folds.test_rows) else {}
    for metric in goal.metrics:
        for name, rows in parts.items():
            labels = manifest.labels[rows]
            if not metric.is_defined(labels, len(manifest.class_names)):
                present = ", ".join(manifest.class_names[label] for label in np.unique(labels))
                raise ConfigError(
                    f"{metric.name} must be defined on each part of the rows, but {name} has only {present}: "
                    "choose another metric, or other folds"
                )
