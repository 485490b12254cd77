"""What happens before the first job: rows are read and divided, images decoded, the run directory made or found."""

import shlex
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from raysk.config import Config
from raysk.data.folds import Folds, make_folds
from raysk.data.manifest import Manifest
from raysk.data.sources import load_manifest
from raysk.data.store import build_store
from raysk.errors import ArtifactError
from raysk.parts.backbones import create_backbone
from raysk.run import Run, data_digest
from raysk.search.display import progress_bar
from raysk.search.request import StudyRequest
from raysk.search.space import Space


@dataclass(frozen=True)
class Preparation:
    """A study before its run directory is touched.

    Args:
        folder: Of the run.
        cache: Of decoded images.
        manifest: The rows.
        folds: Their folds.
        same: Facts that a resumed study must find unchanged.
        command: What was typed.
    """

    folder: Path
    cache: Path
    manifest: Manifest
    folds: Folds
    same: dict[str, Any]
    command: str

    def run(self) -> Run:
        """Opens the run directory, or makes it."""
        if (self.folder / "run.json").exists():
            return Run.open(self.folder)
        begun = f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S%z}"
        facts = self.same | {"command": self.command, "begun": begun}
        return Run.create(self.folder, self.cache, self.manifest, self.folds, facts)


def prepare(request: StudyRequest, space: Space, config: Config, console: Console) -> Preparation:
    """Reads and divides the rows, decodes the images, and checks the run directory.

    Raises:
        ArtifactError: The folder has a study that is not to be resumed, or one of other rows or settings.
    """
    folder = request.folder(space)
    exists = (folder / "run.json").exists()
    if exists and not request.resume:
        raise ArtifactError(f"--run must be a new folder, but {folder} has a study: add --resume to go on with it")
    model = config.recipe.model
    if model.checkpoint is not None:
        # Read once here: a file that is missing or does not fit is refused before every trial fails for it.
        create_backbone(model.backbone, model.pretrained, model.checkpoint, config.recipe.image_size)
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
    if exists:
        Run.open(folder).check_same(same)
    words = ["raysk", "tune", "--space", request.space, "--trials", str(request.trials), *request.overrides]
    return Preparation(folder, config.cache_folder, manifest, folds, same, shlex.join(words))


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
