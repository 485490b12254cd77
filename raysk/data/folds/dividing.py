"""Divides rows into folds and a locked test part: drawn evenly, or given by an attribute."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt

from raysk.data.folds.assignment import TEST, TRAIN_ONLY, UNLABELLED, Folds, cut_group
from raysk.data.folds.placement import place_groups
from raysk.data.manifest import IntArray, Manifest
from raysk.errors import ConfigError, DataError
from raysk.registry import unknown_name
from raysk.settings import Between, Settings

# The part of each role; all other rows are divided.
_PARTS = {"test": TEST, "train_only": TRAIN_ONLY, "unlabelled": UNLABELLED}
MOST_LEFT_OUT = 100  # folds; an attribute with more values is rather an identity than a source

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class FoldSettings(Settings):
    """The division of rows into folds.

    Args:
        k: The number of folds.
        repeats: The number of divisions into k folds; a recipe is trained on all of them.
        seed: The seed of the division.
        test_share: The share of rows in the locked test part, if no row has the role "test".
        column: An attribute that holds the folds as integers, renumbered from 0 in their order; "test" or -1 is the
            test part. Then nothing is drawn, and `test_share` is not used.
        leave_out: An attribute, such as "source", each value of which becomes a fold: it measures models on a
            collection or a camera that they have not seen. The test part is drawn from all values, and `k` is not used.
    """

    k: Annotated[int, Between(2, 100)] = 3
    repeats: Annotated[int, Between(1, 100)] = 1
    seed: Annotated[int, Between(0, 2**31 - 1)] = 0
    test_share: Annotated[float, Between(0, 1, open_high=True)] = 0.2
    column: str | None = None
    leave_out: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.column is not None and self.leave_out is not None:
            raise ConfigError(
                f"column and leave_out must not both be given, but got {self.column!r} and "
                f"{self.leave_out!r}: choose one"
            )
        if self.repeats > 1 and (self.column or self.leave_out):
            raise ConfigError(
                f"repeats must be 1 if an attribute gives the folds, but got {self.repeats}: set repeats=1, or remove "
                "column and leave_out"
            )


def make_folds(manifest: Manifest, settings: FoldSettings | None = None, cases: IntArray | None = None) -> Folds:
    """Divides the rows into folds and a test part; never cuts a group, and gives each part its share of each class.

    Groups are placed from the rarest class to the most frequent and from the largest group to the smallest, each into
    the part that its class fills least. Rows with the role "train_only" or "unlabelled" are in no part. If any rows
    have the role "test", they are the test part.

    Args:
        manifest: The manifest with the rows.
        settings: The settings of the division.
        cases: The case of each row, (N,), whose rows share a group or a picture; without it, each group is a case.

    Raises:
        ConfigError: The attribute does not exist.
        DataError: A class has fewer groups than parts, a group has rows of different roles, or the attribute does not
            hold folds of whole groups.
    """
    settings = settings or FoldSettings()
    roles = np.array([_PARTS.get(role, 0) for role in manifest.roles], np.int64)
    if (cut := cut_group(roles, manifest)) is not None:
        raise DataError(f"the rows of a group must have one role, but those of {cut!r} differ: correct the roles")
    if settings.column is not None:
        k, divisions = settings.k, [_folds_of_column(manifest, roles, settings.column, settings.k)]
    elif settings.leave_out is not None:
        k, division = _folds_of_values(manifest, roles, settings.leave_out, settings)
        divisions = [division]
    else:
        k, divisions = settings.k, _draw_divisions(manifest, roles, settings)
    for division in divisions:
        _check_training_sides(division, k, manifest)
    if not manifest.unlabelled_rows.size:
        return Folds(np.stack(divisions), k, settings.seed, manifest.digest)
    return Folds(np.stack(divisions), k, settings.seed, manifest.digest, manifest.groups if cases is None else cases)


def locked_away(manifest: Manifest, settings: FoldSettings) -> npt.NDArray[np.bool_]:
    """Returns the rows that the table itself puts into the test part, by their role or by the column of folds, (N,).

    Raises:
        ConfigError: The column does not exist.
        DataError: It holds something else than folds.
    """
    parts = [_PARTS.get(role, 0) for role in manifest.roles]
    if (column := settings.column) is not None:
        values = _attribute(manifest, "folds.column", column)
        parts = [part or _part_of_value(values[row], row, column) for row, part in enumerate(parts)]
    return np.array(parts) == TEST


def _draw_divisions(manifest: Manifest, roles: IntArray, settings: FoldSettings) -> list[IntArray]:
    """Draws one division for each repeat; all have the test part of the first division."""
    k, seed = settings.k, settings.seed
    share = 0.0 if (roles == TEST).any() else settings.test_share
    shares = [(1 - share) / k] * k + [share] * (share > 0)
    first = _draw(manifest, roles, shares, np.random.default_rng(seed))
    # The last part of the first division is the test part, if one is drawn.
    first = np.where((roles == 0) & (first == k), TEST, first)
    fixed = np.minimum(first, 0)
    others = [
        _draw(manifest, fixed, [1 / k] * k, np.random.default_rng([seed, repeat]))
        for repeat in range(1, settings.repeats)
    ]
    return [first, *others]


def _with_test_part(manifest: Manifest, roles: IntArray, settings: FoldSettings) -> IntArray:
    """Returns the roles, with a drawn test part where no row has that role."""
    if (roles == TEST).any() or settings.test_share == 0:
        return roles
    shares = [1 - settings.test_share, settings.test_share]
    parts = _draw(manifest, roles, shares, np.random.default_rng(settings.seed))
    return np.where((roles == 0) & (parts == 1), TEST, roles)


def _draw(manifest: Manifest, roles: IntArray, shares: Sequence[float], rng: np.random.Generator) -> IntArray:
    """Returns the part of each row; rows without a role are drawn into parts 0, 1, ... with these shares."""
    free = np.flatnonzero(roles == 0)
    # By name, so that the order of the rows in a table has no effect.
    names, members = np.unique(manifest.group_names[free], return_inverse=True)
    composition = np.zeros((len(names), len(manifest.class_names)), dtype=np.int64)  # (G, C) rows
    np.add.at(composition, (members, manifest.labels[free]), 1)
    _check_enough_groups(composition, len(shares), manifest)
    parts = place_groups(composition, np.array(shares), rng)
    counts = np.zeros((len(shares), composition.shape[1]), dtype=np.int64)
    np.add.at(counts, parts, composition)
    if not counts.all():
        name = manifest.class_names[int(np.argwhere(counts == 0)[0, 1])]
        raise DataError(
            f"every part must have rows of each class, but {name!r} shares its groups with other classes so that "
            f"one part got none: lower folds.k, or try another folds.seed"
        )
    drawn = roles.copy()
    drawn[free] = parts[members]
    return drawn


def _folds_of_values(
    manifest: Manifest, roles: IntArray, attribute: str, settings: FoldSettings
) -> tuple[int, IntArray]:
    """Returns the number of values of an attribute, and the part of each row: its role, or the rank of its value."""
    values = _attribute(manifest, "folds.leave_out", attribute)
    roles = _with_test_part(manifest, roles, settings)
    free = np.flatnonzero(roles == 0)
    blank = [row for row in free.tolist() if values[row] is None or not str(values[row]).strip()]
    if blank:
        raise DataError(
            f"column {attribute!r} must have a value in every row, but row {blank[0]} is blank ({len(blank)} in all): "
            "fill them in, or give these rows the role train_only"
        )
    names, places = np.unique([str(values[row]).strip() for row in free.tolist()], return_inverse=True)
    if not 2 <= len(names) <= MOST_LEFT_OUT:
        raise DataError(
            f"column {attribute!r} must have 2 to {MOST_LEFT_OUT} values to leave out one by one, but it has "
            f"{len(names)}: choose another, such as source"
        )
    fold = roles.copy()
    fold[free] = places
    if (cut := cut_group(fold, manifest)) is not None:
        raise DataError(f"folds must not cut a group, but column {attribute!r} cuts {cut!r}: correct it, or draw folds")
    return len(names), fold


def _folds_of_column(manifest: Manifest, roles: IntArray, column: str, k: int) -> IntArray:
    """Returns the part of each row: its role or, without a role, its value of the attribute `column`."""
    fold = roles.copy()
    for row, value in enumerate(_attribute(manifest, "folds.column", column)):
        if roles[row] == 0:
            fold[row] = _part_of_value(value, row, column)
    if (cut := cut_group(fold, manifest)) is not None:
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


def _attribute(manifest: Manifest, setting: str, name: str) -> list[Any]:
    if name not in manifest.attributes:
        raise unknown_name(setting, name, list(manifest.attributes))
    values: list[Any] = manifest.table.column(name).to_pylist()
    return values


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


def _check_enough_groups(composition: IntArray, num_parts: int, manifest: Manifest) -> None:
    num_groups = (composition > 0).sum(axis=0)
    rarest = int(num_groups.argmin())
    name = manifest.class_names[rarest]
    if not num_groups[rarest]:
        raise DataError(
            f"every class must have images to hold out, but all {manifest.class_counts[rarest]} of {name!r} have the "
            "role train_only or test: map the class to another one with classes_map, or leave it out of classes_map"
        )
    if num_groups[rarest] < num_parts:
        raise DataError(
            f"every class must have a group for each of the {num_parts} parts (the folds and the test part), but "
            f"{name!r} has {num_groups[rarest]} ({composition[:, rarest].sum()} images): lower "
            "folds.k, or remove the class from the table"
        )


def _check_training_sides(fold: IntArray, k: int, manifest: Manifest) -> None:
    """Refuses training rows without a class; only warns of held-out rows without one, which users may choose."""
    for part in [*range(k), TEST]:
        counts = manifest.count_classes(fold == part)
        if part != TEST:
            trained = manifest.count_classes((fold != part) & (fold != TEST))
            if not trained.all():
                raise DataError(
                    f"the training rows of each fold must have every class, but those of fold {part} lack "
                    f"{manifest.class_names[int(trained.argmin())]!r}: move some of its groups to another fold"
                )
        if counts.any() and not counts.all():
            name = "the test part" if part == TEST else f"fold {part}"
            logger.warning("%s has no image of class %r", name, manifest.class_names[int(counts.argmin())])
