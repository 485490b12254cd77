"""Folds: which rows train together and which are held out, fixed once for a study."""

import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa

from raysk.artifacts import digest_of
from raysk.data.manifest import IntArray, Manifest
from raysk.data.parquet import read_parquet, write_parquet
from raysk.data.placement import place_groups
from raysk.errors import ArtifactError, ConfigError, DataError
from raysk.registry import unknown_name

TEST = -1
TRAIN_ONLY = -2

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Folds:
    """The part of each row: a fold from 0 to k - 1, the locked test part, or training only.

    Attributes:
        fold: The part of each row, (N,): 0 to k - 1, `TEST` or `TRAIN_ONLY`.
        k: The number of folds.
        seed: What the folds were drawn with.
        manifest_digest: The manifest whose rows these are.

    Raises:
        DataError: A fold has no row, or a value is no part.
    """

    fold: IntArray
    k: int
    seed: int
    manifest_digest: str

    def __post_init__(self) -> None:
        parts = set(np.unique(self.fold).tolist())
        if strange := sorted(parts - {TEST, TRAIN_ONLY, *range(self.k)}):
            raise DataError(
                f"a fold must be 0 to {self.k - 1}, {TEST} or {TRAIN_ONLY}, but got {strange[0]}: fold anew"
            )
        if missing := sorted(set(range(self.k)) - parts):
            raise DataError(f"each of the {self.k} folds must have rows, but fold {missing[0]} has none: lower k")

    def train_rows(self, fold: int) -> IntArray:
        """Returns the rows that a model of `fold` learns from: the other folds and what is for training only."""
        self._check_fold(fold)
        return np.flatnonzero((self.fold != fold) & (self.fold != TEST)).astype(np.int64)

    def held_out_rows(self, fold: int) -> IntArray:
        """Returns the rows that a model of `fold` is scored on."""
        self._check_fold(fold)
        return np.flatnonzero(self.fold == fold).astype(np.int64)

    @property
    def test_rows(self) -> IntArray:
        """The rows of the locked test part."""
        return np.flatnonzero(self.fold == TEST).astype(np.int64)

    @cached_property
    def digest(self) -> str:
        """Names the content: equal parts of the same manifest have equal digests, whatever the seed."""
        return digest_of({"fold": self.fold.tolist(), "k": self.k, "manifest": self.manifest_digest})

    def check(self, manifest: Manifest) -> None:
        """Confirms that these are folds of `manifest`.

        Raises:
            ArtifactError: They were made for another manifest, or cut one of its groups.
        """
        if self.manifest_digest != manifest.digest or len(self.fold) != len(manifest):
            raise ArtifactError(
                f"folds must be of manifest {manifest.digest} ({len(manifest)} rows), but these are of manifest "
                f"{self.manifest_digest} ({len(self.fold)} rows): take the data that they were made for, or fold anew"
            )
        if (cut := _cut_group(self.fold, manifest)) is not None:
            raise ArtifactError(f"folds must not cut a group, but these cut {cut!r}: fold anew")

    def write(self, path: Path) -> None:
        """Writes the folds as one Parquet file, whole or not at all."""
        facts = {"k": self.k, "seed": self.seed, "manifest_digest": self.manifest_digest}
        write_parquet(path, "folds", pa.table({"fold": pa.array(self.fold)}), facts)

    @classmethod
    def read(cls, path: Path) -> "Folds":
        """Reads what `write` wrote.

        Raises:
            ArtifactError: The file is missing or does not hold folds.
        """
        table, facts = read_parquet(path, "folds")
        return cls(table.column("fold").to_numpy().astype(np.int64), **facts)

    def _check_fold(self, fold: int) -> None:
        if not 0 <= fold < self.k:
            raise ConfigError(f"a fold must be from 0 to {self.k - 1}, but got {fold}: choose one of these")


def make_folds(
    manifest: Manifest, k: int = 3, seed: int = 0, test_share: float = 0.2, column: str | None = None
) -> Folds:
    """Divides the rows into k folds and a test part; never cuts a group, and gives each part its share of each class.

    Groups are placed from the rarest class to the most frequent and from the largest to the smallest, each into the
    part that its class fills least. Rows with the role "train_only" are in no part, and rows with the role "test",
    if there are any, are exactly the test part.

    Args:
        manifest: The rows.
        k: The number of folds.
        seed: Which of the equally good divisions.
        test_share: The share of the rows in the test part, if no row has the role "test"; 0 for no test part.
        column: An attribute that holds the folds, as integers that are renumbered from 0 in their order; "test" or
            -1 is the test part. Then nothing is drawn, and `test_share` is not used.

    Raises:
        ConfigError: k, the share or the column cannot be right.
        DataError: A class has fewer groups than there are parts, a group has rows of different roles, or `column`
            does not hold k folds of whole groups.
    """
    if k < 2:
        raise ConfigError(f"folds.k must be at least 2, but got {k}: training and scoring take two parts")
    if not 0 <= test_share < 1:
        raise ConfigError(f"folds.test_share must be at least 0 and below 1, but got {test_share}: 0.2 is usual")
    roles = np.array([{"test": TEST, "train_only": TRAIN_ONLY}.get(role, 0) for role in manifest.roles], np.int64)
    if (cut := _cut_group(roles, manifest)) is not None:
        raise DataError(f"the rows of a group must have one role, but those of {cut!r} differ: correct the roles")
    if column is not None:
        fold = _folds_of_column(manifest, roles, column, k)
    else:
        fold = _draw_folds(manifest, roles, k, seed, 0.0 if (roles == TEST).any() else test_share)
    _check_training_sides(fold, k, manifest)
    return Folds(fold, k, seed, manifest.digest)


def _draw_folds(manifest: Manifest, roles: IntArray, k: int, seed: int, test_share: float) -> IntArray:
    """Returns the part of each row, of which those without a role are drawn."""
    free = np.flatnonzero(roles == 0)
    codes, members = np.unique(manifest.groups[free], return_inverse=True)
    composition = np.zeros((len(codes), len(manifest.class_names)), dtype=np.int64)  # (G, C) rows
    np.add.at(composition, (members, manifest.labels[free]), 1)
    shares = np.full(k, (1 - test_share) / k)
    if test_share:
        shares = np.append(shares, test_share)
    _check_enough_groups(composition, len(shares), manifest, k)
    parts = place_groups(composition, shares, np.random.default_rng(seed))
    counts = np.zeros((len(shares), composition.shape[1]), dtype=np.int64)
    np.add.at(counts, parts, composition)
    if not counts.all():
        name = manifest.class_names[int(np.argwhere(counts == 0)[0, 1])]
        raise DataError(
            f"every part must have rows of each class, but {name!r} shares its groups with other classes so that "
            f"one part got none: lower folds.k, or try another folds.seed"
        )
    fold = roles.copy()
    fold[free] = np.where(parts == k, TEST, parts)[members]
    return fold


def _folds_of_column(manifest: Manifest, roles: IntArray, column: str, k: int) -> IntArray:
    """Returns the part of each row as its role or, without one, the attribute `column` says."""
    if column not in manifest.attributes:
        raise unknown_name("folds.column", column, list(manifest.attributes))
    fold = roles.copy()
    for row, value in enumerate(manifest.table.column(column).to_pylist()):
        if roles[row] == 0:
            fold[row] = _part_of_value(value, row, column)
    if (cut := _cut_group(fold, manifest)) is not None:
        raise DataError(f"folds must not cut a group, but column {column!r} cuts {cut!r}: correct it, or draw folds")
    drawn = (fold >= 0) & (roles == 0)
    numbers, renumbered = np.unique(fold[drawn], return_inverse=True)
    if len(numbers) != k:
        raise DataError(
            f"column {column!r} must hold as many folds as folds.k, but it holds {len(numbers)} and folds.k is {k}: "
            f"set folds.k={len(numbers)}"
        )
    fold[drawn] = renumbered
    return fold


def _part_of_value(value: object, row: int, column: str) -> int:
    text = str(value).strip()
    if text == "test":
        return TEST
    try:
        number = float(text)  # a column with blanks is read as floating point: 3.0 is fold 3
    except ValueError:
        number = np.nan
    if not number.is_integer() or number < TEST:
        raise DataError(
            f"column {column!r} must hold fold numbers or 'test', but got {value!r} in row {row}: correct it"
        )
    return int(number)


def _check_enough_groups(composition: IntArray, num_parts: int, manifest: Manifest, k: int) -> None:
    num_groups = (composition > 0).sum(axis=0)
    rarest = int(num_groups.argmin())
    if num_groups[rarest] < num_parts:
        raise DataError(
            f"every class must have a group for each of the {num_parts} parts ({k} folds"
            f"{' and the test part' if num_parts > k else ''}), but {manifest.class_names[rarest]!r} has "
            f"{num_groups[rarest]} ({composition[:, rarest].sum()} images): lower folds.k, "
            "or remove the class from the table"
        )


def _check_training_sides(fold: IntArray, k: int, manifest: Manifest) -> None:
    """Refuses a training side without a class; only warns of a held-out side that the user has chosen so."""
    for part in [*range(k), TEST]:
        counts = np.bincount(manifest.labels[fold == part], minlength=len(manifest.class_names))
        if part != TEST:
            learnt = np.bincount(manifest.labels[(fold != part) & (fold != TEST)], minlength=len(counts))
            if not learnt.all():
                raise DataError(
                    f"each training side must have every class, but that of fold {part} lacks "
                    f"{manifest.class_names[int(learnt.argmin())]!r}: move some of its groups to another fold"
                )
        if counts.any() and not counts.all():
            name = "the test part" if part == TEST else f"fold {part}"
            logger.warning("%s has no image of class %r", name, manifest.class_names[int(counts.argmin())])


def _cut_group(fold: IntArray, manifest: Manifest) -> str | None:
    """Returns the name of a group whose rows are in different parts, or None."""
    _, first, members = np.unique(manifest.groups, return_index=True, return_inverse=True)
    astray = np.flatnonzero(fold != fold[first][members])
    return str(manifest.table.column("group")[int(astray[0])].as_py()) if astray.size else None
