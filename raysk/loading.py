"""From settings to rows whose images can be read, while a person watches."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from raysk.config import Config
from raysk.data.manifest import Manifest
from raysk.data.sources import load_manifest
from raysk.data.store import build_store
from raysk.run import data_digest


def read_data(config: Config, console: Console) -> tuple[Manifest, str]:
    """Returns the rows whose images can be read, and a name for their pixels."""
    manifest = load_manifest(config.data, config.cache_folder)
    size = config.recipe.image_size
    with progress_bar(console, "decoding images") as bar:
        store, bad = build_store(manifest, size, config.cache_folder, config.data.on_error, bar)
    for image in bad:
        console.print(f"left out: row {image.row}, {image.path}: {image.reason}", markup=False, highlight=False)
    manifest = manifest.without([image.row for image in bad])
    counts = zip(manifest.class_names, manifest.class_counts, strict=True)
    told = ", ".join(f"{name} {count}" for name, count in counts)
    console.print(f"{len(manifest)} images: {told}", markup=False, highlight=False)
    return manifest, data_digest(manifest, store)


@contextmanager
def progress_bar(console: Console, label: str) -> Iterator[Callable[[int, int], None]]:
    """Yields a function of (done, total) that draws a bar, where the console is a terminal."""
    columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(label, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
