"""A run: the folder of one study, in which one step writes what the next one reads.

run.json            which data, which folds, which command: what `--resume` must find unchanged
manifest.parquet    the rows          folds.parquet   the fold of each row
study.journal       Optuna's trials   recipes/        one JSON file a recipe
encoders/           stage one         features/       what frozen encoders say of the rows
classifiers/        stage two         searches/       the stage-two settings tried on each encoder
predictions/        held-out and test rows, per recipe and fold
jobs/               the ledger: one JSON file a finished job, with its cost and its loss curves
logs/               Ray's chatter and each lane's own log
leaderboard.*  ensemble*.json       .driver         held by the one driver at work here
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

import raysk
from raysk.artifacts import digest_of, locked, read_json, write_json
from raysk.data.folds.assignment import Folds
from raysk.data.manifest import Manifest
from raysk.data.store.building import build_store
from raysk.data.store.image_store import ImageStore, find_store
from raysk.errors import ArtifactError, ConfigError
from raysk.evaluation.predictions import Predictions
from raysk.recipe import RECIPE_SCHEMA, Job, Recipe
from raysk.records import JobRecord, Part, SearchRecord

# Of what a run's files say: raise the second number when a record changes.
_SCHEMA = f"{RECIPE_SCHEMA}.1"

GREEDY = "ensemble: greedy"
AVERAGE = "ensemble: plain average"
_ENSEMBLES = {GREEDY: "ensemble.json", AVERAGE: "ensemble_average.json"}


@dataclass(frozen=True)
class Run:
    """The folder of one study.

    Args:
        folder: Where it is; on a cluster, storage that all nodes see.
        cache: Where this machine keeps image stores between runs.
        stores: Where all machines find image stores; None where each decodes for itself.
    """

    folder: Path
    cache: Path
    stores: str | None = None

    @classmethod
    def create(cls, folder: Path, cache: Path, manifest: Manifest, folds: Folds, facts: dict[str, Any]) -> "Run":
        """Makes the folder of a new study.

        Args:
            facts: What else `run.json` keeps, such as space and command, and `store_facts`.

        Raises:
            ArtifactError: The folder has a study already, or cannot be written.
            ConfigError: The folds have no test part.
        """
        if (folder / "run.json").exists():
            raise ArtifactError(f"--run must be a new folder, but {folder} has a study: add --resume to go on with it")
        if not len(folds.test_rows):
            raise ConfigError(
                "a study must have a locked test part, but folds.test_share is 0 and no row has the role test: give one"
            )
        run = cls(folder, cache, facts.get("stores"))
        manifest.write(folder / "manifest.parquet")
        folds.write(folder / "folds.parquet")
        made_by = {"schema": _SCHEMA, "version": raysk.__version__}
        write_json(folder / "run.json", facts | {"cache": str(cache)} | made_by)
        return run

    @classmethod
    def open(cls, folder: Path) -> "Run":
        """Opens the folder of a study.

        Raises:
            ArtifactError: There is none, or a raysk of another schema has made it.
        """
        facts = read_json(folder / "run.json")
        if facts.get("schema") != _SCHEMA:
            version = facts.get("version", "0.1.0")  # the last that did not write it down
            raise ArtifactError(
                f"{folder} must be a run of schema {_SCHEMA}, but raysk {version} made it with schema "
                f"{facts.get('schema', 2)}: read it with that version (pip install raysk=={version})"
            )
        return cls(folder, Path(facts["cache"]), facts.get("stores"))

    @staticmethod
    def reserved(folder: Path) -> AbstractContextManager[None]:
        """Keeps other drivers out of a run directory for the block.

        Raises:
            ArtifactError: On entering, when another driver is at work in it.
        """
        busy = f"--run must be a folder that no other raysk works in, but one does in {folder}: wait for it, or end it"
        return locked(folder / ".driver", busy)

    def check_same(self, now: dict[str, Any]) -> None:
        """Refuses to go on with other rows, pixels, folds or settings than the study was begun with.

        Args:
            now: Facts, by the names that they have in `run.json`.

        Raises:
            ArtifactError: One differs.
        """
        for noun, value in now.items():
            if self.facts.get(noun) != value:
                raise ArtifactError(
                    f"--resume must find the {noun} that {self.folder} was begun with, {self.facts.get(noun)}, "
                    f"but got {value}: repeat the first command, or choose another --run"
                )

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What `run.json` says."""
        facts: dict[str, Any] = read_json(self.folder / "run.json")
        return facts

    @cached_property
    def manifest(self) -> Manifest:
        """The rows."""
        return Manifest.read(self.folder / "manifest.parquet")

    @cached_property
    def folds(self) -> Folds:
        """The fold of each row."""
        folds = Folds.read(self.folder / "folds.parquet")
        folds.check(self.manifest)
        return folds

    def class_counts(self, fold: int) -> np.ndarray:
        """Returns the rows of each class among the training rows of a fold, (C,)."""
        return training_counts(self.manifest, self.folds, fold)

    def check(self, recipe: Recipe) -> None:
        """Refuses a recipe that cannot train on every fold; see `check_recipe`."""
        check_recipe(recipe, self.manifest, self.folds)

    def store(self, size: int) -> ImageStore:
        """Returns the images at `size` pixels; they are decoded when this machine has not done so before."""
        # By its key, so that no machine has to look at every file, and one that sees no files can copy.
        key = self.facts.get("images", {}).get(str(size))
        found = find_store(key, self.cache, self.stores) if key else None
        return found or build_store(self.manifest, size, self.cache, shared=self.stores)[0]

    def encoder_file(self, job: Job) -> Path:
        """Where stage one of this job keeps its encoder."""
        return self.folder / "encoders" / str(job.recipe.encoder_key) / f"fold{job.fold}.safetensors"

    def features_file(self, job: Job, name: str) -> Path:
        """Where the features are that the encoder of this job's fold gives in one view."""
        return self.folder / "features" / str(job.recipe.encoder_key) / f"fold{job.fold}-{name}.safetensors"

    def classifier_file(self, job: Job) -> Path:
        """Where stage two of this job keeps its classifier."""
        return self.folder / "classifiers" / job.recipe.key / f"fold{job.fold}.safetensors"

    def predictions_file(self, recipe_key: str, fold: int, part: Part) -> Path:
        """Where the predictions of a recipe on one part of one fold are."""
        return self.folder / "predictions" / recipe_key / f"fold{fold}-{part}.parquet"

    def predictions(self, recipe_key: str, fold: int, part: Part = "held_out") -> Predictions:
        """Reads the predictions of a recipe on one part of one fold."""
        return Predictions.read(self.predictions_file(recipe_key, fold, part))

    def record_file(self, job: Job) -> Path:
        """Where the ledger has the line of this job."""
        return self.folder / "jobs" / f"{job.id}.json"

    def ensemble_file(self, name: str) -> Path:
        """Where the members and weights of an ensemble are."""
        return self.folder / _ENSEMBLES[name]

    def search_file(self, search_id: str) -> Path:
        """Where a stage-two search keeps what it tried."""
        return self.folder / "searches" / f"{search_id}.json"

    def search(self, search_id: str) -> SearchRecord:
        """Reads what a finished stage-two search tried."""
        return SearchRecord.read(self.search_file(search_id))

    def is_done(self, job: Job) -> bool:
        """Whether the job was finished, by this driver or by an earlier one."""
        return self.record_file(job).exists()

    def record(self, job: Job) -> JobRecord:
        """Reads the ledger's line of a finished job: cost and loss curves."""
        return JobRecord.read(self.record_file(job))

    def keep_recipe(self, recipe: Recipe) -> None:
        """Writes a recipe to its file."""
        write_json(self.folder / "recipes" / f"{recipe.key}.json", recipe.to_plain())

    def recipe(self, key: str) -> Recipe:
        """Reads a recipe back."""
        return Recipe.from_plain(read_json(self.folder / "recipes" / f"{key}.json"))


def training_counts(manifest: Manifest, folds: Folds, fold: int) -> np.ndarray:
    """Returns the rows of each class among the training rows of a fold, (C,)."""
    return np.bincount(manifest.labels[folds.train_rows(fold)], minlength=len(manifest.class_names))


def check_recipe(recipe: Recipe, manifest: Manifest, folds: Folds) -> None:
    """Refuses a recipe that cannot train on every fold.

    Raises:
        ConfigError: See `Recipe.check_rows`.
    """
    for fold in range(len(folds)):
        recipe.check_rows(training_counts(manifest, folds, fold))


def data_digest(manifest: Manifest, store: ImageStore) -> str:
    """Returns one name for the rows and their pixels."""
    return digest_of({"manifest": manifest.digest, "pixels": store.digest})


def store_facts(stores: str | None, store: ImageStore) -> dict[str, Any]:
    """Returns what a run keeps of its decoded images, so that every machine finds them."""
    return {"stores": stores, "images": {str(store.pixels.shape[1]): store.key}}
