"""The training parts of the ISIC challenges 2017 to 2020, as published in the archive."""

from pathlib import Path

from raysk.data.sources.base import Collection, register_source
from raysk.data.sources.publishers import Published, extended, open_published
from raysk.data.sources.settings import DataSettings
from raysk.errors import DataError

CLASSES_2017 = ("melanoma", "seborrheic_keratosis", "nevus")
CLASSES_2018 = ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")
CLASSES_2019 = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK")
TARGETS = ("benign", "malignant")


@register_source("isic2017")
def read_isic2017(settings: DataSettings, cache: Path) -> Collection:
    """Reads part 3 of 2017 (melanoma, seborrheic keratosis, otherwise nevus), with the masks of part 1.

    The publisher gives no groups: `raysk data audit` finds the near-duplicates.
    """
    published = open_published(settings, ["ISIC-2017_Training_Part3_GroundTruth.csv"])
    ids = published.ids("image_id")
    columns = CLASSES_2017[:2]
    for name in columns:
        published.names(name)  # raises if a column is missing: "nevus" would then be wrong
    labels = published.one_hot(columns, rest="nevus")
    published = extended(published, ids, "image_id", ["ISIC-2017_Training_Data_metadata.csv"])
    return published.collection(ids, labels, groupings={}, label_columns=columns, known_classes=CLASSES_2017)


@register_source("isic2018")
def read_isic2018(settings: DataSettings, cache: Path) -> Collection:
    """Reads task 3 of 2018; the table of lesions, if present, groups the images of each lesion."""
    published = open_published(settings, ["ISIC2018_Task3_Training_GroundTruth.csv"])
    groups = ["ISIC2018_Task3_Training_LesionGroupings.csv"]
    return _one_hot_collection(published, CLASSES_2018, groups)


@register_source("isic2019")
def read_isic2019(settings: DataSettings, cache: Path) -> Collection:
    """Reads 2019; the table of metadata, if present, gives the lesions of most images."""
    published = open_published(settings, ["ISIC_2019_Training_GroundTruth.csv"])
    return _one_hot_collection(published, CLASSES_2019, ["ISIC_2019_Training_Metadata.csv"])


@register_source("isic2020")
def read_isic2020(settings: DataSettings, cache: Path) -> Collection:
    """Reads 2020 (benign or malignant), grouped by patient, and by lesion if the table has that column."""
    tables = ["train.csv", "ISIC_2020_Training_GroundTruth_v2.csv", "ISIC_2020_Training_GroundTruth.csv"]
    published = open_published(settings, tables)
    return published.collection(
        published.ids("image_name"),
        target_labels(published),
        groupings=published.groupings(),
        label_columns=("target", "benign_malignant"),
        known_classes=TARGETS,
    )


def target_labels(published: Published) -> list[str]:
    """Returns "malignant" where the column "target" is 1, "benign" where it is 0.

    Raises:
        DataError: The column is missing, has another value, or contradicts the column "benign_malignant".
    """
    labels = [
        {"target": TARGETS[1], TARGETS[0]: TARGETS[0]}[name] for name in published.one_hot(["target"], TARGETS[0])
    ]
    column = "benign_malignant"
    if column in published.table.column_names:
        for row, (label, other) in enumerate(zip(labels, published.names(column), strict=True)):
            if other and other != label:
                raise DataError(
                    f"target and {column} must agree, but row {row} of {published.path.name} has {label} and {other}: "
                    "correct one"
                )
    return labels


def _one_hot_collection(published: Published, classes: tuple[str, ...], lesion_tables: list[str]) -> Collection:
    ids = published.ids("image")
    missing = [name for name in classes if name != "UNK" and name not in published.table.column_names]
    if missing:
        published.names(missing[0])  # raises an error that lists the columns
    labels = published.one_hot(classes)
    published = extended(published, ids, "image", lesion_tables)
    return published.collection(
        ids, labels, groupings=published.groupings(["lesion"]), label_columns=classes, known_classes=classes
    )
