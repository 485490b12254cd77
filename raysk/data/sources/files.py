"""Finds image files: by their path in a table, or by name in any folder below the root of a collection."""

import os
import re
from collections.abc import Sequence, Set
from pathlib import Path, PurePath

from raysk.data.sources.base import IMAGE_SUFFIXES
from raysk.errors import DataError

MASK_ENDING = "_segmentation"
OTHER_ENDINGS = ("_superpixels", "_mask")
# Folders in which masks have the same file names as the images.
MASK_FOLDERS = ("mask", "segmentation", "groundtruth")
# Names of folders that hold masks beside the images of a collection. A class may be called "with mask".
_MASKS = re.compile(
    r"(?:(?:binary|lesion)?masks?|(?:.*[\W_])?(?:segmentations?|superpixels?|ground[\W_]*truths?)(?:[\W_].*)?)"
)
_IMAGES = re.compile(r"(?:.*[\W_])?(?:images?|imgs?|photos?)(?:[\W_].*)?")
# Image formats that raysk does not read.
FOREIGN_SUFFIXES = frozenset({".gif", ".jfif", ".jpe", ".heic", ".heif", ".avif", ".jp2", ".jxl", ".dng"})


class ImageFiles:
    """The image files below a folder, by name without folder and suffix; follows links and ignores hidden files.

    Args:
        root: The folder of a collection.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._images: dict[str, list[str]] = {}
        self._masks: dict[str, list[str]] = {}
        for path in image_files(root):
            stem = path.stem
            if not is_mask(path):
                self._images.setdefault(stem, []).append(posix_text(path))
            elif stem.endswith(MASK_ENDING) or not stem.endswith(OTHER_ENDINGS):
                self._masks.setdefault(stem.removesuffix(MASK_ENDING), []).append(posix_text(path))

    def image(self, name: str) -> str | None:
        """Returns the path of an image relative to the root, or None if it does not exist.

        Raises:
            DataError: Several different files have this name.
        """
        return self._only(self._images, name)

    def mask(self, name: str) -> str | None:
        """Returns the path of the mask of an image, like `image`."""
        return self._only(self._masks, name)

    def _only(self, index: dict[str, list[str]], name: str) -> str | None:
        path = PurePath(name.replace("\\", "/"))
        stem = path.stem if path.suffix.lower() in IMAGE_SUFFIXES else path.name
        matches = sorted(index.get(stem, []))
        if len(matches) > 1:  # a link may be broken
            matches = [match for match in matches if os.path.isfile(self._root / match)]
        # Copies are harmless (an archive of HAM10000 has each folder twice); a scaled version is another image.
        if len(matches) > 1 and len({(self._root / match).stat().st_size for match in matches}) > 1:
            raise DataError(
                f"an image must be one file, but {name!r} is {matches[0]} and also {matches[1]} in {self._root}: "
                "move one of them away"
            )
        return matches[0] if matches else None


def image_files(root: Path, suffixes: Set[str] = IMAGE_SUFFIXES) -> list[PurePath]:
    """Returns the image files below a folder, relative to it and sorted; ignores hidden files and folders."""
    paths, visited = [], set()
    for folder, folders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in visited:  # a link to a parent folder would loop for ever
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        below = PurePath(folder).relative_to(root)
        paths += [below / name for name in names if is_image(name, suffixes)]
    return sorted(paths)


def is_mask(path: PurePath) -> bool:
    """Returns whether an image file, relative to the root of its collection, is a mask by its name or its folder."""
    folders = [part.casefold() for part in path.parts[:-1]]
    return path.stem.endswith((MASK_ENDING, *OTHER_ENDINGS)) or any(
        word in folder for folder in folders for word in MASK_FOLDERS
    )


def visible_folders(root: Path) -> list[Path]:
    """Returns the folders in a folder, sorted, without hidden ones."""
    return sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def holds_masks(folder: str) -> bool:
    """Returns whether a folder holds masks by its name, such as "masks" or "ISIC2018_Task1_Training_GroundTruth"."""
    return bool(_MASKS.fullmatch(folder.casefold()))


def holds_all_images(folder: str) -> bool:
    """Returns whether a folder holds the images of all classes by its name, such as "HAM10000_images_part_1"."""
    return bool(_IMAGES.fullmatch(folder.casefold()))


def is_image(name: str, suffixes: Set[str] = IMAGE_SUFFIXES) -> bool:
    """Returns whether a file name is that of an image."""
    return PurePath(name).suffix.lower() in suffixes and not name.startswith(".")


def posix_text(path: PurePath) -> str:
    """Returns a path on disk as text.

    Raises:
        DataError: The path is not in UTF-8, so that no table can hold it.
    """
    text = path.as_posix()
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"a file name must be in UTF-8, but {text!r} is not: rename the file or its folder") from error
    return text


def paths_of(root: Path, names: Sequence[str]) -> list[str | None]:
    """Returns the path of each image in a table, relative to `root` if it is below it; None if no file exists.

    A path in the table may lack its suffix, have spaces around it, or use the separators of Windows.
    """
    listings: dict[Path, set[str]] = {}
    return [_path_of(root, name, listings) for name in names]


def _path_of(root: Path, name: str, listings: dict[Path, set[str]]) -> str | None:
    for spelling in dict.fromkeys((name, name.strip(), name.strip().replace("\\", "/"))):
        if not spelling or "\0" in spelling:
            continue
        path = root / spelling
        if os.path.isfile(path):  # unlike Path.is_file, it accepts a name that is too long
            return _relative(path, root)
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            if path.parent not in listings:
                listings[path.parent] = set(os.listdir(path.parent)) if os.path.isdir(path.parent) else set()
            suffixes = (form for suffix in sorted(IMAGE_SUFFIXES) for form in (suffix, suffix.upper()))
            matches = [path.name + suffix for suffix in suffixes if path.name + suffix in listings[path.parent]]
            if len(matches) > 1:
                raise DataError(
                    f"an image must be one file, but {name!r} is {matches[0]} and also {matches[1]} in {path.parent}: "
                    "write the suffix into the table"
                )
            if matches:
                return _relative(path.with_name(matches[0]), root)
    return None


def _relative(path: Path, root: Path) -> str:
    """Returns the path relative to the root if it is below it, so that a copy elsewhere has the same digest."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
