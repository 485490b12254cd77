"""Records: what one process writes down or sends, and another one reads.

Each is a frozen dataclass with one reader. Pydantic checks what is read, so that a file of another version, or one that
was edited by hand, is refused in one line instead of failing later.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import ConfigDict, TypeAdapter, ValidationError

from raysk.artifacts import read_json, write_json
from raysk.errors import ArtifactError

# Parts of the rows that a job predicts: those that its fold holds out, or the locked test part.
Part = Literal["held_out", "test"]
# Where a recipe of a study comes from: a start of its space, a control beside it, or the search.
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
            plain: What `to_plain` returned.
            where: What an error calls it, such as a path.

        Raises:
            ArtifactError: A field is missing, unknown or of another type.
        """
        try:
            record: Self = _adapter(cls).validate_python(plain)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"])) or "it"
            raise ArtifactError(
                f"{where} must be a {cls.__name__} of this raysk, but {field}: {first['msg'].lower()}: "
                "remove it, or read it with the version that wrote it"
            ) from error
        return record

    @classmethod
    def read(cls, path: Path) -> Self:
        """Reads a file.

        Raises:
            ArtifactError: It is missing, no JSON, or no such record.
        """
        return cls.from_plain(read_json(path), path)

    def write(self, path: Path) -> None:
        """Writes a file, whole or not at all."""
        write_json(path, self.to_plain())


def _adapter(kind: type[Record]) -> TypeAdapter[Any]:
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]


# Made once for each class, since that takes a millisecond.
_ADAPTERS: dict[type[Record], TypeAdapter[Any]] = {}


@dataclass(frozen=True, kw_only=True)
class Health(Record):
    """What a representation looks like on some rows of each class.

    Alignment, uniformity and effective rank are of the training rows, with features of unit length. A mean over no
    pairs is 0.

    Args:
        probe: Macro-F1 on the held-out rows of the nearest class mean of the training rows (the head `ncm`).
        alignment: Mean of |z_i - z_j|^2 over pairs of one class: Wang and Isola 2020. 0 is one point a class.
        uniformity: log of the mean of exp(-2 |z_i - z_j|^2) over all pairs: Wang and Isola 2020. 0 is one point for all
            rows; on a sphere of many dimensions the least is near -4.
        effective_rank: exp of the entropy of the singular values of the centred features, divided by their sum: Roy and
            Vetterli 2007. The number of directions in use; 0 if all features are equal.
        collapsed: Names of the classes that lie on a class of at least as many rows.
        alarm: One line on what has gone wrong, or None.
    """

    probe: float
    alignment: float
    uniformity: float
    effective_rank: float
    collapsed: tuple[str, ...] = ()
    alarm: str | None = None


@dataclass(frozen=True, kw_only=True)
class StageRecord(Record):
    """What a stage cost, and how it went.

    Args:
        seconds: Spent in training, over all attempts.
        images: Images pushed through the network, each view counted, over all workers.
        losses: Mean loss of each epoch.
        health: After each epoch, of stage one.
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
        fold: Which fold it held out.
        part: Which rows it predicted.
        seconds: That the job took, without earlier attempts.
        workers: How many trained together; the last digits depend on it.
        threads: Of torch in each of them; likewise.
        macro_f1: On the held-out rows; None for the test part, whose labels no job sees.
        stage_one: None for a one-stage recipe, and for the test part.
        stage_two: None for the test part.
    """

    recipe: str
    fold: int
    part: Part
    seconds: float
    workers: int
    threads: int
    macro_f1: float | None = None
    stage_one: StageRecord | None = None
    stage_two: StageRecord | None = None


@dataclass(frozen=True, kw_only=True)
class TriedSetting(Record):
    """A setting of stage two that a search tried.

    Args:
        recipe: Key of the recipe that it makes.
        scores: Macro-F1 on the held-out rows of each fold, (R k,).
        expected_elsewhere: For each fold, what the other folds let expect of the setting, (R k,).
        stage_two: The setting in full.
    """

    recipe: str
    scores: tuple[float, ...]
    expected_elsewhere: tuple[float, ...]
    stage_two: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class SearchRecord(Record):
    """A finished search of stage two.

    Args:
        recipe: Key of the recipe whose encoders it used.
        kept: Keys of the best recipes, the best first.
        score: Mean macro-F1 over folds of the best.
        crossfit: Macro-F1 of the choice: each fold is scored by what the other folds choose.
        seconds: That the search took.
        tried: All settings.
    """

    recipe: str
    kept: tuple[str, ...]
    score: float
    crossfit: float
    seconds: float
    tried: tuple[TriedSetting, ...]
