"""Several collections as one dataset, each with its own settings, roles and class map."""

import logging
import re
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from raysk.artifacts import digest_of, replacing
from raysk.data.sources.base import Collection, register_source, sources
from raysk.data.sources.classes import class_map_override, usual_name
from raysk.data.sources.duplicates import without_duplicates
from raysk.data.sources.groups import GROUP
from raysk.data.sources.normalising import check_settings, normalised
from raysk.data.sources.settings import DataSettings
from raysk.data.sources.unpacking import made_once
from raysk.errors import ConfigError, DataError

PATH_ATTRIBUTES = ("mask",)

logger = logging.getLogger(__name__)


@register_source("several", reads=("path",))
def read_several(settings: DataSettings, cache: Path) -> Collection:
    """Reads each collection and joins the rows; the attribute "source" holds the collection of each row.

    The name of its collection is the prefix of each image and group, and duplicates are kept once (see `duplicates`).
    The root is a folder with a link to each collection, so that the paths in the manifest, and therefore its digest,
    do not depend on where the collections are.
    """
    names = [member.name or member.source for member in settings.collections]
    if len(names) < 2 or len(set(names)) < len(names):
        raise ConfigError(
            f"data must be at least two collections with different names, but got [{', '.join(names)}]: write "
            "data=[ham10000,isic2019], or data=[clinic:csv,ham10000] to give a collection another name"
        )
    if settings.path is not None:
        raise ConfigError(
            f"data.path must be null for several collections, but got {settings.path}: give data.{names[0]}.path"
        )
    # What is set for all collections holds for each of them.
    shared: dict[str, Any] = {"on_error": "skip"} if settings.on_error == "skip" else {}
    shared |= {"on_blank": "unlabelled"} if settings.on_blank == "unlabelled" else {}
    members = [replace(member, **shared) for member in settings.collections]
    parts = [_read(member, name, cache) for member, name in zip(members, names, strict=True)]
    if settings.map is None and settings.classes_map is None:  # otherwise all classes are renamed later
        _check_names_of_classes(names, parts, members)
    parts, groups = without_duplicates(names, parts)
    return Collection(
        origin="+".join(names),
        root=_links(cache, {name: part.root for name, part in zip(names, parts, strict=True)}),
        names=_prefixed(names, [part.names for part in parts]),
        images=_prefixed(names, [part.images for part in parts]),
        labels=[label for part in parts for label in part.labels],
        groupings={} if groups is None else {GROUP: groups},
        grouped_by={origin: columns for part in parts for origin, columns in part.grouped_by.items()},
        roles=[role for part in parts for role in part.roles or [""] * len(part.names)],
        attributes=_joined_attributes(names, parts),
    )


def _read(member: DataSettings, name: str, cache: Path) -> Collection:
    if member.source == "several":
        raise ConfigError(f"data.{name} must be a single collection, but is several: list its parts instead")
    if member.bits is not None:
        raise ConfigError(f"data.bits must be one value for all collections, but {name} has its own: give data.bits")
    try:
        check_settings(member)  # before hours of reading
        collection = sources[member.source].read(member, cache)
        part = normalised(replace(collection, origin=f"{name}/{collection.origin}"), member)
    except (ConfigError, DataError) as error:
        settings = "|".join(field.name for field in fields(DataSettings))
        message = re.sub(rf"\bdata\.(?=(?:{settings})\b)", f"data.{name}.", str(error))
        raise type(error)(message if message != str(error) else f"{name}: {message}") from error
    if not part.names:
        raise DataError(f"each collection must have rows, but {name} has none left: correct data.{name}.classes_map")
    return part


def _prefixed(names: Sequence[str], columns: Sequence[Sequence[str | None]]) -> list[Any]:
    """Concatenates the columns, with the collection's name before each value; absolute paths stay."""
    return [
        value if value is None or Path(value).is_absolute() else f"{name}/{value}"
        for name, column in zip(names, columns, strict=True)
        for value in column
    ]


def _check_names_of_classes(names: Sequence[str], parts: Sequence[Collection], members: Sequence[DataSettings]) -> None:
    """Refuses classes that differ only in case; warns of classes with the same usual name."""
    first: dict[str, tuple[str, str]] = {}
    for name, part, member in zip(names, parts, members, strict=True):
        for label in sorted({*part.labels} - {""}):
            other, other_name = first.setdefault(usual_name(label), (label, name))
            if label == other:
                continue
            pair = f"{other!r} ({other_name}) and {label!r} ({name})"
            if label.casefold() == other.casefold():
                kept = {kept.casefold(): kept for kept, _ in first.values()}
                pairs = {label: kept.get(label.casefold(), label) for label in sorted({*part.labels} - {""})}
                # Pairs name the classes as the table does, if nothing has renamed them.
                renamed = member.classes_map is not None or member.map is not None
                override = None if renamed else class_map_override(pairs, f"data.{name}.classes_map")
                raise DataError(
                    f"classes must differ in more than case, but got {pair}: set data.map=usual"
                    + (f", or {override}" if override else "")
                )
            logger.warning("%s stay two classes; data.map=usual joins them", pair)


def _links(cache: Path, roots: dict[str, Path]) -> Path:
    folder = cache / f"several-{digest_of({name: str(root) for name, root in roots.items()})}"

    def make() -> None:
        with replacing(folder) as temporary:
            temporary.mkdir()
            for name, root in roots.items():
                (temporary / name).symlink_to(root, target_is_directory=True)

    made_once(folder, make)
    return folder


def _joined_attributes(names: Sequence[str], parts: Sequence[Collection]) -> dict[str, Any]:
    columns = sorted({column for part in parts for column in part.attributes} - {"source"})
    joined = {column: _joined(column, names, parts) for column in columns}
    source = [name for name, part in zip(names, parts, strict=True) for _ in part.names]
    return joined | {"source": pa.chunked_array([pa.array(source, pa.string())])}


def _joined(column: str, names: Sequence[str], parts: Sequence[Collection]) -> pa.ChunkedArray:
    """Returns one attribute of all collections, null where a collection lacks it, text where types differ."""
    pieces: list[pa.Table] = []
    for name, part in zip(names, parts, strict=True):
        values = part.attributes.get(column, pa.nulls(len(part.names)))
        if column in PATH_ATTRIBUTES and column in part.attributes:
            values = pa.array(_prefixed([name], [values.to_pylist()]), pa.string())
        pieces.append(pa.table({column: values}))
    types = {
        piece.schema.field(column).type for piece in pieces if not pa.types.is_null(piece.schema.field(column).type)
    }
    if len(types) > 1:
        pieces = [piece.cast(pa.schema([(column, pa.string())])) for piece in pieces]
    return pa.concat_tables(pieces, promote_options="default").column(column)
