"""The ISIC challenges 2017 to 2020, as published in the archive; a folder with several tables is its training part."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePath

from raysk.data.sources.base import IMAGE_SUFFIXES, Collection, number_of, register_source
from raysk.data.sources.groups import joined_groups
from raysk.data.sources.publishers import NAMES, Published, extended, find_table, open_published
from raysk.data.sources.settings import DataSettings
from raysk.data.table_files import read_columns
from raysk.errors import DataError

CLASSES_2017 = ("melanoma", "seborrheic_keratosis", "nevus")
CLASSES_2018 = ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")
CLASSES_2019 = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK")
TARGETS = ("benign", "malignant")
UNKNOWN = "UNK"
# The tables of a challenge, and the second table that belongs to each.
TABLES_2017 = {
    "ISIC-2017_Training_Part3_GroundTruth.csv": "ISIC-2017_Training_Data_metadata.csv",
    "ISIC-2017_Validation_Part3_GroundTruth.csv": "ISIC-2017_Validation_Data_metadata.csv",
    "ISIC-2017_Test_v2_Part3_GroundTruth.csv": "ISIC-2017_Test_v2_Data_metadata.csv",
}
TABLES_2018 = {
    "ISIC2018_Task3_Training_GroundTruth.csv": "ISIC2018_Task3_Training_LesionGroupings.csv",
    "ISIC2018_Task3_Validation_GroundTruth.csv": None,
    "ISIC2018_Task3_Test_GroundTruth.csv": None,
    "ISIC2018_Task3_Test_GroundTruth.tab": None,
}
TABLES_2019 = {
    "ISIC_2019_Training_GroundTruth.csv": "ISIC_2019_Training_Metadata.csv",
    "ISIC_2019_Test_GroundTruth.csv": "ISIC_2019_Test_Metadata.csv",
}
DUPLICATES_2020 = "ISIC_2020_Training_Duplicates.csv"

logger = logging.getLogger(__name__)


@register_source("isic2017")
def read_isic2017(settings: DataSettings, cache: Path) -> Collection:
    """Reads part 3 of 2017 (melanoma, seborrheic keratosis, otherwise nevus), with the masks of part 1.

    The publisher gives no groups: `raysk data audit` finds the near-duplicates.
    """
    published = open_published(settings, list(TABLES_2017))
    ids = published.ids("image_id")
    columns = CLASSES_2017[:2]
    for name in columns:
        published.labels(name)  # raises if a column is missing: "nevus" would then be wrong
    labels = published.one_hot(columns, rest="nevus")
    published = extended(published, ids, "image_id", _second_table(published, TABLES_2017))
    return published.collection(ids, labels, groupings={}, label_columns=columns, known_classes=CLASSES_2017)


@register_source("isic2018")
def read_isic2018(settings: DataSettings, cache: Path) -> Collection:
    """Reads task 3 of 2018; the table of lesions, if present, groups the images of each lesion.

    The test part has a table in the layout of the training part, and another one in that of HAM10000, with lesions.
    """
    published = open_published(settings, list(TABLES_2018))
    if "dx" in published.table.column_names and "MEL" not in published.table.column_names:
        return published.collection(
            published.ids("image_id"),
            [label.upper() for label in published.labels("dx")],
            groupings=published.groupings(["lesion"]),
            label_columns=("dx",),
            known_classes=CLASSES_2018,
        )
    return _one_hot_collection(published, CLASSES_2018, _second_table(published, TABLES_2018))


@register_source("isic2019")
def read_isic2019(settings: DataSettings, cache: Path) -> Collection:
    """Reads 2019; the table of metadata, if present, gives the lesions of most images.

    Rows of the test part whose class is unknown (UNK) are left out, unless data.classes_map or data.classes names it.
    """
    published = open_published(settings, list(TABLES_2019))
    collection = _one_hot_collection(published, CLASSES_2019, _second_table(published, TABLES_2019))
    named = {*(settings.classes or ()), *(settings.classes_map.to_plain() if settings.classes_map else ())}
    if UNKNOWN in named or "train" in published.path.name.casefold():
        return collection
    rows = [row for row, label in enumerate(collection.labels) if label != UNKNOWN]
    if num_unknown := len(collection.labels) - len(rows):
        logger.warning(
            "%s: left out %s of class %s, which no training image has; to keep them, name it in data.classes_map",
            collection.origin, number_of(num_unknown, "row"), UNKNOWN,
        )  # fmt: skip
    return collection.take(rows)


@register_source("isic2020")
def read_isic2020(settings: DataSettings, cache: Path) -> Collection:
    """Reads 2020 (benign or malignant), grouped by patient, and by lesion if the table has that column.

    The publisher's list of duplicates, if present, joins the groups of each pair.
    """
    tables = ["train.csv", "ISIC_2020_Training_GroundTruth_v2.csv", "ISIC_2020_Training_GroundTruth.csv"]
    published = open_published(settings, tables)
    ids = published.ids("image_name")
    return published.collection(
        ids,
        target_labels(published, "target"),
        groupings=_with_duplicates_joined(published, ids, published.groupings()),
        label_columns=("target", "benign_malignant"),
        known_classes=TARGETS,
    )


def target_labels(published: Published, target: str) -> list[str]:
    """Returns "malignant" where the column `target` is 1, "benign" where it is 0.

    Raises:
        DataError: The column is missing, has another value, or contradicts the column "benign_malignant".
    """
    if published.unlabelled:
        return published.labels(target)
    labels = [{target: TARGETS[1], TARGETS[0]: TARGETS[0]}[name] for name in published.one_hot([target], TARGETS[0])]
    column = "benign_malignant"
    if column in published.table.column_names:
        for row, (label, other) in enumerate(zip(labels, published.names(column), strict=True)):
            if other and other != label:
                raise DataError(
                    f"{target} and {column} must agree, but row {row} of {published.path.name} has {label} and "
                    f"{other}: correct one"
                )
    return labels


def _second_table(published: Published, tables: Mapping[str, str | None]) -> list[str]:
    """Returns the name of the second table that belongs to the one that was read; renamed, it is the training part."""
    by_name = {name.casefold(): second for name, second in tables.items()}
    second = by_name.get(published.path.name.casefold(), next(iter(tables.values())))
    return [] if second is None else [second]


def _one_hot_collection(published: Published, classes: tuple[str, ...], lesion_tables: list[str]) -> Collection:
    ids = published.ids("image")
    missing = [name for name in classes if name != UNKNOWN and name not in published.table.column_names]
    if missing:
        published.labels(missing[0])  # raises an error that lists the columns
    labels = published.one_hot(classes)
    published = extended(published, ids, "image", lesion_tables)
    return published.collection(
        ids, labels, groupings=published.groupings(["lesion"]), label_columns=classes, known_classes=classes
    )


def _with_duplicates_joined(
    published: Published, ids: Sequence[str], groupings: Mapping[str, Sequence[str]]
) -> dict[str, list[str]]:
    """Returns the groupings with the groups of duplicates joined, whichever of them the settings choose."""
    file = find_table(published.root, [DUPLICATES_2020])
    if file is None:
        return {kind: list(values) for kind, values in groupings.items()}
    listed = replace(published, path=file, table=read_columns(file, NAMES))
    first, second = ([_without_suffix(name) for name in listed.names(f"image_name_{side}")] for side in (1, 2))
    pairs = [(name, other) for name, other in zip(first, second, strict=True) if name and other]
    first_of = _first_duplicates(pairs)
    present = {_without_suffix(name) for name in ids}
    num_joined = sum(name in present and other in present for name, other in pairs)
    logger.warning("%s: joined the groups of %s of duplicates", file.name, number_of(num_joined, "pair"))
    duplicates = [first_of.get(_without_suffix(name), "") for name in ids]
    return {
        kind: [group.removeprefix(f"{kind}:") for group in joined_groups({kind: values, "duplicate": duplicates})]
        for kind, values in groupings.items()
    } or {"duplicate": duplicates}


def _first_duplicates(pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Returns the first name, by the alphabet, of all duplicates that pairs connect, for each name in a pair."""
    first: dict[str, str] = {}

    def top(name: str) -> str:
        while first.setdefault(name, name) != name:
            name = first[name]
        return name

    for pair in pairs:
        low, high = sorted(top(name) for name in pair)
        first[high] = low
    return {name: top(name) for name in first}


def _without_suffix(name: str) -> str:
    path = PurePath(name)
    return path.stem if path.suffix.lower() in IMAGE_SUFFIXES else name
