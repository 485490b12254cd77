"""Loads the rows and images that the settings name, and shows progress."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from raysk.config import Config
from raysk.data.manifest import Manifest
from raysk.data.sources import load_manifest
from raysk.data.store.building import build_stores
from raysk.data.store.chunks import Spread, in_threads
from raysk.data.store.image_store import ImageStore
from raysk.evaluation.goals import Goal


def read_data(
    config: Config, console: Console, sizes: Sequence[int] = (), spread: Spread = in_threads
) -> tuple[Manifest, list[ImageStore]]:
    """Returns the rows with readable images, and their decoded images.

    Args:
        config: The rows, and the folders of the stores.
        console: Shows progress.
        sizes: Sizes of the images; the recipe's size if empty.
        spread: Distributes the decoding.

    Raises:
        ConfigError: The metric or a requirement is about a class that the rows do not have.
    """
    with console.status("reading the rows"):
        manifest = load_manifest(config.data, config.cache_folder)
    # Now, since a metric of a class that does not exist should not cost the time to decode the images.
    Goal.parse(config.metric, config.require, manifest.class_names)
    sizes = sizes or [config.recipe.image_size]
    cache, on_error = config.cache_folder, config.data.on_error
    with progress_bar(console, "decoding images") as bar:
        stores, bad = build_stores(manifest, sizes, cache, on_error, bar, shared=config.stores, spread=spread)
    for image in bad:
        console.print(f"left out: row {image.row}, {image.path}: {image.reason}", markup=False, highlight=False)
    manifest = manifest.without([image.row for image in bad])
    counts = zip(manifest.class_names, manifest.class_counts, strict=True)
    classes = ", ".join(f"{name} {count}" for name, count in counts)
    console.print(f"{len(manifest)} images: {classes}", markup=False, highlight=False)
    return manifest, stores


@contextmanager
def progress_bar(console: Console, label: str) -> Iterator[Callable[[int, int], None]]:
    """Yields a function of (done, total) that draws a bar if the console is a terminal."""
    columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(label, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
