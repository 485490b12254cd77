"""The training parts of the ISIC challenges 2017 to 2020, each as the archive ships it."""

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
    """Reads part 3 of 2017: melanoma, seborrheic keratosis and otherwise nevus; with the masks of part 1.

    Nothing says which images belong together: `raysk data audit` finds the near-duplicates.
    """
    published = open_published(settings, ["ISIC-2017_Training_Part3_GroundTruth.csv"])
    ids = published.ids("image_id")
    two = CLASSES_2017[:2]
    for name in two:
        published.names(name)  # without both columns "nevus" would be wrong
    labels = published.one_hot(two, rest="nevus")
    published = extended(published, ids, "image_id", ["ISIC-2017_Training_Data_metadata.csv"])
    return published.collection(ids, labels, groupings={}, told_by=two, known_classes=CLASSES_2017)


@register_source("isic2018")
def read_isic2018(settings: DataSettings, cache: Path) -> Collection:
    """Reads task 3 of 2018; with the table of lesions, if it is there, images of one lesion are a group."""
    published = open_published(settings, ["ISIC2018_Task3_Training_GroundTruth.csv"])
    groups = ["ISIC2018_Task3_Training_LesionGroupings.csv"]
    return _one_hot_collection(published, CLASSES_2018, groups)


@register_source("isic2019")
def read_isic2019(settings: DataSettings, cache: Path) -> Collection:
    """Reads 2019; the table of metadata, if it is there, tells the lesions of most images."""
    published = open_published(settings, ["ISIC_2019_Training_GroundTruth.csv"])
    return _one_hot_collection(published, CLASSES_2019, ["ISIC_2019_Training_Metadata.csv"])


@register_source("isic2020")
def read_isic2020(settings: DataSettings, cache: Path) -> Collection:
    """Reads 2020: benign or malignant, by patient, and by lesion where the table tells it."""
    tables = ["train.csv", "ISIC_2020_Training_GroundTruth_v2.csv", "ISIC_2020_Training_GroundTruth.csv"]
    published = open_published(settings, tables)
    return published.collection(
        published.ids("image_name"),
        target_labels(published),
        groupings=published.groupings(),
        told_by=("target", "benign_malignant"),
        known_classes=TARGETS,
    )


def target_labels(published: Published) -> list[str]:
    """Returns "malignant" where the column "target" is 1, "benign" where it is 0.

    Raises:
        DataError: There is no such column, or a value is neither.
    """
    labels = [
        {"target": TARGETS[1], TARGETS[0]: TARGETS[0]}[name] for name in published.one_hot(["target"], TARGETS[0])
    ]
    told = "benign_malignant"
    if told in published.table.column_names:
        for row, (label, said) in enumerate(zip(labels, published.names(told), strict=True)):
            if said and said != label:
                raise DataError(
                    f"target and {told} must agree, but row {row} of {published.path.name} has {label} and {said}: "
                    "correct one"
                )
    return labels


def _one_hot_collection(published: Published, classes: tuple[str, ...], more: list[str]) -> Collection:
    ids = published.ids("image")
    missing = [name for name in classes if name != "UNK" and name not in published.table.column_names]
    if missing:
        published.names(missing[0])  # raises, with the columns that there are
    labels = published.one_hot(classes)
    published = extended(published, ids, "image", more)
    return published.collection(
        ids, labels, groupings=published.groupings(["lesion"]), told_by=classes, known_classes=classes
    )
