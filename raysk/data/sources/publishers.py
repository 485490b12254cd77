"""A collection as its publisher ships it: a table by a known name, and image files named by their id."""

import os
from collections.abc import Collection as Names
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from raysk.data.sources.base import Collection, known, required_path
from raysk.data.sources.files import ImageFiles
from raysk.data.sources.settings import DataSettings
from raysk.data.table_files import read_columns, strings_of
from raysk.errors import DataError

# Columns whose values are names, even where they look like numbers.
NAMES = ("image", "image_id", "image_name", "isic_id", "img_id", "lesion_id", "patient_id", "dx", "diagnostic")


@dataclass(frozen=True, eq=False)
class Published:
    """A publisher's table.

    Attributes:
        path: Where it lies.
        root: The folder of the collection.
        table: Its columns.
    """

    path: Path
    root: Path
    table: pa.Table

    def names(self, column: str) -> list[str]:
        """Returns a column of names, blank where there is none.

        Raises:
            DataError: There is no such column.
        """
        return [known(value) for value in strings_of(self.table, column, "the publisher's column", self.path)]

    def ids(self, column: str) -> list[str]:
        """Returns the column of image ids.

        Raises:
            DataError: There is no such column, or a row has no id, or two have the same.
        """
        ids = self.names(column)
        first: dict[str, int] = {}
        for row, name in enumerate(ids):
            if not name:
                raise DataError(f"every row must name an image, but row {row} of {self.path.name} does not: correct it")
            if first.setdefault(name, row) != row:
                raise DataError(
                    f"an image must be in one row, but {name!r} is in the rows {first[name]} and {row} of "
                    f"{self.path.name}: remove one"
                )
        return ids

    def groupings(self, kinds: Sequence[str] = ("lesion", "patient")) -> dict[str, list[str]]:
        """Returns the lesion and the patient of each row, as far as the table has such columns."""
        columns = {kind: f"{kind}_id" for kind in kinds if f"{kind}_id" in self.table.column_names}
        return {kind: self.names(column) for kind, column in columns.items()}

    def one_hot(self, classes: Sequence[str], rest: str | None = None) -> list[str]:
        """Returns the labels that columns of 0 and 1 tell.

        Args:
            classes: The columns; those that are absent have no row.
            rest: The label of a row without a 1.

        Raises:
            DataError: No column is there, a value is neither 0 nor 1, or a row has several labels or none.
        """
        present = [name for name in classes if name in self.table.column_names] or list(classes)
        columns = {name: self.names(name) for name in present}
        labels = []
        for row in range(self.table.num_rows):
            chosen = [name for name in columns if self._is_set(columns[name][row], name, row)]
            if len(chosen) > 1 or (not chosen and rest is None):
                raise DataError(
                    f"a row must have one label, but row {row} of {self.path.name} has {' and '.join(chosen) or 'none'}"
                    ": correct it"
                )
            labels.append(chosen[0] if chosen else str(rest))
        return labels

    def _is_set(self, value: str, column: str, row: int) -> bool:
        if value.casefold() in ("1", "1.0", "true"):
            return True
        if value.casefold() in ("0", "0.0", "false"):
            return False
        raise DataError(
            f"{column} must be 0 or 1, but got {value!r} in row {row} of {self.path.name}: correct the table"
        )

    def joined(self, ids: Sequence[str], other: "Published", column: str) -> "Published":
        """Returns the table with the columns of another one, matched by image id, blank where it lacks the image."""
        row_of = {name: row for row, name in enumerate(other.ids(column))}
        rows = pa.array([row_of.get(name) for name in ids], pa.int64())
        table = self.table
        for name in other.table.column_names:
            if name not in (column, *table.column_names):
                table = table.append_column(name, other.table.column(name).take(rows))
        return replace(self, table=table)

    def collection(
        self,
        ids: Sequence[str],
        labels: Sequence[str],
        *,
        groupings: Mapping[str, Sequence[str]],
        told_by: Names[str],
        known_classes: tuple[str, ...],
        images: Sequence[str | None] | None = None,
        root: Path | None = None,
    ) -> Collection:
        """Returns the rows, with the image and mask of each as found by id below the collection's folder.

        Args:
            ids: The id of each image.
            labels: The label of each row.
            groupings: See `Collection`.
            told_by: The columns that tell the label, which are no attributes.
            known_classes: The publisher's classes.
            images: The path of each image, where they are not to be looked for.
            root: What `images` are relative to, where it is not the collection's folder.
        """
        attributes: dict[str, Any] = {
            name: self.table.column(name) for name in self.table.column_names if name not in told_by
        }
        if images is None:
            files = ImageFiles(self.root)
            images = [files.image(name) for name in ids]
            masks = [files.mask(name) for name in ids]
            if any(masks) and "mask" not in attributes:
                attributes["mask"] = pa.chunked_array([pa.array(masks, pa.string())])
        return Collection(
            origin=self.path.name,
            root=root or self.root,
            names=ids,
            images=images,
            labels=labels,
            groupings=groupings,
            known_classes=known_classes,
            attributes=attributes,
        )


def open_published(settings: DataSettings, tables: Sequence[str]) -> Published:
    """Finds and reads the publisher's table.

    Args:
        settings: `path` is the folder of the collection, or the table itself.
        tables: What the table may be called, the usual name first.

    Raises:
        ConfigError: No path is given.
        DataError: The table is not there or is no table.
    """
    path = required_path(settings, f"the folder with {tables[0]}")
    if path.is_file():
        return Published(path, path.parent, read_columns(path, NAMES))
    found = find_table(path, tables)
    if found is None:
        raise DataError(
            f"data.path must be a folder with {tables[0]}, but {path} "
            f"{'has none' if path.is_dir() else 'is no folder'}: correct data.path"
        )
    return Published(found, path, read_columns(found, NAMES))


def find_table(root: Path, tables: Sequence[str]) -> Path | None:
    """Returns the first of these tables that lies in a folder or one of its folders, whatever its case."""
    folders = [root, *sorted(entry for entry in root.iterdir() if entry.is_dir())] if root.is_dir() else []
    for name in tables:
        for folder in folders:
            for entry in sorted(os.listdir(folder)):
                if entry.casefold() == name.casefold() and (folder / entry).is_file():
                    return folder / entry
    return None


def extended(published: Published, ids: Sequence[str], column: str, tables: Sequence[str]) -> Published:
    """Returns the table with the columns of a second one, if the publisher's folder has it."""
    found = find_table(published.root, tables)
    if found is None:
        return published
    return published.joined(ids, replace(published, path=found, table=read_columns(found, NAMES)), column)
