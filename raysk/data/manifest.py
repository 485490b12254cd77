"""The manifest: the images of a dataset, each with its label, group, role and attributes."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from raysk.artifacts import digest_of
from raysk.data.parquet import read_parquet, write_parquet
from raysk.errors import DataError

COLUMNS = ("image", "label", "group", "role")
ROLES = ("", "test", "train_only", "unlabelled")
# The code of a row without a label.
NO_LABEL = -1

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Manifest:
    """The rows of a dataset in a fixed order; every later step refers to an image by its row.

    Attributes:
        table: The columns "image" (path, relative to `root` or absolute), "label", "group" and "role", all strings;
            then the attributes, which the digest leaves out. The label is blank in rows of the role "unlabelled", and
            only there.
        root: The folder that relative image paths start from.
        class_names: The names of the classes; the code of a class is its position here.
        grouped: False if the dataset has no groups, so that each row is its own group.
        grouped_by: What the groups are made of, such as ("lesion_id",), by table; () if a table has none. The digest
            leaves it out.
        bits: The depth of pictures of 16 bits a pixel whose files state none; None for 16.

    Raises:
        DataError: A column is missing, an image occurs twice, a row has no label or an unknown one, or has one in spite
            of its role, a class has no row, the dataset has no class, a group is null or empty, or a role is unknown.
    """

    table: pa.Table
    root: Path
    class_names: tuple[str, ...]
    grouped: bool
    grouped_by: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    bits: int | None = None

    def __post_init__(self) -> None:
        _check_columns(self.table)
        _check_no_blank(self.table, "image")
        _check_images_once(self.table)
        _check_roles(self.table)
        _check_unlabelled(self.table)
        labelled = self.table.filter(pc.not_equal(self.table.column("role"), "unlabelled"))
        _check_no_blank(labelled, "label")
        _check_classes(labelled, self.class_names)
        _check_no_blank(self.table, "group")

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @cached_property
    def labels(self) -> IntArray:
        """The class code of each row, (N,); `NO_LABEL` for an unlabelled row."""
        return _codes(self.table.column("label"), pa.array(self.class_names, pa.string()))

    @cached_property
    def unlabelled_rows(self) -> IntArray:
        """The rows of the role "unlabelled"."""
        return np.flatnonzero(self.labels == NO_LABEL).astype(np.int64)

    @cached_property
    def groups(self) -> IntArray:
        """The group code of each row, (N,), counted from 0 in order of first appearance."""
        column = self.table.column("group")
        return _codes(column, pc.unique(column))

    @property
    def group_names(self) -> npt.NDArray[np.str_]:
        """The name of the group of each row, (N,)."""
        return np.array(self.table.column("group").to_pylist(), dtype=np.str_)

    @cached_property
    def roles(self) -> list[str]:
        """The role of each row: "" (no role), "test", "train_only" or "unlabelled"."""
        return list(self.table.column("role").to_pylist())

    @cached_property
    def class_counts(self) -> IntArray:
        """The number of rows of each class, (C,)."""
        return self.count_classes(np.arange(len(self)))

    @property
    def paths(self) -> list[Path]:
        """The path of each image."""
        return [self.root / image for image in self.table.column("image").to_pylist()]

    @property
    def attributes(self) -> tuple[str, ...]:
        """The names of the attribute columns."""
        return tuple(name for name in self.table.column_names if name not in COLUMNS)

    @cached_property
    def digest(self) -> str:
        """A digest of the rows (image, label, group, role), class names and bits; it does not depend on `root`."""
        rows = [self.table.column(name).to_pylist() for name in COLUMNS]
        facts = {"rows": rows, "class_names": self.class_names, "grouped": self.grouped}
        return digest_of(facts if self.bits is None else facts | {"bits": self.bits})

    def class_name(self, label: int) -> str:
        """Returns the name of a class, or "unlabelled" for `NO_LABEL`."""
        return "unlabelled" if label == NO_LABEL else self.class_names[label]

    def count_classes(self, rows: npt.NDArray[np.bool_] | IntArray) -> IntArray:
        """Counts the labelled ones of some rows in each class, (C,)."""
        labels = self.labels[rows]
        return np.bincount(labels[labels != NO_LABEL], minlength=len(self.class_names)).astype(np.int64)

    def without(self, rows: Sequence[int]) -> "Manifest":
        """Returns the manifest without `rows`; the other rows keep their order.

        Raises:
            DataError: A class would lose its last row.
        """
        keep = np.ones(len(self), dtype=bool)
        keep[list(rows)] = False
        return replace(self, table=self.table.filter(pa.array(keep)))

    def unlabelled_at(self, rows: Sequence[int] | IntArray) -> "Manifest":
        """Returns the manifest with some rows unlabelled; a class that loses its last row is left out."""
        labels, roles = self.table.column("label").to_pylist(), list(self.roles)
        for row in rows:
            labels[row], roles[row] = "", "unlabelled"
        table = self.table
        for name, values in (("label", labels), ("role", roles)):
            column = pa.array(values, pa.string())
            table = table.set_column(table.column_names.index(name), name, column)
        kept = set(labels)
        return replace(self, table=table, class_names=tuple(name for name in self.class_names if name in kept))

    def write(self, path: Path) -> None:
        """Writes the manifest as one Parquet file, whole or not at all."""
        facts = {"class_names": self.class_names, "root": str(self.root.resolve()), "grouped": self.grouped}
        facts |= {"grouped_by": dict(self.grouped_by), "bits": self.bits}
        write_parquet(path, "a manifest", self.table, facts)

    @classmethod
    def read(cls, path: Path) -> "Manifest":
        """Reads a manifest that `write` wrote.

        Raises:
            ArtifactError: The file is missing or is not a manifest.
        """
        table, facts = read_parquet(path, "a manifest")
        grouped_by = {name: tuple(columns) for name, columns in facts.get("grouped_by", {}).items()}
        names, root = tuple(facts["class_names"]), Path(facts["root"])
        return cls(table, root, names, facts["grouped"], grouped_by, facts.get("bits"))


def make_manifest(
    images: Sequence[str],
    labels: Sequence[str],
    *,
    root: Path,
    groups: Sequence[str] | None = None,
    roles: Sequence[str] | None = None,
    class_names: Sequence[str] | None = None,
    attributes: Mapping[str, Any] | None = None,
    grouped_by: Mapping[str, tuple[str, ...]] | None = None,
    bits: int | None = None,
) -> Manifest:
    """Makes a manifest from columns.

    Args:
        images: Paths, relative to `root` or absolute.
        labels: The class name of each row; blank for an unlabelled row.
        root: The folder that relative paths start from.
        groups: The group of each row, such as its lesion; without it, each row is its own group.
        roles: "test", "train_only", "unlabelled" or "" for each row; without it, no row has a role.
        class_names: The classes in their order; without it, the classes that occur, sorted by name.
        attributes: Further columns by name: sequences or Arrow arrays.
        grouped_by: What the groups are made of, by table.
        bits: The depth of pictures of 16 bits a pixel whose files state none.

    Raises:
        DataError: See `Manifest`.
    """
    columns: dict[str, Any] = {
        "image": pa.array(images, pa.string()),
        "label": pa.array(labels, pa.string()),
        "group": pa.array(images if groups is None else groups, pa.string()),
        "role": pa.array([""] * len(images) if roles is None else roles, pa.string()),
    }
    names = sorted({label for label in labels if label}) if class_names is None else class_names
    table = pa.table(columns | dict(attributes or {}))
    return Manifest(table, root, tuple(names), groups is not None, grouped_by or {}, bits)


def _codes(column: pa.ChunkedArray, values: pa.Array) -> IntArray:
    return pc.fill_null(pc.index_in(column, value_set=values), NO_LABEL).to_numpy().astype(np.int64)


def _check_columns(table: pa.Table) -> None:
    for name in COLUMNS:
        if name not in table.column_names:
            raise DataError(
                f"a manifest must have the columns {', '.join(COLUMNS)}, but got {', '.join(table.column_names)}: "
                f"add {name!r}"
            )
        if table.schema.field(name).type != pa.string():
            raise DataError(
                f"column {name!r} of a manifest must hold strings, but got {table.schema.field(name).type}: "
                "cast it to string"
            )


def _check_no_blank(table: pa.Table, name: str) -> None:
    column = table.column(name)
    blank = np.flatnonzero(pc.equal(pc.fill_null(column, ""), "").to_numpy())
    if blank.size:
        image = table.column("image")[int(blank[0])].as_py()
        raise DataError(
            f"every row must have a {name}, but row {blank[0]} ({image!r}) has none ({blank.size} in all): "
            f"fill in the {name} or remove the rows"
        )


def _check_images_once(table: pa.Table) -> None:
    images = table.column("image")
    if len(pc.unique(images)) == len(images):
        return
    image, count = Counter(images.to_pylist()).most_common(1)[0]
    raise DataError(f"an image must be in one row, but {image!r} is in {count}: remove the duplicate rows")


def _check_classes(table: pa.Table, class_names: tuple[str, ...]) -> None:
    if len(set(class_names)) != len(class_names):
        raise DataError(f"class names must differ, but got {', '.join(class_names)}: remove the duplicate name")
    counts = Counter(table.column("label").to_pylist())
    unknown = sorted(set(counts) - set(class_names))
    if unknown:
        row = table.column("label").to_pylist().index(unknown[0])
        raise DataError(
            f"a label must be a class, but got {unknown[0]!r} in row {row}; classes: {', '.join(class_names)}"
        )
    empty = [name for name in class_names if not counts[name]]
    if empty:
        raise DataError(f"a class must have rows, but {', '.join(empty)} has none: add images or remove the class")
    if not class_names:
        raise DataError("a dataset must have a class, but got none: check the labels, or add a labelled collection")


def _check_roles(table: pa.Table) -> None:
    for row, role in enumerate(table.column("role").to_pylist()):
        if role not in ROLES:
            raise DataError(
                f"a role must be 'test', 'train_only', 'unlabelled' or '', but got {role!r} in row {row}: correct it"
            )


def _check_unlabelled(table: pa.Table) -> None:
    roles, labels = (table.column(name).to_pylist() for name in ("role", "label"))
    for row, (role, label) in enumerate(zip(roles, labels, strict=True)):
        if role == "unlabelled" and label:
            raise DataError(f"a row of the role unlabelled must have no label, but row {row} has {label!r}: remove one")
