"""Folds: which rows train together and which are held out, fixed once for a study."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa

from raysk.artifacts import digest_of
from raysk.data.manifest import IntArray, Manifest
from raysk.data.parquet import read_parquet, write_parquet
from raysk.errors import ArtifactError, ConfigError, DataError
from raysk.records import Part

TEST = -1
TRAIN_ONLY = -2
# The number of the fold that holds out nothing: its model trains on all rows that are not locked away.
WHOLE = -1


@dataclass(frozen=True, eq=False)
class Folds:
    """The part of each row: a fold from 0 to k - 1, the locked test part, or training only.

    R repeats divide the same rows R times and number the folds consecutively: fold r k + f is part f of division r.
    `len(folds)` is the number of folds in all divisions.

    Attributes:
        divisions: The part of each row in each division, (R, N): 0 to k - 1, `TEST` or `TRAIN_ONLY`; the last two are
            the same in all divisions.
        k: The number of folds of a division.
        seed: The seed with which the folds were drawn.
        manifest_digest: The digest of the manifest with these rows.

    Raises:
        DataError: A fold has no row, a value is not a part, or the test part is not the same in all divisions.
    """

    divisions: IntArray
    k: int
    seed: int
    manifest_digest: str

    def __post_init__(self) -> None:
        for division in self.divisions:
            parts = set(np.unique(division).tolist())
            if strange := sorted(parts - {TEST, TRAIN_ONLY, *range(self.k)}):
                raise DataError(
                    f"a fold must be 0 to {self.k - 1}, {TEST} or {TRAIN_ONLY}, but got {strange[0]}: make new folds"
                )
            if missing := sorted(set(range(self.k)) - parts):
                raise DataError(f"each of the {self.k} folds must have rows, but fold {missing[0]} has none: lower k")
        fixed = np.minimum(self.divisions, 0)
        if (fixed != fixed[0]).any():
            row = int(np.argwhere(fixed != fixed[0])[0, 1])
            raise DataError(
                f"the test part must be the same in all repeats, but row {row} is in it only in some: make new folds"
            )

    def __len__(self) -> int:
        return len(self.divisions) * self.k

    @property
    def fold(self) -> IntArray:
        """The part of each row in the first division, (N,)."""
        return self.divisions[0]

    def train_rows(self, fold: int) -> IntArray:
        """Returns the training rows of `fold`: the rows of the other folds and the rows for training only."""
        if fold == WHOLE:
            return np.flatnonzero(self.fold != TEST).astype(np.int64)
        division, part = self._place(fold)
        return np.flatnonzero((division != part) & (division != TEST)).astype(np.int64)

    def held_out_rows(self, fold: int) -> IntArray:
        """Returns the rows on which the models of `fold` are scored; `WHOLE` has none."""
        if fold == WHOLE:
            return np.empty(0, dtype=np.int64)
        division, part = self._place(fold)
        return np.flatnonzero(division == part).astype(np.int64)

    @property
    def test_rows(self) -> IntArray:
        """The rows of the locked test part."""
        return np.flatnonzero(self.fold == TEST).astype(np.int64)

    def scored_rows(self, fold: int, part: Part) -> IntArray:
        """Returns the rows of a part that the model of `fold` is scored on."""
        return self.test_rows if part == "test" else self.held_out_rows(fold)

    @cached_property
    def digest(self) -> str:
        """A digest of the parts and the manifest; it does not depend on the seed."""
        return digest_of({"divisions": self.divisions.tolist(), "k": self.k, "manifest": self.manifest_digest})

    def check(self, manifest: Manifest) -> None:
        """Checks that these are folds of `manifest`.

        Raises:
            ArtifactError: They were made for another manifest, or cut one of its groups.
        """
        num_rows = self.divisions.shape[1]
        if self.manifest_digest != manifest.digest or num_rows != len(manifest):
            raise ArtifactError(
                f"folds must be of manifest {manifest.digest} ({len(manifest)} rows), but these are of manifest "
                f"{self.manifest_digest} ({num_rows} rows): use the data that they were made for, or make new folds"
            )
        for division in self.divisions:
            if (cut := cut_group(division, manifest)) is not None:
                raise ArtifactError(f"folds must not cut a group, but these cut {cut!r}: make new folds")

    def write(self, path: Path) -> None:
        """Writes the folds as one Parquet file, a column for each division, whole or not at all."""
        facts = {"k": self.k, "seed": self.seed, "manifest_digest": self.manifest_digest}
        columns = {f"division_{number}": pa.array(division) for number, division in enumerate(self.divisions)}
        write_parquet(path, "folds", pa.table(columns), facts)

    @classmethod
    def read(cls, path: Path) -> "Folds":
        """Reads folds that `write` wrote.

        Raises:
            ArtifactError: The file is missing or does not hold folds.
        """
        table, facts = read_parquet(path, "folds")
        return cls(np.stack([column.to_numpy() for column in table.columns]).astype(np.int64), **facts)

    def _place(self, fold: int) -> tuple[IntArray, int]:
        """Returns the division of a fold, and its part in this division."""
        if not 0 <= fold < len(self):
            raise ConfigError(f"a fold must be from 0 to {len(self) - 1}, but got {fold}: choose one of these")
        division, part = divmod(fold, self.k)
        return self.divisions[division], part


def cut_group(fold: IntArray, manifest: Manifest) -> str | None:
    """Returns the name of a group whose rows are in different parts, or None."""
    _, first, members = np.unique(manifest.groups, return_index=True, return_inverse=True)
    astray = np.flatnonzero(fold != fold[first][members])
    return str(manifest.table.column("group")[int(astray[0])].as_py()) if astray.size else None
