"""The preparation of a study: reads and divides the rows, decodes the images, and opens the run directory."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import ray
from rich.console import Console

from raysk.config import Config
from raysk.data.folds.assignment import Folds
from raysk.data.manifest import Manifest
from raysk.data.store.chunks import Chunk, Spread, decode_chunk, in_threads
from raysk.errors import ArtifactError
from raysk.loading import prepare_rows, read_rows
from raysk.records import RunFacts
from raysk.run import Run
from raysk.search.cluster import connected
from raysk.search.fitting import fitting
from raysk.search.mirror import Mirror
from raysk.search.request import StudyRequest
from raysk.spaces.encoders import drawn_encoders
from raysk.spaces.space import Space

# Settings that do not affect results: another machine may need others.
_OF_THE_MACHINE = ("cache=", "stores=", "loader=")
# Settings of how far a study goes, which a resumed study may change, as it may change --trials.
_OF_THE_BUDGET = ("controls=", "finalists=", "seeds=")
# Settings with facts of their own, in one form however they are typed.
_OF_THE_GOAL = ("metric=", "require=")


@dataclass(frozen=True)
class Preparation:
    """A study before its run directory is opened.

    Args:
        folder: The run directory.
        space: The searched space, without the families that the rows do not allow.
        unfit: Why each of these is left out, by its name.
        manifest: The rows.
        folds: Their folds.
        facts: What they and the study are made from.
        mirror: The copy of the run in object storage; None if the run is only a folder.
    """

    folder: Path
    space: Space
    unfit: dict[str, str]
    manifest: Manifest
    folds: Folds
    facts: RunFacts
    mirror: Mirror | None

    def run(self) -> Run:
        """Opens or creates the run directory."""
        if (self.folder / "run.json").exists():
            # This machine may not be the one that began the study.
            return Run.open(self.folder).moved(self.facts)
        return Run.create(self.folder, self.manifest, self.folds, self.facts)


def prepare(request: StudyRequest, space: Space, config: Config, console: Console) -> Preparation:
    """Reads and divides the rows, decodes the images, and checks the run directory.

    Of several families, those whose starts cannot train on the rows are left out.

    Raises:
        ArtifactError: The folder has a study and `resume` is off, or a study of other rows or settings.
    """
    folder = request.folder(space, config.cache_folder)
    mirror = Mirror(folder, str(request.run)) if request.is_mirrored else None
    if mirror:
        mirror.pull()
    exists = (folder / "run.json").exists()
    if exists and not request.resume:
        raise ArtifactError(
            f"--run must be a new folder, but {request.run or folder} has a study: add --resume to continue it"
        )
    # A mistake is told before the rows are read; of competing families, `fitting` judges the starts.
    for point in space.named_points() if len(space.families) == 1 else space.control_points():
        space.config(point)
    manifest = read_rows(config, console)
    space, unfit = fitting(space, manifest)
    for name, reason in unfit.items():
        console.print(f"left out: {name}, since {reason}", markup=False, highlight=False)
    named = [space.config(point).recipe for point in space.named_points()]
    on_all = request.address is not None and config.stores is not None
    spread = on_cluster(request.address) if on_all else in_threads
    manifest, folds, facts = prepare_rows(
        manifest,
        config,
        named,
        console,
        spread,
        drawn_encoders(space),
        space=request.space,
        overrides=tuple(
            text
            for text in request.overrides
            if not text.startswith((*_OF_THE_MACHINE, *_OF_THE_BUDGET, *_OF_THE_GOAL))
        ),
        content_of_the_space=space.digest,
        command=request.command,
        repeating_command=request.repeating_command,
        begun=f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S%z}",
    )
    if exists:
        Run.open(folder).check_same(facts)
    return Preparation(folder, space, unfit, manifest, folds, facts, mirror)


def on_cluster(address: str | None) -> Spread:
    """Returns a function that decodes chunks on every CPU of a cluster.

    It connects to the cluster only while there are chunks to decode, so that a study without any does not wait for it.

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
