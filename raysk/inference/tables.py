"""The images that a command names: files, folders and tables, in the order given."""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from raysk.data.sources.files import image_files, is_image, is_mask, paths_of, posix_text
from raysk.data.table_files import read_columns, strings_of
from raysk.errors import ConfigError, DataError

TABLE_SUFFIXES = (".csv", ".tsv", ".tab", ".parquet")
# Names of a column of images, the surest first; case and signs between words do not matter.
IMAGE_COLUMNS = (
    "image", "imagepath", "filepath", "path", "file", "filename", "imagename", "imagefile", "imageid", "isicid",
    "imgid", "img",
)  # fmt: skip


class NamedImage(NamedTuple):
    """An image to predict.

    Attributes:
        name: Its name in the result: as it was typed, or as it is in its table.
        path: Its file.
    """

    name: str
    path: str


def list_images(sources: Sequence[str], column: str | None = None) -> list[NamedImage]:
    """Returns all images that the sources name; an image that is named twice is there twice.

    Args:
        sources: Image files; folders, whose images are taken at any depth without hidden files and masks; and tables
            (CSV or Parquet), whose paths start from the table.
        column: The column of images in the tables; None recognises it by its name.

    Raises:
        ConfigError: A source is none of these, or there is a column but no table.
        DataError: A folder holds no image, or a table cannot be read or has no column of images.
    """
    if column is not None and not any(map(is_table, sources)):
        raise ConfigError(f"--column must name a column of a table, but got {column!r} without a table: leave it out")
    return [image for source in sources for image in _images_of(source, column)]


def is_table(source: str) -> bool:
    """Returns whether a source is named like a table, and is no folder."""
    return Path(source).suffix.lower() in TABLE_SUFFIXES and not os.path.isdir(source)


def _images_of(source: str, column: str | None) -> Iterator[NamedImage]:
    path = Path(source).expanduser()
    if is_table(source):
        return _in_table(path, column)
    if source and os.path.isdir(path):
        return _in_folder(source, path)
    # A missing image is listed with the unreadable ones, but a name that no image has is a mistake.
    if not source or not (os.path.exists(path) or is_image(path.name)):
        raise ConfigError(f"IMAGES must be image files, folders or tables, but got {source!r}: correct the path")
    return iter([NamedImage(source, str(path))])


def _in_folder(source: str, folder: Path) -> Iterator[NamedImage]:
    images = [path for path in image_files(folder) if not is_mask(path)]
    if not images:
        raise DataError(f"a folder must hold images, but {source} holds none: correct the path")
    return (NamedImage(posix_text(Path(source) / path), str(folder / path)) for path in images)


def _in_table(path: Path, column: str | None) -> Iterator[NamedImage]:
    table = read_columns(path, (), lambda name: name == column or _plain(name) in IMAGE_COLUMNS)
    known = {_plain(name): name for name in reversed(table.column_names)}
    name = column or next((known[plain] for plain in IMAGE_COLUMNS if plain in known), None)
    if name is None:
        raise DataError(
            f"a table must have a column of images, called image, path, file or the like, but {path.name} has "
            f"{', '.join(table.column_names)}: name it with --column"
        )
    names = strings_of(table, name, "--column", path)
    files = paths_of(path.parent, names)
    return (NamedImage(name, str(path.parent / (file or name))) for name, file in zip(names, files, strict=True))


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.casefold())
