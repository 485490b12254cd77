"""What happens before the first job: rows are read and divided, images decoded, the run directory made or found."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import ray
from rich.console import Console

from raysk.artifacts import write_json
from raysk.config import Config
from raysk.data.folds.assignment import Folds
from raysk.data.folds.dividing import make_folds
from raysk.data.manifest import Manifest
from raysk.data.store.chunks import Chunk, Spread, decode_chunk, in_threads
from raysk.errors import ArtifactError
from raysk.loading import read_data
from raysk.parts.backbones import create_backbone
from raysk.run import Run, check_recipe, data_digest, store_facts
from raysk.search.cluster import connected
from raysk.search.mirror import Mirror
from raysk.search.request import StudyRequest
from raysk.spaces.space import Space

# Settings that change nothing that is computed: another machine may need others.
_OF_THE_MACHINE = ("cache=", "stores=", "loader=")


@dataclass(frozen=True)
class Preparation:
    """A study before its run directory is touched.

    Args:
        folder: Of the run.
        cache: Of decoded images.
        manifest: The rows.
        folds: Their folds.
        same: Facts that a resumed study must find unchanged.
        settings: What data and folds were made from.
        commands: What was typed, and what repeats the study.
        mirror: Keeps a copy of the run in object storage; None for a run that is a folder only.
    """

    folder: Path
    cache: Path
    manifest: Manifest
    folds: Folds
    same: dict[str, Any]
    settings: dict[str, Any]
    commands: dict[str, str]
    mirror: Mirror | None

    def run(self) -> Run:
        """Opens the run directory, or makes it."""
        if (self.folder / "run.json").exists():
            facts = Run.open(self.folder).facts
            # Where images are kept is this machine's affair, which need not be the one that the study was begun on.
            here = facts | self.settings | {"cache": str(self.cache)}
            if here != facts:
                write_json(self.folder / "run.json", here)
            return Run.open(self.folder)
        begun = f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S%z}"
        facts = self.same | self.settings | self.commands | {"begun": begun}
        return Run.create(self.folder, self.cache, self.manifest, self.folds, facts)


def prepare(request: StudyRequest, space: Space, config: Config, console: Console) -> Preparation:
    """Reads and divides the rows, decodes the images, and checks the run directory.

    Raises:
        ArtifactError: The folder has a study that is not to be resumed, or one of other rows or settings.
    """
    folder = request.folder(space, config.cache_folder)
    mirror = Mirror(folder, str(request.run)) if request.is_mirrored else None
    if mirror:
        mirror.pull()
    exists = (folder / "run.json").exists()
    if exists and not request.resume:
        raise ArtifactError(
            f"--run must be a new folder, but {request.run or folder} has a study: add --resume to go on with it"
        )
    # What is wrong with any named point is refused now rather than after an hour.
    named = [space.config(point).recipe for point in space.named_points()]
    model = config.recipe.model
    if model.checkpoint is not None or model.pooling != "avg":
        # Built once here: what is missing or does not fit is refused before every trial fails for it.
        create_backbone(model.backbone, model.pretrained, model.checkpoint, config.recipe.image_size, model.pooling)
    on_all = request.address is not None and config.stores is not None
    spread = on_cluster(request.address) if on_all else in_threads
    manifest, (store,) = read_data(config, console, spread=spread)
    settings = config.folds
    folds = make_folds(manifest, settings)
    for recipe in named:
        check_recipe(recipe, manifest, folds)
    same = {
        "manifest": manifest.digest,
        "pixels": data_digest(manifest, store),
        "folds": folds.digest,
        "space": request.space,
        "overrides": [one for one in request.overrides if not one.startswith(_OF_THE_MACHINE)],
        "content of the space": space.digest,
        "initial weights": _digest_of_file(model.checkpoint),
    }
    if exists:
        Run.open(folder).check_same(same)
    made_from = {
        "data": config.data.to_plain(),
        "divide": settings.to_plain(),
        **store_facts(config.stores, store),
    }
    commands = {"command": request.command, "repeating command": request.repeating_command}
    return Preparation(folder, config.cache_folder, manifest, folds, same, made_from, commands, mirror)


def _digest_of_file(path: str | None) -> str | None:
    """Returns the name of a file's content; None where there is no file."""
    if path is None:
        return None
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()[:16]


def on_cluster(address: str | None) -> Spread:
    """Returns what has chunks decoded on every CPU of a cluster.

    It connects only when there is something to decode, and leaves the cluster again: a study with nothing to decode
    must not wait for it.

    Args:
        address: Of the cluster.
    """

    def spread(chunks: Sequence[Chunk]) -> Iterator[Chunk]:
        if not chunks:
            return
        with connected(address):
            task = ray.remote(num_cpus=1)(decode_chunk)
            waiting = [task.remote(chunk) for chunk in chunks]
            while waiting:
                done, waiting = ray.wait(waiting)
                yield ray.get(done[0])

    return spread
