"""Folds: which rows train together and which are held out, fixed once for a study."""

from dataclasses import dataclass, field
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
UNLABELLED = -3
# The number of the fold that holds out nothing: its model trains on all rows that are not locked away.
WHOLE = -1
# The column of the cases in the file.
_CASES = "case"


@dataclass(frozen=True, eq=False)
class Folds:
    """The part of each row: a fold from 0 to k - 1, the locked test part, training only, or unlabelled.

    An unlabelled row is in no fold. It may join stage one of a fold if no row of its case is held out there, or locked
    away: rows of one case share a group or a picture.

    R repeats divide the same rows R times and number the folds consecutively: fold r k + f is part f of division r.
    `len(folds)` is the number of folds in all divisions.

    Attributes:
        divisions: The part of each row in each division, (R, N): 0 to k - 1, `TEST`, `TRAIN_ONLY` or `UNLABELLED`; the
            last three are the same in all divisions.
        k: The number of folds of a division.
        seed: The seed with which the folds were drawn.
        manifest_digest: The digest of the manifest with these rows.
        cases: The case of each row, (N,); empty without unlabelled rows.

    Raises:
        DataError: A fold has no row, a value is not a part, the test part is not the same in all divisions, or rows are
            unlabelled and have no case.
    """

    divisions: IntArray
    k: int
    seed: int
    manifest_digest: str
    cases: IntArray = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    def __post_init__(self) -> None:
        for division in self.divisions:
            parts = set(np.unique(division).tolist())
            if strange := sorted(parts - {TEST, TRAIN_ONLY, UNLABELLED, *range(self.k)}):
                raise DataError(
                    f"a fold must be 0 to {self.k - 1}, {TEST}, {TRAIN_ONLY} or {UNLABELLED}, but got {strange[0]}: "
                    "make new folds"
                )
            if missing := sorted(set(range(self.k)) - parts):
                raise DataError(f"each of the {self.k} folds must have rows, but fold {missing[0]} has none: lower k")
        if self.num_unlabelled and len(self.cases) != self.divisions.shape[1]:
            raise DataError(
                f"each of the {self.divisions.shape[1]} rows must have a case if some are unlabelled, but "
                f"{len(self.cases)} have one: make new folds"
            )
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
        """Returns the labelled training rows of `fold`: those of the other folds, and those for training only."""
        division, part = (self.fold, TEST) if fold == WHOLE else self._place(fold)
        return np.flatnonzero(~np.isin(division, (part, TEST, UNLABELLED))).astype(np.int64)

    @property
    def num_unlabelled(self) -> int:
        """The number of unlabelled rows."""
        return int((self.fold == UNLABELLED).sum())

    def unlabelled_rows(self, fold: int) -> IntArray:
        """Returns the unlabelled rows of `fold`: no row of their cases is held out there or locked away."""
        unlabelled = np.flatnonzero(self.fold == UNLABELLED).astype(np.int64)
        if not len(unlabelled):
            return unlabelled
        scored = np.concatenate([self.held_out_rows(fold), self.test_rows])
        return unlabelled[~np.isin(self.cases[unlabelled], self.cases[scored])]

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
        """A digest of the parts, the cases and the manifest; it does not depend on the seed."""
        facts = {"divisions": self.divisions.tolist(), "k": self.k, "manifest": self.manifest_digest}
        return digest_of(facts | {"cases": self.cases.tolist()} if len(self.cases) else facts)

    def check(self, manifest: Manifest) -> None:
        """Checks that these are folds of `manifest`.

        Raises:
            ArtifactError: They were made for another manifest, or cut one of its groups, as folds or as cases.
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
        if len(self.cases) and (cut := cut_group(self.cases, manifest)) is not None:
            raise ArtifactError(f"cases must not cut a group, but these cut {cut!r}: make new folds")

    def write(self, path: Path) -> None:
        """Writes the folds as one Parquet file, a column for each division and one for the cases, or not at all."""
        facts = {"k": self.k, "seed": self.seed, "manifest_digest": self.manifest_digest}
        columns = {f"division_{number}": pa.array(division) for number, division in enumerate(self.divisions)}
        columns |= {_CASES: pa.array(self.cases)} if len(self.cases) else {}
        write_parquet(path, "folds", pa.table(columns), facts)

    @classmethod
    def read(cls, path: Path) -> "Folds":
        """Reads folds that `write` wrote.

        Raises:
            ArtifactError: The file is missing or does not hold folds.
        """
        table, facts = read_parquet(path, "folds")
        columns = {name: table.column(name).to_numpy().astype(np.int64) for name in table.column_names}
        cases = columns.pop(_CASES, np.empty(0, dtype=np.int64))
        return cls(np.stack(list(columns.values())), **facts, cases=cases)

    def _place(self, fold: int) -> tuple[IntArray, int]:
        """Returns the division of a fold, and its part in this division."""
        if not 0 <= fold < len(self):
            raise ConfigError(f"a fold must be from 0 to {len(self) - 1}, but got {fold}: choose one of these")
        division, part = divmod(fold, self.k)
        return self.divisions[division], part


def cut_group(fold: IntArray, manifest: Manifest) -> str | None:
    """Returns the name of a group whose labelled rows are in different parts, or None.

    Unlabelled rows of a group may stand beside labelled ones: no score depends on them.
    """
    rows = np.flatnonzero(fold != UNLABELLED)
    _, first, members = np.unique(manifest.groups[rows], return_index=True, return_inverse=True)
    astray = rows[fold[rows] != fold[rows][first][members]]
    return str(manifest.table.column("group")[int(astray[0])].as_py()) if astray.size else None
