"""A user's own table of images."""

import logging
import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from raysk.data.manifest import ROLES, Manifest
from raysk.data.regions import BOX, MASK
from raysk.data.sources.base import (
    OF_TABLES,
    ROLES_OF_ALL,
    Collection,
    number_of,
    register_source,
    required_path,
    value_or_blank,
)
from raysk.data.sources.files import paths_of
from raysk.data.sources.groups import kind_of, known_tie, telling_columns
from raysk.data.sources.one_hot import labels_of
from raysk.data.sources.parts import PART_ROLES
from raysk.data.sources.settings import DataSettings
from raysk.data.table_files import read_columns, strings_of
from raysk.errors import ConfigError, DataError
from raysk.registry import unknown_name

MANIFEST_MARK = b"raysk.a manifest"
NO_GROUP = "none"

logger = logging.getLogger(__name__)


@register_source("csv", reads=OF_TABLES)
def read_csv(settings: DataSettings, cache: Path) -> Collection:
    """Reads a CSV (comma or semicolon) or Parquet table; relative image paths start from the table's folder.

    Columns that the manifest does not need become attributes. Columns of lesions and patients are groups, unless
    data.group is set.
    """
    path = required_path(settings, "a table")
    if not path.is_file():
        raise DataError(f"data.path must be a table, but {path} is not a file: correct data.path")
    return collection_of(read_columns(path, (), text_columns(settings)), path.parent, path, settings)


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


def text_columns(settings: DataSettings) -> Callable[[str], bool]:
    """Returns a function that tells by its name whether a column is read as text.

    Codes such as "01" are names: the columns of the manifest must not be read as numbers.
    """
    group = settings.group or "group"
    texts = {settings.image, settings.label, group, *group.split("+"), settings.role or "role"}
    return lambda name: name in texts or (settings.group is None and kind_of(name) is not None)


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
    role_column = _role_column(table, settings)
    roles = None
    if role_column is not None:
        roles = _roles(strings_of(table, role_column, "data.role", path), names, path)
    label_columns, labels = _labels(table, roles, settings, path)
    groupings = _groupings(table, labels, settings, path)
    used = {settings.image, *label_columns, role_column, *(groupings if len(groupings) == 1 else ())}
    attributes: dict[str, Any] = {name: table.column(name) for name in table.column_names if name not in used}
    attributes |= _regions(table, settings, path)
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


def _groupings(table: pa.Table, labels: Sequence[str], settings: DataSettings, path: Path) -> dict[str, list[str]]:
    """Returns the columns of groups: those that data.group names, or "group", or those of lesions and patients."""
    group = settings.group or "group"
    if settings.group is None and group not in table.column_names:
        return _recognised_groupings(table, labels, settings, path)
    if group == NO_GROUP and group not in table.column_names:
        return {}
    names = [group] if group in table.column_names else group.split("+")
    return {name: [value_or_blank(value) for value in strings_of(table, name, "data.group", path)] for name in names}


def _recognised_groupings(
    table: pa.Table, labels: Sequence[str], settings: DataSettings, path: Path
) -> dict[str, list[str]]:
    others = {settings.image, settings.label, *settings.label.split("+"), settings.role or "role"}
    columns = {}
    for name in table.column_names:
        if kind_of(name) is None or name in others:
            continue
        with suppress(DataError):  # a column of lists names no lesion
            values = [known_tie(value) for value in strings_of(table, name, "data.group", path)]
            if not _names_classes(values, labels):
                columns[name] = values
    taken, left_out = telling_columns(columns)
    setting = f"data.{settings.name}.group" if settings.name else "data.group"
    if taken:
        logger.warning("%s: groups: %s (%s=none to refuse)", path.name, " + ".join(taken), setting)
    for name in left_out:
        override = shlex.quote(f"{setting}={'+'.join([*taken, name])}")
        logger.warning(
            "%s: %r is not taken for a column of groups, since only few groups would be left (%s to use it)",
            path.name, name, override,
        )  # fmt: skip
    return {name: columns[name] for name in taken}


def _names_classes(values: Sequence[str], labels: Sequence[str]) -> bool:
    """Returns whether a column is the label in other words, as a column "lesion" of diagnoses is."""
    return len(set(zip(values, labels, strict=True))) == len(set(values)) == len(set(labels))


def _regions(table: pa.Table, settings: DataSettings, path: Path) -> dict[str, pa.ChunkedArray]:
    """Returns the columns of masks and boxes that settings name, under the names that a manifest has for them."""
    named = {} if settings.mask is None else {MASK: settings.mask}
    if settings.box is not None:
        columns = settings.box.split("+")
        if len(columns) != len(BOX):
            raise ConfigError(
                f"data.box must name the four columns of left, top, right and bottom, but got {settings.box!r}: write "
                f"data.box={'+'.join(BOX)}"
            )
        named |= dict(zip(BOX, columns, strict=True))
    for name, column in named.items():
        if column not in table.column_names:
            setting = "data.mask" if name == MASK else "data.box"
            raise unknown_name(f"{setting} of {path.name}", column, table.column_names)
    return {name: table.column(column) for name, column in named.items()}


def _role_column(table: pa.Table, settings: DataSettings) -> str | None:
    if settings.role is None:
        return "role" if "role" in table.column_names else None
    for_all = settings.role in ROLES_OF_ALL and settings.role not in table.column_names
    return None if for_all else settings.role


def _labels(
    table: pa.Table, roles: Sequence[str] | None, settings: DataSettings, path: Path
) -> tuple[tuple[str, ...], list[str]]:
    """Returns the columns of the label, and the label of each row; that of an unlabelled row is not read."""
    if roles is None and settings.role == "unlabelled":
        return tuple({settings.label, *settings.label.split("+")} & {*table.column_names}), [""] * table.num_rows
    unlabelled = [role == "unlabelled" for role in roles or [""] * table.num_rows]
    return labels_of(table, settings.label, path, unlabelled, settings.on_blank == "unlabelled")


def _roles(values: Sequence[str], names: Sequence[str], path: Path) -> list[str]:
    roles = []
    validation: Counter[str] = Counter()
    for row, value in enumerate(values):
        role = value_or_blank(value)
        if PART_ROLES.get(role.casefold()) == "train":  # a validation part has this role too
            if "train" not in role.casefold():
                validation[role] += 1
            role = ""
        if role not in ROLES:
            raise DataError(
                f"a role must be 'test', 'train_only', 'unlabelled', 'train', 'val' or blank, but got {value!r} in "
                f"row {row} ({names[row]!r}) of {path.name}: correct it"
            )
        roles.append(role)
    for name, count in validation.items():
        logger.warning(
            "%s: %s of role %r join the folds, which raysk divides", path.name, number_of(count, "row"), name
        )
    return roles


def _collection_of_manifest(path: Path, settings: DataSettings) -> Collection:
    manifest = Manifest.read(path)
    if not manifest.root.is_dir():
        raise ConfigError(
            f"the images of {path} must be in {manifest.root}, but it is not a folder: prepare the dataset again"
        )
    if not manifest.grouped and settings.group is None:
        collection = collection_of(manifest.table.drop(["group"]), manifest.root, path, settings)
        return replace(collection, bits=manifest.bits)
    collection = replace(collection_of(manifest.table, manifest.root, path, settings), bits=manifest.bits)
    return replace(collection, grouped_by=manifest.grouped_by) if settings.group is None else collection
