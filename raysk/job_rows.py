"""The rows that a recipe trains on in a fold: with labels, and in stage one also without."""

from typing import TYPE_CHECKING

import numpy as np

from raysk.data.folds.assignment import Folds
from raysk.data.folds.label_shares import labelled_rows
from raysk.data.manifest import IntArray, Manifest

if TYPE_CHECKING:  # torch
    from raysk.recipe import Recipe


def train_rows(recipe: "Recipe", fold: int, manifest: Manifest, folds: Folds) -> IntArray:
    """Returns the rows whose labels a recipe trains on."""
    return labelled_rows(manifest, folds, fold, recipe.label_share, recipe.seed)


def stage_one_rows(recipe: "Recipe", fold: int, manifest: Manifest, folds: Folds) -> IntArray:
    """Returns the rows of stage one, sorted: without a need for labels, all that are neither held out nor locked away.

    Unlabelled rows that share a case with a held-out or locked row are left out; see `Folds`.
    """
    if recipe.stage_one is None or recipe.stage_one.needs_labels:
        return train_rows(recipe, fold, manifest, folds)
    return np.union1d(folds.train_rows(fold), folds.unlabelled_rows(fold))
