"""PAD-UFES-20: 2,298 smartphone photographs of 1,641 lesions of 1,373 patients in six classes (Pacheco et al. 2020)."""

from pathlib import Path

from raysk.data.sources.base import Collection, register_source
from raysk.data.sources.publishers import open_published
from raysk.data.sources.settings import DataSettings

CLASSES = ("ACK", "BCC", "MEL", "NEV", "SCC", "SEK")


@register_source("padufes20")
def read_padufes20(settings: DataSettings, cache: Path) -> Collection:
    """Reads metadata.csv, and the images of imgs_part_1/ to imgs_part_3/ or any other folders."""
    published = open_published(settings, ["metadata.csv"])
    return published.collection(
        published.ids("img_id" if "img_id" in published.table.column_names else "image_id"),
        [label.upper() for label in published.labels("diagnostic")],
        groupings=published.groupings(),
        label_columns=("diagnostic",),
        known_classes=CLASSES,
    )
