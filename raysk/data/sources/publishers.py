"""Published collections: a table with a fixed name, and image files named by id."""

import os
from collections.abc import Collection as Names
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from raysk.data.sources.base import Collection, required_path, value_or_blank
from raysk.data.sources.files import ImageFiles
from raysk.data.sources.settings import DataSettings
from raysk.data.table_files import read_columns, strings_of
from raysk.errors import DataError

# Columns to read as text, even if their values look like numbers.
NAMES = (
    "image", "image_id", "image_name", "image_name_1", "image_name_2", "isic_id", "img_id", "lesion_id", "patient_id",
    "dx", "diagnostic",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Published:
    """A publisher's table.

    Attributes:
        path: The file of the table.
        root: The folder of the collection.
        table: The columns.
        unlabelled: Whether its labels are not read, so that it may lack them.
    """

    path: Path
    root: Path
    table: pa.Table
    unlabelled: bool = False

    def names(self, column: str) -> list[str]:
        """Returns a column as text, blank for missing values.

        Raises:
            DataError: The column does not exist.
        """
        return [value_or_blank(value) for value in strings_of(self.table, column, "the publisher's column", self.path)]

    def labels(self, column: str) -> list[str]:
        """Returns a column of labels as text; blank if they are not read.

        Raises:
            DataError: The column does not exist.
        """
        return [""] * self.table.num_rows if self.unlabelled else self.names(column)

    def ids(self, column: str) -> list[str]:
        """Returns the column of image ids.

        Raises:
            DataError: The column does not exist, a row has no id, or two rows have the same id.
        """
        ids = self.names(column)
        first: dict[str, int] = {}
        for row, name in enumerate(ids):
            if not name:
                raise DataError(f"every row must name an image, but row {row} of {self.path.name} does not: correct it")
            if first.setdefault(name, row) != row:
                raise DataError(
                    f"an image must be in one row, but {name!r} is in rows {first[name]} and {row} of "
                    f"{self.path.name}: remove one"
                )
        return ids

    def groupings(self, kinds: Sequence[str] = ("lesion", "patient")) -> dict[str, list[str]]:
        """Returns the lesion and the patient of each row, if the table has these columns."""
        columns = {kind: f"{kind}_id" for kind in kinds if f"{kind}_id" in self.table.column_names}
        return {kind: self.names(column) for kind, column in columns.items()}

    def one_hot(self, classes: Sequence[str], rest: str | None = None) -> list[str]:
        """Returns the labels of one-hot columns; blank if they are not read.

        Args:
            classes: The columns; a class without a column has no row.
            rest: The label of a row without a 1.

        Raises:
            DataError: All columns are missing, a value is neither 0 nor 1, or a row has several labels or none.
        """
        if self.unlabelled:
            return [""] * self.table.num_rows
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
        """Adds the columns of another table, matched by image id; blank for images that it lacks."""
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
        label_columns: Names[str],
        known_classes: tuple[str, ...],
        images: Sequence[str | None] | None = None,
        root: Path | None = None,
    ) -> Collection:
        """Returns the collection; the image and mask of each row are found by id below its folder.

        Args:
            ids: The id of each image.
            labels: The label of each row.
            groupings: See `Collection`.
            label_columns: The columns that give the label; they do not become attributes.
            known_classes: The publisher's classes.
            images: The path of each image, if it is already known.
            root: The root of `images`, if it is not the collection's folder.
        """
        attributes: dict[str, Any] = {
            name: self.table.column(name) for name in self.table.column_names if name not in label_columns
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
        tables: The possible names of the table, the usual name first.

    Raises:
        ConfigError: The settings have no path.
        DataError: The table is missing or cannot be read.
    """
    path = required_path(settings, f"the folder with {tables[0]}")
    if path.is_file():
        # The ISIC archive packs a table as TABLE.zip, which unpacks into a folder beside that of the images.
        packed = path.parent.name.casefold() == path.stem.casefold() and "groundtruth" in path.stem.casefold()
        root = path.parent.parent if packed else path.parent
        return Published(path, root, read_columns(path, NAMES), settings.role == "unlabelled")
    file = find_table(path, tables)
    if file is None:
        raise DataError(
            f"data.path must be a folder with {tables[0]}, but {path} "
            f"{'has none' if path.is_dir() else 'is not a folder'}: correct data.path"
        )
    return Published(file, path, read_columns(file, NAMES), settings.role == "unlabelled")


def find_table(root: Path, tables: Sequence[str]) -> Path | None:
    """Returns the first of these tables in a folder or its immediate subfolders, in any case; None if none exists."""
    folders = [root, *sorted(entry for entry in root.iterdir() if entry.is_dir())] if root.is_dir() else []
    for name in tables:
        for folder in folders:
            for entry in sorted(os.listdir(folder)):
                if entry.casefold() == name.casefold() and (folder / entry).is_file():
                    return folder / entry
    return None


def extended(published: Published, ids: Sequence[str], column: str, tables: Sequence[str]) -> Published:
    """Adds the columns of a second table, if the collection's folder has it."""
    file = find_table(published.root, tables)
    if file is None:
        return published
    return published.joined(ids, replace(published, path=file, table=read_columns(file, NAMES)), column)
