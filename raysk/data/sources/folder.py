"""A user's own folder of class folders."""

import logging
import os
from pathlib import Path, PurePath

from raysk.data.sources.base import IMAGE_SUFFIXES, Collection, number_of, register_source, required_path
from raysk.data.sources.files import (
    FOREIGN_SUFFIXES,
    holds_all_images,
    holds_masks,
    image_files,
    is_image,
    is_mask,
    posix_text,
    visible_folders,
)
from raysk.data.sources.parts import are_parts
from raysk.data.sources.settings import DataSettings
from raysk.errors import DataError

logger = logging.getLogger(__name__)


@register_source("folder", reads=("path", "role"))
def read_folder(settings: DataSettings, cache: Path) -> Collection:
    """Reads a folder with one folder of images per class; each image is its own group.

    With data.role=unlabelled, the images may lie anywhere below it.
    """
    root = required_path(settings, "a folder")
    if not root.is_dir():
        raise DataError(f"data.path must be a folder of class folders, but {root} is not a folder: correct data.path")
    if settings.role == "unlabelled":
        images = unlabelled_images(root)
        return Collection(origin=root.name, root=root, names=images, images=images, labels=[""] * len(images))
    names = [folder.name for folder in visible_folders(root)]
    if are_parts(names):
        raise DataError(
            f"each folder in {root} must be a class, but {', '.join(names)} are named as parts: use data=hf, which "
            "reads parts, or give the classes other names"
        )
    classes = [name for name in names if not holds_masks(name)]
    if classes and all(holds_all_images(name) for name in classes):
        raise DataError(
            f"each folder in {root} must be a class, but {', '.join(classes)} seems to hold the images of all classes: "
            "use data=csv with the table of labels as data.path, or give the folders the names of classes"
        )
    images, labels = class_folders(root)
    return Collection(origin=root.name, root=root, names=images, images=images, labels=labels)


def unlabelled_images(root: Path) -> list[str]:
    """Returns the images at any depth below a folder, relative to it, without masks.

    Raises:
        DataError: There is none.
    """
    paths = [path for path in image_files(root) if not is_mask(path)]
    if not paths:
        raise DataError(f"data.path must be a folder with images, but {root} holds none: correct data.path")
    return [posix_text(path) for path in paths]


def class_folders(root: Path) -> tuple[list[str], list[str]]:
    """Returns the images of the class folders in a folder, relative to it, and the class of each.

    Raises:
        DataError: A folder has no image, or a name is not in UTF-8.
    """
    warn_of_loose_images(root)
    images: list[str] = []
    labels: list[str] = []
    foreign: list[PurePath] = []
    for folder in visible_folders(root):
        if holds_masks(folder.name):
            logger.warning("%s: left out the folder %r, which holds masks by its name", root, folder.name)
            continue
        files = [folder.name / path for path in image_files(folder, IMAGE_SUFFIXES | FOREIGN_SUFFIXES)]
        foreign += [path for path in files if not is_image(path.name)]
        paths = [posix_text(path) for path in files if is_image(path.name)]
        if not paths:
            raise DataError(
                f"each folder in {root} must be a class with images, but {folder.name!r} holds none: "
                "add images or remove the folder"
            )
        images += paths
        labels += [folder.name] * len(paths)
    if foreign:
        formats = ", ".join(sorted({path.suffix.lower() for path in foreign}))
        logger.warning(
            "%s: left out %s of formats that raysk does not read (%s), first %r: convert them to PNG",
            root, number_of(len(foreign), "image"), formats, foreign[0].as_posix(),
        )  # fmt: skip
    return images, labels


def warn_of_loose_images(root: Path) -> None:
    """Warns of images beside the folders of classes or parts, which belong to none of them."""
    loose = sorted(name for name in os.listdir(root) if is_image(name, IMAGE_SUFFIXES | FOREIGN_SUFFIXES))
    if loose:
        logger.warning(
            "%s: left out %s outside the class folders, first %r", root, number_of(len(loose), "image"), loose[0]
        )
