"""The embedded default dataset: drawn lesions, made once in the cache."""

from dataclasses import replace
from pathlib import Path

from raysk.artifacts import digest_of
from raysk.data.sources.base import Collection, register_source
from raysk.data.sources.settings import DataSettings
from raysk.data.sources.tables import read_csv
from raysk.data.sources.unpacking import made_once
from raysk.data.synthetic import CLASS_NAMES, DRAWING_VERSION, make_synthetic

DEFAULT_SIZE = 1200
PIXELS = 64


@register_source("synthetic", reads=("role",), image="file", group="group")
def read_synthetic(settings: DataSettings, cache: Path) -> Collection:
    """Draws skin lesions once, with masks and boxes, and reads them; see `raysk.data.synthetic`."""
    num_images = DEFAULT_SIZE if settings.size is None else settings.size
    drawing = {"num_images": num_images, "size": PIXELS, "seed": settings.seed, "version": DRAWING_VERSION}
    folder = cache / f"synthetic-{digest_of(drawing)}"
    made_once(folder, lambda: make_synthetic(folder, num_images, PIXELS, settings.seed))
    table = DataSettings(source="csv", path=str(folder / "metadata.csv"), image="file", group="group")
    return replace(read_csv(table, cache), known_classes=CLASS_NAMES)
