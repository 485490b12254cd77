"""Loads the rows and images that the settings name, and shows progress."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from raysk.config import Config
from raysk.data.audit.cases import cases_of
from raysk.data.crop import Crop
from raysk.data.folds.assignment import Folds
from raysk.data.folds.dividing import locked_away, make_folds
from raysk.data.manifest import NO_LABEL, IntArray, Manifest
from raysk.data.regions import BOX, MASK, rows_with
from raysk.data.sources import load_manifest
from raysk.data.store.building import build_stores
from raysk.data.store.chunks import Spread, in_threads
from raysk.data.store.image_store import BadImage, ImageStore
from raysk.data.store.region_store import RegionStore, build_regions
from raysk.errors import ConfigError, DataError
from raysk.evaluation.goals import Goal
from raysk.evaluation.metrics.base import MASKS
from raysk.initial_weights import check_networks, notes_on_weights, weights_digest
from raysk.parts.losses import losses
from raysk.recipe import Recipe
from raysk.records import RunFacts
from raysk.run_checks import check_goal, check_recipe, check_task
from raysk.run_facts import data_digest, store_name, unlabelled_facts


def read_rows(config: Config, console: Console) -> Manifest:
    """Returns the rows, whose images nobody has opened yet.

    Raises:
        ConfigError: The metric or a requirement is about a class that the rows do not have.
        DataError: The metric needs two classes, and the rows have one.
    """
    with console.status("reading the rows"):
        manifest = load_manifest(config.data, config.cache_folder)
    # Now, since a metric of a class that does not exist should not cost the time to decode the images.
    goal = Goal.parse(config.metric, config.require, manifest.class_names)
    if goal.metric.form is not MASKS and len(manifest.class_names) < 2:
        raise DataError(
            f"a dataset must have at least two classes, but got {manifest.class_names[0]}: check the labels, or learn "
            "masks with task.name=segmentation metric=dice"
        )
    return manifest


def read_images(
    manifest: Manifest,
    config: Config,
    console: Console,
    shapes: Iterable[tuple[int, Crop]] = (),
    spread: Spread = in_threads,
) -> tuple[Manifest, dict[str, ImageStore]]:
    """Returns the rows with readable images, and their decoded images by `store_name`.

    Args:
        manifest: All rows.
        config: The folders of the stores, and what to do with unreadable images.
        console: Shows progress.
        shapes: Sizes and crops of the images; those of the recipe if empty.
        spread: Distributes the decoding.
    """
    sizes: dict[Crop, list[int]] = {}
    for size, crop in dict.fromkeys(shapes or [(config.recipe.image_size, config.recipe.crop)]):
        sizes.setdefault(crop, []).append(size)
    cache, on_error = config.cache_folder, config.data.on_error
    stores: dict[str, ImageStore] = {}
    bad: list[BadImage] = []
    for crop, of_crop in sizes.items():
        if crop.region != "none":
            _tell_crop(manifest, crop, console)
        with progress_bar(console, "decoding images") as bar:
            built, bad = build_stores(
                manifest, of_crop, cache, on_error, bar, crop=crop, shared=config.stores, spread=spread
            )
        stores |= {store_name(size, crop): store for size, store in zip(of_crop, built, strict=True)}
    for image in bad:
        console.print(f"left out: row {image.row}, {image.path}: {image.reason}", markup=False, highlight=False)
    manifest = manifest.without([image.row for image in bad])
    counts = zip(manifest.class_names, manifest.class_counts, strict=True)
    classes = [f"{name} {count}" for name, count in counts]
    classes += [f"unlabelled {len(manifest.unlabelled_rows)}"] if len(manifest.unlabelled_rows) else []
    console.print(f"{len(manifest)} images: {', '.join(classes)}", markup=False, highlight=False)
    return manifest, stores


def _tell_crop(manifest: Manifest, crop: Crop, console: Console) -> None:
    """Prints how many pictures a crop changes.

    Raises:
        ConfigError: No picture has such a region.
    """
    known = int(rows_with(manifest, crop.region).sum())
    if not known:
        columns = "a column mask" if crop.region == MASK else f"the columns {', '.join(BOX)}"
        raise ConfigError(
            f"crop.region must be none for pictures without a {crop.region}, but got {crop.region}: add {columns}, or "
            "name yours in data.mask or data.box"
        )
    console.print(f"crop {crop.name}: {known} of {len(manifest)} pictures have a {crop.region}", highlight=False)


def prepare_rows(
    manifest: Manifest,
    config: Config,
    recipes: Sequence[Recipe],
    console: Console,
    spread: Spread = in_threads,
    encoders: Sequence[Recipe] = (),
    **of_command: Any,
) -> tuple[Manifest, Folds, RunFacts]:
    """Divides the rows, decodes their images, and checks that they suit the recipes and the goal.

    Args:
        manifest: All rows.
        config: The folds, the goal and the folders of the stores.
        recipes: The recipes that are known before the start.
        console: Shows progress.
        spread: Distributes the decoding.
        encoders: A recipe with each encoder that a draw can have.
        of_command: The facts of the run that do not follow from the rows.

    Returns:
        The rows, the folds, and the facts of a run of them.

    Raises:
        ConfigError: A recipe cannot train on some fold, its weights do not fit or have seen rows that are scored, or
            the goal has no score on some part.
    """
    recipes = list(recipes)
    every = [config.recipe, *recipes, *encoders]
    goal = Goal.parse(config.metric, config.require, None)
    check_task(every, goal)
    check_networks(every)
    if goal.metric.form is MASKS:
        manifest = _for_masks(manifest, config, console)
    manifest, stores = read_images(manifest, config, console, [(r.image_size, r.crop) for r in every], spread)
    regions = _read_regions(manifest, every, config, console)
    digest = data_digest(manifest, stores, regions)
    cases = _cases(manifest, digest, config, console) if len(manifest.unlabelled_rows) else None
    folds = _divided(manifest, goal, config, cases)
    _tell_unlabelled(folds, recipes, console)
    for recipe in recipes:
        check_recipe(recipe, manifest, folds)
    goal = Goal.parse(config.metric, config.require, manifest.class_names)
    check_goal(goal, manifest, folds)
    models = [recipe.model for recipe in every]
    with console.status("comparing with what the encoders have seen"):
        notes = notes_on_weights(models, manifest, folds)
    facts = RunFacts(
        manifest=manifest.digest,
        pixels=digest,
        folds=folds.digest,
        metric=goal.metric.name,
        requirements=goal.required,
        data=config.data.to_plain(),
        divide=config.folds.to_plain(),
        cache=str(config.cache_folder),
        stores=config.stores,
        images={name: store.key for name, store in stores.items()},
        regions={str(size): store.key for size, store in regions.items()},
        initial_weights=weights_digest(models),
        notes=notes,
        **of_command,
    )
    return manifest, folds, facts


def _read_regions(
    manifest: Manifest, recipes: Sequence[Recipe], config: Config, console: Console
) -> dict[int, RegionStore]:
    """Returns the masks and boxes at each size at which a recipe reads them."""
    stores = {}
    for size in dict.fromkeys(recipe.image_size for recipe in recipes if recipe.reads_regions):
        stores[size] = store = _read_region_store(manifest, size, config, console)
        masks, boxes = store.masks.any(axis=(1, 2)), ~np.isnan(store.boxes).any(axis=1)
        counted = f"{masks.sum()} masks and {boxes.sum()} boxes in {len(manifest)} images"
        console.print(f"lesions at {size} pixels: {counted}", highlight=False)
    return stores


def _read_region_store(manifest: Manifest, size: int, config: Config, console: Console) -> RegionStore:
    with progress_bar(console, "reading masks and boxes") as bar:
        return build_regions(manifest, size, config.cache_folder, config.data.on_error, bar, config.stores)


def _for_masks(manifest: Manifest, config: Config, console: Console) -> Manifest:
    """Returns the rows for a study of masks.

    A row without a mask is unlabelled: a stage one without labels may read it, and nothing scores it. One that the
    table puts into the test part is left out, since nothing may learn from it.

    Raises:
        ConfigError: No labelled row has a mask, or no row of the test part of the table has.
    """
    store = _read_region_store(manifest, config.recipe.image_size, config, console)
    has_mask = store.masks.any(axis=(1, 2)) & (manifest.labels != NO_LABEL)
    if not has_mask.any():
        raise ConfigError(
            f"task.name must be classification for pictures without masks, but none of {len(manifest)} labelled "
            "pictures has one: add a column mask, or name yours in data.mask"
        )
    locked = locked_away(manifest, config.folds)
    if locked.any() and not (locked & has_mask).any():
        raise ConfigError(
            f"the test part of the table must have masks, but none of its {locked.sum()} pictures has one: add them, "
            "or take the role test away, and a test part is drawn"
        )
    bare = np.flatnonzero(locked & ~has_mask).tolist()
    left_out = f", and {len(bare)} of the test part without one are left out" if bare else ""
    console.print(
        f"masks: {has_mask.sum()} of {len(manifest)} pictures have a class and a mask; the others count as unlabelled"
        f"{left_out}",
        highlight=False,
    )
    return manifest.unlabelled_at(np.flatnonzero(~has_mask)).without(bare)


def _divided(manifest: Manifest, goal: Goal, config: Config, cases: IntArray | None) -> Folds:
    try:
        return make_folds(manifest, config.folds, cases)
    except DataError as error:
        if goal.metric.form is not MASKS:
            raise
        raise DataError(f"among the pictures with a mask, {error}") from error


def _tell_unlabelled(folds: Folds, recipes: Sequence[Recipe], console: Console) -> None:
    """Prints which unlabelled rows take part, and if no known recipe reads them, which ones would."""
    for name, sentence in unlabelled_facts(folds).items():
        console.print(f"{name}: {sentence}", markup=False, highlight=False)
        if all(recipe.stage_one is None or recipe.stage_one.needs_labels for recipe in recipes):
            readers = [loss for loss in losses if not getattr(losses[loss], "needs_labels", True)]
            console.print(
                f"{name}: no recipe that is known at the start reads them; one with stage_one.loss.name="
                f"{' or '.join(readers)} does",
                markup=False,
                highlight=False,
            )


def _cases(manifest: Manifest, digest: str, config: Config, console: Console) -> IntArray:
    with progress_bar(console, "looking for unlabelled copies of images") as bar:
        return cases_of(manifest, digest, config.cache_folder, bar)


@contextmanager
def progress_bar(console: Console, label: str) -> Iterator[Callable[[int, int], None]]:
    """Yields a function of (done, total) that draws a bar if the console is a terminal."""
    columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(label, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
