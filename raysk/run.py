"""A run: the folder of one study, through which its steps exchange files.

run.json            data, folds and command, which `--resume` must find unchanged
manifest.parquet    the rows          folds.parquet   the fold of each row
study.journal       Optuna's trials   recipes/        one JSON file per recipe
encoders/           stage one         features/       features of the rows from frozen encoders
classifiers/        stage two         searches/       the stage-two settings tried on each encoder
references/         scores of the reference heads, by which a race judges an encoder
predictions/        held-out and test rows with their images, per recipe and fold
jobs/               the ledger: one JSON file per finished job, with its cost and its loss curves
logs/               Ray's output and one log per lane
fold-1.*            in encoders/ and classifiers/: trained by `raysk refit` on all rows that are not locked away
leaderboard.*  ensemble*.json       .driver         locked by the driver that uses the folder
test_openings.json  the recipes of each look at the locked test part
attention.json      what the rows look at in the test part, by `raysk explain RUN --all`
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from raysk.artifacts import locked, read_json, write_json
from raysk.data.crop import Crop
from raysk.data.folds.assignment import Folds
from raysk.data.manifest import IntArray, Manifest
from raysk.data.store.building import build_store
from raysk.data.store.image_store import ImageStore, find_store
from raysk.data.store.region_store import RegionStore, build_regions, find_regions
from raysk.errors import ArtifactError, ConfigError
from raysk.evaluation.ensemble import AVERAGE, GREEDY
from raysk.evaluation.goals import Goal
from raysk.evaluation.metrics.base import MASKS
from raysk.evaluation.predictions import Predictions
from raysk.evaluation.reference_choice import chosen_scores
from raysk.job_rows import stage_one_rows, train_rows
from raysk.records import JobRecord, Part, ReferenceRecord, RunFacts, SearchRecord, job_id
from raysk.run_checks import check_recipe
from raysk.run_facts import check_same_facts, read_facts, store_name, write_facts

if TYPE_CHECKING:  # torch, which only `Run.recipe` needs
    from raysk.recipe import Job, Recipe

_ENSEMBLES = {GREEDY: "ensemble.json", AVERAGE: "ensemble_average.json"}


@dataclass(frozen=True)
class Run:
    """The folder of one study.

    Args:
        folder: Its path; on a cluster, on storage that all nodes see.
        cache: Folder on this machine that keeps image stores, and features of ready encoders, between runs.
        stores: Folder of image stores for all machines; None if each machine decodes for itself.
    """

    folder: Path
    cache: Path
    stores: str | None = None

    @classmethod
    def create(cls, folder: Path, manifest: Manifest, folds: Folds, facts: RunFacts) -> "Run":
        """Makes the folder of a new study.

        Args:
            folder: Its path.
            manifest: The rows.
            folds: Their folds.
            facts: What they and the study are made from.

        Raises:
            ArtifactError: The folder already has a study, or is not writable.
            ConfigError: The folds have no test part.
        """
        if (folder / "run.json").exists():
            raise ArtifactError(f"--run must be a new folder, but {folder} has a study: add --resume to continue it")
        if not len(folds.test_rows):
            raise ConfigError(
                "a study must have a locked test part, but folds.test_share is 0 and no row has the role test: set one"
            )
        manifest.write(folder / "manifest.parquet")
        folds.write(folder / "folds.parquet")
        write_facts(folder, facts)
        return cls(folder, Path(facts.cache), facts.stores)

    @classmethod
    def open(cls, folder: Path) -> "Run":
        """Opens the folder of a study.

        Raises:
            ArtifactError: The folder has no study, or its study has another schema.
        """
        facts = read_facts(folder)
        return cls(folder, Path(facts.cache), facts.stores)

    def moved(self, facts: RunFacts) -> "Run":
        """Returns the run on a machine that has its data and images elsewhere, and writes where.

        Args:
            facts: The facts of this run as that machine has them.
        """
        here = replace(
            self.facts,
            data=facts.data,
            divide=facts.divide,
            cache=facts.cache,
            stores=facts.stores,
            images=facts.images,
            regions=facts.regions,
            notes=self.facts.notes | facts.notes,
        )
        if here != self.facts:
            write_facts(self.folder, here)
        return Run.open(self.folder)

    @staticmethod
    def reserved(folder: Path) -> AbstractContextManager[None]:
        """Keeps other drivers out of a run directory for the block.

        Raises:
            ArtifactError: On entering, if another driver uses the directory.
        """
        busy = f"--run must be a folder that no other raysk uses, but one uses {folder}: wait for it, or end it"
        return locked(folder / ".driver", busy)

    def check_same(self, now: RunFacts) -> None:
        """Refuses to continue the study with other rows, pixels, folds or settings.

        Raises:
            ArtifactError: One of them differs.
        """
        check_same_facts(self.facts, now, self.folder)

    @cached_property
    def facts(self) -> RunFacts:
        """What the run was made from."""
        return read_facts(self.folder)

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

    @cached_property
    def goal(self) -> Goal:
        """The metric of the study, and its requirements."""
        return Goal.parse(self.facts.metric, self.facts.requirements, self.manifest.class_names)

    @cached_property
    def truth(self) -> np.ndarray:
        """What predictions are scored against: the class of each row, (N,), or its mask, (N, P)."""
        if self.goal.metric.form is not MASKS:
            return self.manifest.labels
        (size,) = map(int, self.facts.regions)
        return self.regions(size).masks.reshape(len(self.manifest), -1)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes that are predicted; none where masks are."""
        return () if self.goal.metric.form is MASKS else self.manifest.class_names

    def train_rows(self, job: "Job") -> IntArray:
        """Returns the rows whose labels a job trains on."""
        return train_rows(job.recipe, job.fold, self.manifest, self.folds)

    def stage_one_rows(self, job: "Job") -> IntArray:
        """Returns the rows of a job's stage one, which may be unlabelled; see `job_rows`."""
        return stage_one_rows(job.recipe, job.fold, self.manifest, self.folds)

    def class_counts(self, job: "Job") -> IntArray:
        """Counts the rows of each class whose labels a job trains on, (C,)."""
        return self.manifest.count_classes(self.train_rows(job))

    def check(self, recipe: "Recipe") -> None:
        """Refuses a recipe that cannot train on every fold; see `check_recipe`."""
        check_recipe(recipe, self.manifest, self.folds)

    def store(self, size: int, crop: Crop = Crop()) -> ImageStore:  # noqa: B008 - settings cannot be changed
        """Returns the images at `size` pixels; decodes them if this machine has not done so before."""
        # The key spares every machine a look at all image files, and lets a machine without these files copy the store.
        key = self.facts.images.get(store_name(size, crop))
        store = find_store(key, self.cache, self.stores) if key else None
        return store or build_store(self.manifest, size, self.cache, crop=crop, shared=self.stores)[0]

    def images(self, recipe: "Recipe") -> ImageStore:
        """Returns the images that a recipe sees; see `store`."""
        return self.store(recipe.image_size, recipe.crop)

    def regions(self, size: int) -> RegionStore:
        """Returns the masks and boxes at `size` pixels; scales them if this machine has not done so before."""
        key = self.facts.regions.get(str(size))
        store = find_regions(key, self.cache, self.stores) if key else None
        return store or build_regions(self.manifest, size, self.cache, "skip", shared=self.stores)

    def encoder_file(self, job: "Job") -> Path:
        """Returns the file of the encoder of this job's stage one."""
        return self.folder / "encoders" / str(job.recipe.encoder_key) / f"fold{job.fold}.safetensors"

    def features_file(self, job: "Job", name: str) -> Path:
        """Returns the file of the features that this job's encoder gives in one view."""
        return self.folder / "features" / str(job.recipe.encoder_key) / f"fold{job.fold}-{name}.safetensors"

    def classifier_file(self, job: "Job") -> Path:
        """Returns the file of the classifier of this job's stage two."""
        return self.folder / "classifiers" / job.recipe.key / f"fold{job.fold}.safetensors"

    def progress_file(self, job: "Job") -> Path:
        """Returns the file of the state of a job's stage two, while it trains."""
        return self.classifier_file(job).with_suffix(".progress")

    def predictions_file(self, recipe_key: str, fold: int, part: Part) -> Path:
        """Returns the file of a recipe's predictions on one part of one fold."""
        return self.folder / "predictions" / recipe_key / f"fold{fold}-{part}.parquet"

    def predictions(self, recipe_key: str, fold: int, part: Part = "held_out") -> Predictions:
        """Reads the predictions of a recipe on one part of one fold."""
        return Predictions.read(self.predictions_file(recipe_key, fold, part))

    def record_file(self, job: "Job") -> Path:
        """Returns the file of this job's record in the ledger."""
        return self.folder / "jobs" / f"{job.id}.json"

    def ensemble_file(self, name: str) -> Path:
        """Returns the file of the members and weights of an ensemble."""
        return self.folder / _ENSEMBLES[name]

    def search_file(self, search_id: str) -> Path:
        """Returns the file of the record of a stage-two search."""
        return self.folder / "searches" / f"{search_id}.json"

    def search(self, search_id: str) -> SearchRecord:
        """Reads the record of a finished stage-two search."""
        return SearchRecord.read(self.search_file(search_id))

    def references_file(self, job: "Job") -> Path:
        """Returns the file of the scores of this job's reference heads."""
        return self.folder / "references" / job.recipe.key / f"fold{job.fold}.json"

    def last_file(self, job: "Job") -> Path:
        """Returns the file that a job writes last."""
        return self.references_file(job) if job.has_references else self.record_file(job)

    def is_done(self, job: "Job") -> bool:
        """Returns whether this or an earlier driver finished the job."""
        return self.last_file(job).exists()

    def record(self, job: "Job") -> JobRecord:
        """Reads the record of a finished job: cost and loss curves."""
        return JobRecord.read(self.record_file(job))

    def training_records(self, recipe_key: str) -> list[JobRecord]:
        """Reads the records of a recipe's finished folds, in the order of the folds."""
        names = [job_id(recipe_key, fold, "held_out") for fold in range(len(self.folds))]
        files = [self.folder / "jobs" / f"{name}.json" for name in names]
        return [JobRecord.read(path) for path in files if path.exists()]

    def fold_scores(self, recipe_key: str, num_folds: int | None = None) -> np.ndarray:
        """Reads the scores of a recipe on its first folds, by all metrics of the goal, (S, F).

        Args:
            recipe_key: Key of the recipe.
            num_folds: F; None reads all folds.
        """
        folds = range(len(self.folds) if num_folds is None else num_folds)
        files = [self.folder / "jobs" / f"{job_id(recipe_key, fold, 'held_out')}.json" for fold in folds]
        records = [JobRecord.read(path) for path in files]
        return np.array([[record.score, *record.required] for record in records], dtype=float).T

    def raced_scores(self, recipe_key: str, num_folds: int | None = None) -> np.ndarray:
        """Reads the scores by which a recipe races: those of its reference heads, or its own without any, (S, F).

        Arguments as in `fold_scores`.
        """
        folds = range(len(self.folds) if num_folds is None else num_folds)
        files = [self.folder / "references" / recipe_key / f"fold{fold}.json" for fold in folds]
        if not all(path.exists() for path in files):
            return self.fold_scores(recipe_key, num_folds)
        return chosen_scores([ReferenceRecord.read(path) for path in files], self.folds.k).T

    def keep_recipe(self, recipe: "Recipe") -> None:
        """Writes a recipe to its file."""
        write_json(self.folder / "recipes" / f"{recipe.key}.json", recipe.to_plain())

    def recipe(self, key: str) -> "Recipe":
        """Reads a recipe from its file."""
        from raysk.recipe import Recipe

        return Recipe.from_plain(read_json(self.folder / "recipes" / f"{key}.json"))
