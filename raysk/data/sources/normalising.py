"""Turns a collection into a manifest: renames classes, joins groups, and handles missing images."""

import logging
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from raysk.data.manifest import COLUMNS, Manifest, make_manifest
from raysk.data.sources.base import DESCRIBING, ROLES_OF_ALL, Collection, number_of, sources
from raysk.data.sources.classes import check_labels, check_spellings, counted, mapped_labels
from raysk.data.sources.groups import GROUP, joined_groups
from raysk.data.sources.settings import DataSettings
from raysk.data.sources.subset import subset
from raysk.errors import ConfigError, DataError

# A group with more rows than this, and more than a tenth of all rows, is not a lesion or patient.
LARGE_GROUP = 50

logger = logging.getLogger(__name__)


def load_manifest(settings: DataSettings, cache: Path) -> Manifest:
    """Returns the manifest of a dataset.

    Args:
        settings: The dataset.
        cache: The folder for files that a source makes once and reuses.

    Raises:
        ConfigError: The source is unknown or a setting is invalid.
        DataError: The table, the folder or a row is invalid.
    """
    source = sources[settings.source]
    check_settings(settings)  # before hours of reading
    collection = normalised(source.read(settings, cache), settings)
    return make_manifest(
        [image or "" for image in collection.images],
        collection.labels,
        root=collection.root,
        groups=collection.groupings.get(GROUP),
        roles=collection.roles,
        class_names=settings.classes,
        attributes={
            f"source_{name}" if name in COLUMNS else name: column for name, column in collection.attributes.items()
        },
        grouped_by=collection.grouped_by,
        bits=settings.bits or collection.bits,
    )


def normalised(collection: Collection, settings: DataSettings) -> Collection:
    """Returns the rows to use, with at most one grouping, named "group", in which no value is blank.

    Raises:
        ConfigError: A setting needs data that the collection lacks, or the source does not read the setting.
        DataError: A row has no label or an invalid one, or its image is missing or also in another row.
    """
    check_settings(settings)
    wheres = [collection.where(row) for row in range(len(collection.names))]
    collection = _with_roles(collection, settings)
    _check_labels_given(collection, settings)
    if collection.known_classes is not None:
        check_labels(collection.labels, collection.known_classes, "the publisher's classes", wheres)
    labels = mapped_labels(collection.labels, settings, collection.origin)
    check_spellings(collection.labels, labels, settings, collection.origin)
    keep = [row for row, label in enumerate(labels) if label is not None]
    if left_out := [collection.labels[row] for row, label in enumerate(labels) if label is None]:
        logger.warning(
            "%s: left out %s of classes that data.classes_map leaves out: %s",
            collection.origin, number_of(len(left_out), "row"), counted(left_out),
        )  # fmt: skip
    if settings.classes is not None:
        check_labels([label or "" for label in labels], settings.classes, "data.classes", wheres)
    renamed = replace(collection, labels=[label or "" for label in labels])
    keep = _with_file(renamed, keep, settings.on_error)
    _check_files_once(renamed, keep)
    renamed = renamed.take(keep)
    kinds = _kinds(renamed, settings)
    grouped_by = renamed.grouped_by or {renamed.origin: tuple(kinds)}
    grouped = replace(renamed, groupings=_groups(renamed, kinds), grouped_by=grouped_by)
    if settings.size is None or settings.source == "synthetic":  # the synthetic source draws exactly this number
        return grouped
    return subset(grouped, settings.size, settings.seed)


def check_settings(settings: DataSettings) -> None:
    """Refuses settings that the source does not read, and a column that two settings name.

    Raises:
        ConfigError: There is one.
    """
    source = sources[settings.source]
    for name in DESCRIBING:
        value = getattr(settings, name)
        if name in source.reads or value in (getattr(DataSettings, name), source.defaults.get(name)):
            continue
        if settings.source == "several":
            first = settings.collections[0]
            raise ConfigError(
                f"data.{name} must be given for each collection, but got {value!r} for all of them: give "
                f"data.{first.name or first.source}.{name} instead"
            )
        raise ConfigError(
            f"data.{name} must not be set for the source {settings.source!r}, which does not read it, but got "
            f"{value!r}: {_remedy(name, source.reads)}"
        )
    if "label" in source.reads:
        _check_columns_differ(settings)


def _check_columns_differ(settings: DataSettings) -> None:
    group = settings.group or ""
    columns = [("image", settings.image)]
    columns += [("label", column) for column in dict.fromkeys([settings.label, *settings.label.split("+")])]
    columns += [("group", column) for column in dict.fromkeys([group, *group.split("+")]) if column]
    first: dict[str, str] = {}
    for setting, column in columns:
        if (other := first.setdefault(column, setting)) != setting:
            raise ConfigError(
                f"data.{setting} must be another column than data.{other}, but both are {column!r}: correct one of them"
            )


def _remedy(name: str, reads: tuple[str, ...]) -> str:
    if name == "group" and "group_by" in reads:
        return "set data.group_by=lesion or patient instead"
    if name == "group_by":
        return "name the columns in data.group instead" if "group" in reads else "remove it"
    return "remove it, or use data=csv, which reads it"


def _check_files_once(collection: Collection, rows: Sequence[int]) -> None:
    """Refuses two rows with the same file, under different paths or through links: folds could separate them."""
    folders: dict[str, str] = {}
    first: dict[str, int] = {}
    for row in rows:
        folder, name = os.path.split(os.path.join(collection.root, str(collection.images[row])))
        if folder not in folders:
            folders[folder] = os.path.realpath(folder)
        file = os.path.join(folders[folder], name)
        other = first.setdefault(os.path.realpath(file) if os.path.islink(file) else file, row)
        if other != row:
            raise DataError(
                f"an image must be in one row, but {collection.images[other]!r} is in 2: row {other} "
                f"({collection.names[other]!r}) and {collection.where(row)}: remove one"
            )


def _check_labels_given(collection: Collection, settings: DataSettings) -> None:
    roles = collection.roles or [""] * len(collection.names)
    blank = [row for row, label in enumerate(collection.labels) if not label and roles[row] != "unlabelled"]
    if not blank:
        return
    rows = f"every row of {collection.origin}"
    if settings.on_blank == "unlabelled":  # then only rows that are scored stay without a label
        rows = f"every row of {collection.origin} with the role test"
    remedy = "fill in the label, remove the rows, or set data.on_blank=unlabelled"
    raise DataError(
        f"{rows} must have a label, but row {blank[0]} ({collection.names[blank[0]]!r}) has none ({len(blank)} in "
        f"all): {remedy if settings.on_blank == 'refuse' else 'fill in the label or remove the rows'}"
    )


def _with_roles(collection: Collection, settings: DataSettings) -> Collection:
    """Gives each row its role, and takes the labels of unlabelled rows away."""
    roles = _roles(collection, settings)
    if settings.on_blank == "unlabelled":
        given = roles or [""] * len(collection.names)
        roles = [
            role if label or role == "test" else "unlabelled"
            for role, label in zip(given, collection.labels, strict=True)
        ]
    if roles is None:
        return collection
    labels = ["" if role == "unlabelled" else label for role, label in zip(roles, collection.labels, strict=True)]
    return replace(collection, labels=labels, roles=roles)


def _roles(collection: Collection, settings: DataSettings) -> list[str] | None:
    if collection.roles is not None:
        return list(collection.roles)
    if settings.role is None:
        return None
    if settings.role not in ROLES_OF_ALL:
        raise ConfigError(
            f"data.role must be train_only, test or unlabelled for the source {settings.source!r}, but got "
            f"{settings.role!r}: choose one, or remove it"
        )
    return [settings.role] * len(collection.names)


def _with_file(collection: Collection, rows: Sequence[int], on_error: str) -> list[int]:
    """Returns the rows whose image exists; a missing image is refused, or its row is left out with a warning."""
    missing = [row for row in rows if collection.images[row] is None]
    if not missing:
        return list(rows)
    first = f"{collection.root / collection.names[missing[0]]} of row {missing[0]}"
    if on_error == "refuse":
        raise DataError(
            f"every image of {collection.origin} must be a file, but {first} is not ({len(missing)} in all): restore "
            "the files, correct data.path or data.image, or set data.on_error=skip"
        )
    logger.warning(
        "%s: left out %s without an image file, first %s", collection.origin, number_of(len(missing), "row"), first
    )
    return [row for row in rows if collection.images[row] is not None]


def _kinds(collection: Collection, settings: DataSettings) -> list[str]:
    """Returns the groupings of the collection to join."""
    kinds = list(collection.groupings)
    if settings.group_by is not None:
        kinds = ["lesion", "patient"] if settings.group_by == "both" else [settings.group_by]
    if absent := [kind for kind in kinds if kind not in collection.groupings]:
        raise ConfigError(
            f"data.group_by must be a grouping of {collection.origin} ({', '.join(collection.groupings) or 'none'}), "
            f"but got {settings.group_by!r}, and {absent[0]} is missing: choose another, name the columns of your own "
            "table in data.group, or remove it"
        )
    return kinds


def _groups(collection: Collection, kinds: Sequence[str]) -> dict[str, list[str]]:
    if not kinds:
        return {}
    # Patients before lesions: a group is then named after its patient.
    groups = joined_groups({kind: collection.groupings[kind] for kind in sorted(kinds, reverse=True)})
    if num_blank := groups.count(""):
        logger.warning(
            "%s: %s without a value of %r; each is its own group",
            collection.origin, number_of(num_blank, "row"), " or ".join(kinds),
        )  # fmt: skip
    name, count = Counter(group for group in groups if group).most_common(1)[0] if any(groups) else ("", 0)
    if count > max(LARGE_GROUP, len(groups) / 10):
        logger.warning(
            "%s: one group, %r, holds %d of %d rows, which no fold cuts: leave %r blank where it is unknown",
            collection.origin, name, count, len(groups), " or ".join(kinds),
        )  # fmt: skip
    return {GROUP: [group or str(image) for group, image in zip(groups, collection.images, strict=True)]}
