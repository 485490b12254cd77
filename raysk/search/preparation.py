"""What happens before the first job: rows are read and divided, images decoded, the run directory made or found."""

import shlex
from datetime import datetime

from rich.console import Console

from raysk.config import Config
from raysk.data.folds import make_folds
from raysk.data.manifest import Manifest
from raysk.data.sources import load_manifest
from raysk.data.store import build_store
from raysk.run import Run, data_digest
from raysk.search.display import progress_bar
from raysk.search.request import StudyRequest
from raysk.search.space import Space


def prepare(request: StudyRequest, space: Space, config: Config, console: Console) -> Run:
    """Reads and divides the rows, decodes the images, and makes or opens the run directory."""
    folder, cache = request.folder(space), config.cache_folder
    manifest, pixels = read_data(config, console)
    settings = config.folds
    folds = make_folds(manifest, settings.k, settings.seed, settings.test_share, settings.column)
    same = {
        "manifest": manifest.digest,
        "pixels": pixels,
        "folds": folds.digest,
        "space": request.space,
        "overrides": list(request.overrides),
    }
    if request.resume and (folder / "run.json").exists():
        run = Run.open(folder)
        run.check_same(same)
        return run
    words = ["raysk", "tune", "--space", request.space, "--trials", str(request.trials), *request.overrides]
    begun = f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S%z}"
    return Run.create(folder, cache, manifest, folds, same | {"command": shlex.join(words), "begun": begun})


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
