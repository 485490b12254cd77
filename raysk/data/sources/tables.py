"""A user's own data: a table of images, or a folder of class folders."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from raysk.data.manifest import ROLES, Manifest
from raysk.data.sources.base import (
    IMAGE_SUFFIXES,
    OF_TABLES,
    Collection,
    register_source,
    required_path,
    value_or_blank,
)
from raysk.data.sources.files import FOREIGN_SUFFIXES, image_files, is_image, paths_of, posix_text, visible_folders
from raysk.data.sources.parts import are_parts
from raysk.data.sources.settings import DataSettings
from raysk.data.table_files import read_columns, strings_of
from raysk.errors import ConfigError, DataError

MANIFEST_MARK = b"raysk.a manifest"

logger = logging.getLogger(__name__)


@register_source("csv", reads=OF_TABLES)
def read_csv(settings: DataSettings, cache: Path) -> Collection:
    """Reads a CSV (comma or semicolon) or Parquet table; relative image paths start from the table's folder.

    Columns that the manifest does not need become attributes.
    """
    path = required_path(settings, "a table")
    if not path.is_file():
        raise DataError(f"data.path must be a table, but {path} is not a file: correct data.path")
    # Codes such as "01" are names: the columns of the manifest must not be read as numbers.
    group = settings.group or "group"
    texts = {settings.image, settings.label, group, *group.split("+"), settings.role or "role"}
    return collection_of(read_columns(path, texts), path.parent, path, settings)


@register_source("parquet", reads=OF_TABLES)
def read_parquet(settings: DataSettings, cache: Path) -> Collection:
    """Reads a Parquet table as `read_csv` does, or a manifest that raysk wrote."""
    path = required_path(settings, "a Parquet table")
    if path.is_file() and path.suffix.lower() != ".parquet":
        raise DataError(f"data.path must be a Parquet table, but is {path}: use data=csv, or rename the file")
    try:
        is_manifest = path.is_file() and MANIFEST_MARK in (pq.read_schema(path).metadata or {})
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{path} must be a Parquet table, but {str(error).splitlines()[0]}: correct it") from error
    return _collection_of_manifest(path, settings) if is_manifest else read_csv(settings, cache)


@register_source("folder", reads=("path", "role"))
def read_folder(settings: DataSettings, cache: Path) -> Collection:
    """Reads a folder with one folder of images per class; each image is its own group."""
    root = required_path(settings, "a folder")
    if not root.is_dir():
        raise DataError(f"data.path must be a folder of class folders, but {root} is not a folder: correct data.path")
    names = [folder.name for folder in visible_folders(root)]
    if are_parts(names):
        raise DataError(
            f"each folder in {root} must be a class, but {', '.join(names)} are named as parts: use data=hf, which "
            "reads parts, or give the classes other names"
        )
    images, labels = class_folders(root)
    return Collection(origin=root.name, root=root, names=images, images=images, labels=labels)


def class_folders(root: Path) -> tuple[list[str], list[str]]:
    """Returns the images of the class folders in a folder, relative to it, and the class of each.

    Raises:
        DataError: A folder has no image, or a name is not in UTF-8.
    """
    warn_of_loose_images(root)
    images: list[str] = []
    labels: list[str] = []
    foreign: list[PurePath] = []
    for folder in visible_folders(root):
        files = [folder.name / path for path in image_files(folder, IMAGE_SUFFIXES | FOREIGN_SUFFIXES)]
        foreign += [path for path in files if not is_image(path.name)]
        paths = [posix_text(path) for path in files if is_image(path.name)]
        if not paths:
            raise DataError(
                f"each folder in {root} must be a class with images, but {folder.name!r} holds none: "
                "add images or remove the folder"
            )
        images += paths
        labels += [folder.name] * len(paths)
    if foreign:
        logger.warning(
            "%s: left out %d images of formats that raysk does not read (%s), first %r: convert them to PNG",
            root, len(foreign), ", ".join(sorted({path.suffix.lower() for path in foreign})), foreign[0].as_posix(),
        )  # fmt: skip
    return images, labels


def warn_of_loose_images(root: Path) -> None:
    """Warns of images beside the folders of classes or parts, which belong to none of them."""
    loose = sorted(name for name in os.listdir(root) if is_image(name, IMAGE_SUFFIXES | FOREIGN_SUFFIXES))
    if loose:
        logger.warning("%s: left out %d images outside the class folders, first %r", root, len(loose), loose[0])


def collection_of(table: pa.Table, root: Path, path: Path, settings: DataSettings) -> Collection:
    """Returns the rows of a user's table.

    Args:
        table: The table.
        root: The folder that relative image paths start from.
        path: The file of the table, for errors.
        settings: The names of the columns.

    Raises:
        DataError: A column is missing, or a row has no image or an invalid role.
    """
    _check_image_paths(table, settings, path)
    names = strings_of(table, settings.image, "data.image", path)
    if blank := [row for row, name in enumerate(names) if not value_or_blank(name)]:
        raise DataError(
            f"every row must have an image, but row {blank[0]} of {path.name} has none ({len(blank)} in all): "
            "fill it in or remove the rows"
        )
    labels = [value_or_blank(label) for label in strings_of(table, settings.label, "data.label", path)]
    group_columns = _group_columns(table, settings)
    groupings = {
        column: [value_or_blank(group) for group in strings_of(table, column, "data.group", path)]
        for column in group_columns
    }
    role_column = _role_column(table, settings)
    roles = None
    if role_column is not None:
        roles = _roles(strings_of(table, role_column, "data.role", path), names, path)
    used = {settings.image, settings.label, role_column, *(group_columns if len(group_columns) == 1 else ())}
    attributes: dict[str, Any] = {name: table.column(name) for name in table.column_names if name not in used}
    return Collection(
        origin=path.name,
        root=root,
        names=names,
        images=paths_of(root, names),
        labels=labels,
        groupings=groupings,
        roles=roles,
        attributes=attributes,
    )


def _check_image_paths(table: pa.Table, settings: DataSettings, path: Path) -> None:
    if settings.image in table.column_names and pa.types.is_struct(table.schema.field(settings.image).type):
        raise DataError(
            f"data.image must be a column of paths, but {settings.image!r} of {path.name} holds the images themselves: "
            "use data=hf, with the folder of the file as data.path"
        )


def _group_columns(table: pa.Table, settings: DataSettings) -> list[str]:
    if settings.group is None:
        return ["group"] if "group" in table.column_names else []
    return [settings.group] if settings.group in table.column_names else settings.group.split("+")


def _role_column(table: pa.Table, settings: DataSettings) -> str | None:
    if settings.role is None:
        return "role" if "role" in table.column_names else None
    for_all = settings.role in ("train_only", "test") and settings.role not in table.column_names
    return None if for_all else settings.role


def _roles(values: Sequence[str], names: Sequence[str], path: Path) -> list[str]:
    roles = []
    for row, value in enumerate(values):
        role = "" if value_or_blank(value) == "train" else value_or_blank(value)
        if role not in ROLES:
            raise DataError(
                f"a role must be 'test', 'train_only', 'train' or blank, but got {value!r} in row {row} "
                f"({names[row]!r}) of {path.name}: correct it"
            )
        roles.append(role)
    return roles


def _collection_of_manifest(path: Path, settings: DataSettings) -> Collection:
    manifest = Manifest.read(path)
    if not manifest.root.is_dir():
        raise ConfigError(
            f"the images of {path} must be in {manifest.root}, but it is not a folder: prepare the dataset again"
        )
    grouped = manifest.grouped or settings.group is not None
    return collection_of(manifest.table if grouped else manifest.table.drop(["group"]), manifest.root, path, settings)
