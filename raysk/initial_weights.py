"""The weights that recipes begin with: checked before a study starts, and what its board says of them."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import torch

from raysk.artifacts import digest_of
from raysk.data.folds.assignment import TEST, Folds
from raysk.data.manifest import Manifest
from raysk.data.seen import Identities, Seen
from raysk.errors import ConfigError
from raysk.model import Model
from raysk.parts.backbones import create_backbone
from raysk.parts.maps import check_has_maps
from raysk.parts.weights import read_weights
from raysk.recipe import Recipe

PUBLISHED = "published weights"


def check_networks(recipes: Iterable[Recipe]) -> None:
    """Builds each network once, so that weights that are missing or do not fit are refused before every trial fails.

    Raises:
        ConfigError: A file does not exist or fit, or a network cannot pool as asked or has no maps for its attention.
        TrainingError: Published weights could not be fetched.
    """
    recipes = list(recipes)
    shapes = {(recipe.model, recipe.image_size) for recipe in recipes}
    guided = {(recipe.model, recipe.image_size) for recipe in recipes if recipe.stage_two.care is not None}
    tasks = {(recipe.model, recipe.image_size): recipe.task for recipe in recipes}
    for model, size in sorted(shapes, key=repr):
        # On the device without memory: only the shapes are of interest.
        with torch.device("meta"):
            backbone = create_backbone(
                model.backbone, False, None, size, model.pooling, model.layers, model.output_stride
            )
            if (model, size) in guided:
                check_has_maps(backbone.eval(), size)
            tasks[model, size].check_network(backbone, size)
    plain = {(replace(model, pooling="network", layers=1), size) for model, size in shapes if model.file is not None}
    for model, size in sorted(plain, key=repr):
        create_backbone(model.backbone, False, model.file, size)
    for name in sorted({recipe.model.backbone for recipe in recipes if _is_published(recipe)}):
        create_backbone(name, True, None)


def _is_published(recipe: Recipe) -> bool:
    return recipe.is_probe and recipe.model.file is None


def weights_digest(models: Iterable[Model]) -> str | None:
    """Returns a digest of all files of initial weights, wherever their folders are; None without any."""
    paths = {model.file for model in models if model.file is not None}
    files = sorted((path.name, read_weights(path).digest) for path in paths)
    return digest_of(files) if files else None


def notes_on_weights(models: Iterable[Model], manifest: Manifest, folds: Folds) -> dict[str, str]:
    """Returns what the board says of weights that a recipe begins with, by their source.

    Raises:
        ConfigError: They have seen rows that the study scores, and nobody has said that they may.
        DataError: The file of a picture cannot be read.
    """
    notes: dict[str, str] = {}
    identities: Identities | None = None
    scored = folds.fold >= TEST
    for model in sorted(set(models), key=repr):
        origin = None if model.file is None else read_weights(model.file).origin
        if model.source is None:
            continue
        if origin is None:
            notes[model.source] = PUBLISHED
            continue
        identities = identities or Identities(manifest)
        seen = identities.among(Seen(frozenset(origin.pictures), frozenset(origin.groups)))
        num_seen, num_scored = int(np.sum(seen & scored)), int(np.sum(scored))
        if num_seen and not model.seen:
            raise ConfigError(
                f"an encoder must not have seen rows that the study scores, but {model.source} has seen {num_seen} of "
                f"{num_scored}, or others of their groups: train it on other rows, or set model.seen=true, and every "
                "row of the board says so"
            )
        of_seen = f"has seen {num_seen} of {num_scored} scored rows" if num_seen else ""
        notes[model.source] = ", ".join(filter(None, [PUBLISHED if origin.published else "", of_seen]))
    return {source: note for source, note in notes.items() if note}
