"""Records: values that one process writes or sends and another process reads.

Each record is a frozen dataclass. Pydantic validates what is read, so that a file of another version or a file edited
by hand gives an error of one line instead of a later failure.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import ConfigDict, TypeAdapter, ValidationError

from raysk.artifacts import read_json, write_json
from raysk.errors import ArtifactError, shown

# Part of every recipe's key. Raise it when a recipe would no longer give the same weights, or when a default changes,
# since keys leave out the settings that have their default.
RECIPE_SCHEMA = 6
# The rows that a job predicts: the held-out rows of its fold, or the locked test part.
Part = Literal["held_out", "test"]
# The origin of a recipe in a study: a start of the space, a control, or the search.
PointKind = Literal["start", "control", "drawn"]


@dataclass(frozen=True, kw_only=True)
class Record:
    """Base of all records; a subclass only declares its fields."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    def to_plain(self) -> dict[str, Any]:
        """Returns the JSON form."""
        plain: dict[str, Any] = _adapter(type(self)).dump_python(self, mode="json")
        return plain

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any], where: object) -> Self:
        """Reads the JSON form.

        Args:
            plain: A result of `to_plain`.
            where: Its name in error messages, such as a path.

        Raises:
            ArtifactError: A field is missing, unknown or of another type.
        """
        try:
            record: Self = _adapter(cls).validate_python(plain)
        except ValidationError as error:
            first = error.errors()[0]
            field = shown(".".join(map(str, first["loc"])), 100) or "it"
            raise ArtifactError(
                f"{where} must be a {cls.__name__} of this raysk, but {field}: {first['msg'].lower()}: "
                "remove it, or read it with the version that wrote it"
            ) from error
        return record

    @classmethod
    def read(cls, path: Path) -> Self:
        """Reads a file.

        Raises:
            ArtifactError: It is missing, not JSON, or not a record of this kind.
        """
        return cls.from_plain(read_json(path), path)

    def write(self, path: Path) -> None:
        """Writes a file completely or not at all."""
        write_json(path, self.to_plain())


def _adapter(kind: type[Record]) -> TypeAdapter[Any]:
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]


# One adapter for each class, since making one takes a millisecond.
_ADAPTERS: dict[type[Record], TypeAdapter[Any]] = {}


@dataclass(frozen=True, kw_only=True)
class Health(Record):
    """Measures of a representation on some rows of each class.

    Alignment, uniformity and effective rank are computed on training rows, with features of unit length. A mean over no
    pairs is 0.

    Args:
        probe: Macro-F1 on the held-out rows of the nearest class mean of the training rows (the head `ncm`).
        linear_probe: The same of a linear classifier, fitted by least squares with balanced classes.
        neighbour_probe: The same of the ten nearest neighbours.
        alignment: Mean of |z_i - z_j|^2 over pairs of one class: Wang and Isola 2020. 0 means one point per class.
        uniformity: log of the mean of exp(-2 |z_i - z_j|^2) over all pairs: Wang and Isola 2020. 0 means one point for
            all rows; on a sphere of many dimensions the minimum is near -4.
        effective_rank: exp of the entropy of the singular values of the centred features, divided by their sum: Roy and
            Vetterli 2007. The number of directions in use; 0 if all features are equal.
        collapsed: Names of the classes that coincide with a class of at least as many rows.
        alarm: One line on what is wrong, or None.
    """

    probe: float
    linear_probe: float
    neighbour_probe: float
    alignment: float
    uniformity: float
    effective_rank: float
    collapsed: tuple[str, ...] = ()
    alarm: str | None = None


@dataclass(frozen=True, kw_only=True)
class StageRecord(Record):
    """The cost and course of a stage.

    Args:
        seconds: Training time over all attempts.
        images: Number of images run through the network, counting each view, over all workers.
        losses: Mean loss of each epoch.
        health: Health after each epoch of stage one.
    """

    seconds: float
    images: int
    losses: tuple[float, ...] = ()
    health: tuple[Health, ...] = ()


@dataclass(frozen=True, kw_only=True)
class JobRecord(Record):
    """A finished job.

    Args:
        recipe: Key of its recipe.
        fold: The held-out fold.
        part: The predicted rows.
        seconds: Duration, without earlier attempts.
        workers: Number of DDP workers; the last digits depend on it.
        threads: Number of torch threads in each worker; the last digits depend on it, too.
        metric: Name of the study's metric.
        score: Score by it on the held-out rows; None for the test part, whose labels no job sees.
        required: Scores by the metrics of the study's requirements, in their order.
        stage_one: None for a one-stage recipe, and for the test part.
        stage_two: None for the test part.
    """

    recipe: str
    fold: int
    part: Part
    seconds: float
    workers: int
    threads: int
    metric: str
    score: float | None = None
    required: tuple[float, ...] = ()
    stage_one: StageRecord | None = None
    stage_two: StageRecord | None = None


@dataclass(frozen=True, kw_only=True)
class ReferenceRecord(Record):
    """The scores of the reference heads on one fold, by which an encoder races before its stage two is searched.

    Args:
        recipe: Key of the recipe of the encoder.
        fold: The held-out fold.
        seconds: Duration.
        heads: Names of the H reference heads, the same for all recipes.
        scores: Of each head, the score by the study's metric, and those by the metrics of its requirements, (H, S).
        merits: Of each head, its merit by the goal of the study; larger is better.
    """

    recipe: str
    fold: int
    seconds: float
    heads: tuple[str, ...]
    scores: tuple[tuple[float, ...], ...]
    merits: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class RunFacts(Record):
    """What a run was made from; `run.json` has it beside the schema and the version that made the run.

    Args:
        manifest: Digest of the rows.
        pixels: Digest of the rows with their pixels.
        folds: Digest of the folds.
        metric: Metric of the study.
        requirements: Requirements of the study.
        data: Settings of the rows.
        divide: Settings of the folds.
        cache: Folder of image stores on the machine of the driver.
        stores: Folder of image stores for all machines; None without one.
        images: Key of the image store of each size, by which every machine finds it.
        regions: Key of the region store of each size; empty if no recipe reads masks or boxes.
        recipe: Key of the recipe of a run of `raysk train`; "" for a study.
        space: Name or file of the space of a study; the rest is of a study, too.
        overrides: Overrides that affect results.
        content_of_the_space: Digest of the space with its overrides.
        initial_weights: Digest of the files of initial weights; None without any.
        notes: What the board says of initial weights, by their source.
        command: The command as typed.
        repeating_command: The command that repeats the study.
        begun: When it was begun.
    """

    manifest: str
    pixels: str
    folds: str
    metric: str
    requirements: tuple[str, ...]
    data: dict[str, Any]
    divide: dict[str, Any]
    cache: str
    stores: str | None
    images: dict[str, str]
    regions: dict[str, str] = field(default_factory=dict)
    recipe: str = ""
    space: str = ""
    overrides: tuple[str, ...] = ()
    content_of_the_space: str = ""
    initial_weights: str | None = None
    notes: dict[str, str] = field(default_factory=dict)
    command: str = ""
    repeating_command: str = ""
    begun: str = ""


def job_id(recipe_key: str, fold: int, part: Part) -> str:
    """Returns the name of a job, made from its content."""
    return f"{recipe_key}-fold{fold}-{part}"


@dataclass(frozen=True, kw_only=True)
class TriedSetting(Record):
    """A setting of stage two that a search tried.

    Args:
        recipe: Key of the resulting recipe.
        scores: Score by the study's metric on the held-out rows of each fold, (R k,); the worst where it diverged.
        stage_two: The setting in full.
    """

    recipe: str
    scores: tuple[float, ...]
    stage_two: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class SearchRecord(Record):
    """A finished search of stage two.

    Args:
        recipe: Key of the recipe whose encoders it used.
        kept: Keys of the best recipes, the best first.
        score: Mean score of the best recipe over folds, by the study's metric.
        crossfit_scores: Score on each fold of the setting that the other folds choose, (R k,).
        crossfit_merits: Merit of that setting on these other folds, (R k,).
        seconds: Duration.
        tried: All settings.
    """

    recipe: str
    kept: tuple[str, ...]
    score: float
    crossfit_scores: tuple[float, ...]
    crossfit_merits: tuple[float, ...]
    seconds: float
    tried: tuple[TriedSetting, ...]

    @property
    def crossfit(self) -> float:
        """The honest score of the choice: the mean of its scores."""
        return math.fsum(self.crossfit_scores) / len(self.crossfit_scores)
