"""Where a dataset comes from: each source turns its settings into a manifest."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

import pyarrow as pa

from raysk.artifacts import digest_of
from raysk.data.manifest import COLUMNS, ROLES, Manifest, make_manifest
from raysk.data.synthetic import CLASS_NAMES, DRAWING_VERSION, make_synthetic
from raysk.data.tables import read_columns, strings_of
from raysk.errors import ArtifactError, ConfigError, DataError
from raysk.registry import Registry
from raysk.settings import Between, Settings

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
DEFAULT_SYNTHETIC_SIZE = 1200
SYNTHETIC_PIXELS = 64

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class DataSettings(Settings):
    """Which dataset, and how its table is to be read.

    Attributes:
        source: The name of a source.
        path: The table or folder; the synthetic source has none.
        image: The column of image paths.
        label: The column of labels.
        group: The column of what must not be parted, such as the lesion or patient. Without it a column named
            "group" is taken if the table has one; otherwise each row is its own group.
        role: The column that says "test", "train_only" or "train" (also blank); without it, as for `group`, "role".
        classes: The classes in their order, when a label outside them is an error; without it, those that occur.
        on_error: What a missing or unreadable image does: "refuse" the data, or "skip" the row with a warning.
        size: The number of images of the synthetic source.
        seed: The seed of the synthetic source.

    Raises:
        ConfigError: A value cannot be right.
    """

    source: str = "synthetic"
    path: str | None = None
    image: str = "image"
    label: str = "label"
    group: str | None = None
    role: str | None = None
    classes: tuple[str, ...] | None = None
    on_error: Literal["refuse", "skip"] = "refuse"
    size: Annotated[int, Between(1, 10_000_000)] | None = None
    seed: Annotated[int, Between(0, 2**31 - 1)] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size is not None and self.source != "synthetic":
            raise ConfigError(f"size must be null unless the source is synthetic, but got {self.size}: remove it")


Source = Callable[[DataSettings, Path], Manifest]
sources: Registry[Source] = Registry("data source")


def load_manifest(settings: DataSettings, cache: Path) -> Manifest:
    """Returns the manifest of a dataset.

    Args:
        settings: Which dataset.
        cache: A folder for what a source has to make, and that is found again the next time.

    Raises:
        ConfigError: The source is unknown or a setting cannot be right.
        DataError: The table, the folder or a row cannot be right.
    """
    return sources[settings.source](settings, cache)


@sources.register("synthetic")
def read_synthetic(settings: DataSettings, cache: Path) -> Manifest:
    """Draws skin lesions once, with masks and boxes, and reads them; see `raysk.data.synthetic`."""
    num_images = DEFAULT_SYNTHETIC_SIZE if settings.size is None else settings.size
    drawing = {
        "num_images": num_images, "size": SYNTHETIC_PIXELS, "seed": settings.seed, "version": DRAWING_VERSION
    }  # fmt: skip
    folder = cache / f"synthetic-{digest_of(drawing)}"
    if not folder.is_dir():
        try:
            make_synthetic(folder, num_images, SYNTHETIC_PIXELS, settings.seed)
        except ArtifactError:
            if not folder.is_dir():  # else another process has drawn the same images meanwhile
                raise
    table = DataSettings(
        source="csv",
        path=str(folder / "metadata.csv"),
        image="file",
        group="group",
        classes=settings.classes or CLASS_NAMES,
        on_error=settings.on_error,
    )
    return read_table(table, cache)


@sources.register("csv")
def read_table(settings: DataSettings, cache: Path) -> Manifest:
    """Reads a CSV (comma or semicolon) or Parquet table; relative image paths start from the table's folder.

    Columns that have no part in the manifest are kept as attributes.
    """
    path = _required_path(settings, "a table")
    if not path.is_file():
        raise DataError(f"data.path must be a table, but {path} is not a file: correct data.path")
    # Codes such as "01" are names: what the manifest takes over must not be read as numbers.
    texts = {settings.image, settings.label, settings.group or "group", settings.role or "role"}
    table = read_columns(path, texts)
    images = strings_of(table, settings.image, "data.image", path)
    labels = [label.strip() for label in strings_of(table, settings.label, "data.label", path)]
    groups = _groups(table, settings, images, path)
    role_column = _optional_column(table, settings.role, "role")
    roles = None if role_column is None else _roles(strings_of(table, role_column, "data.role", path), images, path)
    if settings.classes is not None:
        _check_labels(labels, images, settings.classes, path)
    used = {settings.image, settings.label, _optional_column(table, settings.group, "group"), role_column}
    attributes: dict[str, Any] = {
        f"source_{name}" if name in COLUMNS else name: table.column(name)
        for name in table.column_names
        if name not in used
    }
    keep = _rows_with_file(images, settings.on_error, path)
    manifest_groups = None if groups is None else [groups[row] for row in keep]
    return make_manifest(
        [images[row] for row in keep],
        [labels[row] for row in keep],
        root=path.parent,
        groups=manifest_groups,
        roles=None if roles is None else [roles[row] for row in keep],
        class_names=settings.classes,
        attributes={name: column.take(pa.array(keep)) for name, column in attributes.items()},
    )


@sources.register("folder")
def read_folder(settings: DataSettings, cache: Path) -> Manifest:
    """Reads a folder with one folder of images per class; nothing says which images belong together."""
    root = _required_path(settings, "a folder")
    if not root.is_dir():
        raise DataError(f"data.path must be a folder of class folders, but {root} is no folder: correct data.path")
    class_folders = sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    images, labels = [], []
    for folder in class_folders:
        found = [file for file in sorted(folder.rglob("*")) if file.suffix.lower() in IMAGE_SUFFIXES]
        if not found:
            raise DataError(
                f"each folder in {root} must be a class with images, but {folder.name!r} holds none of "
                f"{', '.join(sorted(IMAGE_SUFFIXES))}: add images or remove the folder"
            )
        images += [file.relative_to(root).as_posix() for file in found]
        labels += [folder.name] * len(found)
    if settings.classes is not None:
        _check_labels(labels, images, settings.classes, root)
    return make_manifest(images, labels, root=root, class_names=settings.classes)


def _required_path(settings: DataSettings, what: str) -> Path:
    if settings.path is None:
        raise ConfigError(f"data.path must be given for the source {settings.source!r}, but is not: name {what}")
    return Path(settings.path).expanduser().absolute()


def _optional_column(table: pa.Table, asked: str | None, usual: str) -> str | None:
    """Returns the column that was asked for or, when none was, the one with the usual name if there is one."""
    return asked or (usual if usual in table.column_names else None)


def _groups(table: pa.Table, settings: DataSettings, images: Sequence[str], path: Path) -> list[str] | None:
    column = _optional_column(table, settings.group, "group")
    if column is None:
        return None
    groups = [group.strip() for group in strings_of(table, column, "data.group", path)]
    if unknown := groups.count(""):
        logger.warning("%s: %d rows have no value of %r, and are groups of their own", path.name, unknown, column)
    return [group or image for group, image in zip(groups, images, strict=True)]


def _roles(values: Sequence[str], images: Sequence[str], path: Path) -> list[str]:
    roles = []
    for row, value in enumerate(values):
        role = "" if value.strip() == "train" else value.strip()
        if role not in ROLES:
            raise DataError(
                f"a role must be 'test', 'train_only', 'train' or blank, but got {value!r} in row {row} "
                f"({images[row]!r}) of {path.name}: correct it"
            )
        roles.append(role)
    return roles


def _check_labels(labels: Sequence[str], images: Sequence[str], classes: Sequence[str], path: Path) -> None:
    for row, label in enumerate(labels):
        if label and label not in classes:
            nearest = get_close_matches(label, classes, n=1, cutoff=0.0)[0]
            raise DataError(
                f"a label must be one of data.classes, but got {label!r} in row {row} ({images[row]!r}) of "
                f"{path.name}; the nearest class is {nearest!r}: correct the label or data.classes"
            )


def _rows_with_file(images: Sequence[str], on_error: str, path: Path) -> list[int]:
    """Returns the rows whose image is there; a missing one is refused, or reported and left out."""
    missing = [row for row, image in enumerate(images) if image and not (path.parent / image).is_file()]
    if not missing:
        return list(range(len(images)))
    first = f"{path.parent / images[missing[0]]} of row {missing[0]}"
    if on_error == "refuse":
        raise DataError(
            f"every image of {path.name} must be a file, but {first} is not, as {len(missing)} in all: restore the "
            "files, correct data.image, or set data.on_error=skip"
        )
    logger.warning("%s: left out %d rows without an image file, first %s", path.name, len(missing), first)
    absent = set(missing)
    return [row for row in range(len(images)) if row not in absent]
