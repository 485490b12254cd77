"""ISIC 2024 (SLICE-3D): 401,059 crops from total body photographs, as files or within one HDF5 file."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from raysk.data.sources.base import Collection, register_source
from raysk.data.sources.isic import TARGETS, target_labels
from raysk.data.sources.publishers import Published, extended, find_table, open_published
from raysk.data.sources.settings import DataSettings
from raysk.data.sources.unpacking import unpacked
from raysk.errors import ConfigError, DataError

# The folder of the publisher's image files; unpacked files use it too, so that both give the same paths.
IMAGES = "train-image/image"
# The table of the competition, and that of the archive, whose other columns are in two further tables.
TABLES = ("train-metadata.csv", "ISIC_2024_Training_GroundTruth.csv")
METADATA, SUPPLEMENT = "metadata.csv", "ISIC_2024_Training_Supplement.csv"

logger = logging.getLogger(__name__)


@register_source("isic2024")
def read_isic2024(settings: DataSettings, cache: Path) -> Collection:
    """Reads train-metadata.csv, and the images of train-image/image/ or, if it is missing, of train-image.hdf5.

    Or it reads ISIC_2024_Training_GroundTruth.csv, the table metadata.csv beside the images, which holds the patients,
    and the supplement, if present. The images of the HDF5 file are unpacked into the cache once, because the rest of
    raysk reads files.
    """
    published = open_published(settings, TABLES)
    ids = published.ids("isic_id")
    target = "target" if "target" in published.table.column_names else "malignant"
    labels = target_labels(published, target)
    if target == "malignant":
        published = _with_patients(published, ids)
    packed = find_table(published.root, ["train-image.hdf5"])
    images, root = None, None
    if packed is not None and not (published.root / IMAGES).is_dir():
        root = _unpacked(packed, ids, cache)
        images = [f"{IMAGES}/{name}.jpg" if (root / IMAGES / f"{name}.jpg").is_file() else None for name in ids]
    return published.collection(
        ids,
        labels,
        groupings=published.groupings(),
        label_columns=(target,),
        known_classes=TARGETS,
        images=images,
        root=root,
    )


def _with_patients(published: Published, ids: Sequence[str]) -> Published:
    """Adds the columns of the archive's other tables, and warns if none of them holds the patients."""
    for name in (METADATA, SUPPLEMENT):
        published = extended(published, ids, "isic_id", [name])
    if "patient_id" not in published.table.column_names:
        logger.warning(
            "%s: found no %s with the patients, so folds may divide them: unpack ISIC_2024_Training_Input.zip into %s",
            published.path.name, METADATA, published.root,
        )  # fmt: skip
    return published


def _unpacked(packed: Path, ids: Sequence[str], cache: Path) -> Path:
    try:
        import h5py
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{packed.name} must be read with h5py, but it is not installed: pip install 'raysk[hdf5]', or unpack the "
            f"images into {packed.parent / IMAGES}"
        ) from error
    try:
        file = h5py.File(packed, "r")
    except OSError as error:
        raise DataError(f"{packed} must be an HDF5 file, but {str(error).splitlines()[0]}: fetch it again") from error
    with file:
        return unpacked(cache, "isic2024", [packed], lambda folder: _write_images(file, ids, folder), sorted(ids))


def _write_images(file: Any, ids: Sequence[str], folder: Path) -> None:
    (folder / IMAGES).mkdir(parents=True)
    for name in ids:
        content = _content(file, name)
        if content is not None:
            (folder / IMAGES / f"{Path(name).name}.jpg").write_bytes(content)


def _content(file: Any, name: str) -> bytes | None:
    """Returns the bytes of an image, or None if it is missing, which is reported like any other missing file."""
    try:
        return bytes(file[name][()]) if name in file else None
    except (KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise DataError(
            f"{name} in {file.filename} must be an image, but {str(error).splitlines()[0]}: fetch the file again"
        ) from error
