"""HAM10000: 10,015 dermatoscopic images of 7,470 lesions in seven classes (Tschandl, Rosendahl, Kittler 2018)."""

from pathlib import Path

from raysk.data.sources.base import Collection, register_source
from raysk.data.sources.publishers import open_published
from raysk.data.sources.settings import DataSettings

CLASSES = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
# The table has been published with and without its suffix; Harvard Dataverse also serves it with tabs.
TABLES = ("HAM10000_metadata.csv", "HAM10000_metadata", "HAM10000_metadata.tab", "metadata.csv")


@register_source("ham10000")
def read_ham10000(settings: DataSettings, cache: Path) -> Collection:
    """Reads the table, and the images and masks from HAM10000_images_part_1/ and _part_2/ or any other folders."""
    published = open_published(settings, TABLES)
    labels = [label.casefold() for label in published.labels("dx")]
    return published.collection(
        published.ids("image_id"),
        labels,
        groupings=published.groupings(["lesion"]),
        label_columns=("dx",),
        known_classes=CLASSES,
    )
