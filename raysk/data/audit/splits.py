"""The rows of an audit: those of a manifest, or of the lists by which somebody has divided a collection."""

import filecmp
import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from raysk.data.audit.lists import ImageList, read_list
from raysk.data.manifest import Manifest
from raysk.data.sources.base import IMAGE_SUFFIXES, known
from raysk.data.sources.files import image_files
from raysk.errors import DataError

TIE_COLUMNS = ("lesion_id", "lesion", "patient_id", "patient", "subject_id", "group", "cluster")
# Of two parts, rows of the later one are the ones that leak: models learn from the earlier one.
_EARLIER_FIRST = ("train_only", "train", "training", "folds", "val", "valid", "validation", "dev", "test")


@dataclass(frozen=True, eq=False)
class Entries:
    """N rows that are to be audited.

    Attributes:
        images: The image of each row, as its list has it.
        names: What tells images apart: the normalised name.
        parts: The part of each row.
        labels: The label of each row, "" where unknown.
        ties: What ties rows together, such as the lesion, by column: a value for each row, "" where unknown.
        paths: The file of each row, None where unknown.
        attributes: Further columns, which may give a label away.
        folded: Whether raysk is to divide the rows into folds, so that like pictures must be in one "group".
        matched: For how many rows the metadata, and the folder of images, had something; empty where not asked.
    """

    images: list[str]
    names: list[str]
    parts: list[str]
    labels: list[str]
    ties: dict[str, list[str]]
    paths: list[Path | None]
    attributes: dict[str, Sequence[Any]] = field(default_factory=dict)
    folded: bool = False
    matched: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def part_names(self) -> list[str]:
        """The parts, those that models learn from first."""
        known = {name: place for place, name in enumerate(_EARLIER_FIRST)}
        return sorted(dict.fromkeys(self.parts), key=lambda part: known.get(part.lower(), len(known) - 1.5))


def entries_of(manifest: Manifest) -> Entries:
    """Returns the rows of a manifest; its roles are parts, and the rows without a role are the part "folds"."""
    images = manifest.table.column("image").to_pylist()
    return Entries(
        images=images,
        names=images,
        parts=[role or "folds" for role in manifest.roles],
        labels=manifest.table.column("label").to_pylist(),
        ties={"group": manifest.table.column("group").to_pylist()},
        paths=list(manifest.paths),
        attributes={name: manifest.table.column(name).to_pylist() for name in manifest.attributes},
        folded=True,
    )


def read_split(lists: Mapping[str, Path], images: Path | None = None, metadata: Path | None = None) -> Entries:
    """Reads the lists of a split.

    A list is a table (any of , ; | and tab) with a column of images, which has one of the usual names, and perhaps
    one of labels or one 0/1 column for each class; or a text with an image on each line, and perhaps a label behind it.
    Names are compared without folder and suffix, and in lower case; folders are kept where two images of a list
    would have the same name otherwise. Names whose files are all there and differ in their bytes are told apart.

    Args:
        lists: The file of each part.
        images: A folder in which files of these names are looked for, at any depth; without it, files are taken
            where a list says that they are, if they are there.
        metadata: A table with what is known of each image: lesion, patient, label, attributes. What it does not know
            is taken from the lists.

    Raises:
        DataError: A file cannot be read, a list has no column of images or no rows, two files or two metadata rows
            have one name, the folder or the metadata has none of the images, or a path leaves its folder.
    """
    tables = {part: read_list(path) for part, path in lists.items()}
    for part, table in tables.items():
        if not table.images:
            raise DataError(f"a list must name images, but {lists[part]} names none: give the list of {part!r}")
    depth = _depth([table.images for table in tables.values()])
    written = [image for table in tables.values() for image in table.images]
    names = [normalised(image, depth) for image in written]
    parts = [part for part, table in tables.items() for _ in table.images]
    labels = [label for table in tables.values() for label in table.labels]
    ties = _spread(tables.values(), ties=True)
    attributes: dict[str, Sequence[Any]] = dict(_spread(tables.values(), ties=False))
    matched = {}
    if metadata is not None:
        table = read_list(metadata)
        places = _places(names, table, metadata)
        matched["--metadata"] = len(places) - places.count(None)
        labels = [label or ("" if at is None else table.labels[at]) for label, at in zip(labels, places, strict=True)]
        for name in table.columns:
            values = _column(table, name)
            columns = ties if name.lower() in TIE_COLUMNS else attributes
            own = columns.get(name, [""] * len(names))
            columns[name] = [one if at is None else values[at] or one for one, at in zip(own, places, strict=True)]
    files = _named_files(tables, lists) if images is None else find_files(written, images)
    if images is not None:
        matched["--images"] = len(files) - files.count(None)
    names = _told_apart(names, files)
    return Entries(written, names, parts, labels, ties, files, attributes, matched=matched)


def normalised(image: str, depth: int = 1) -> str:
    """Returns the last `depth` parts of a path in lower case, without the suffix and without spaces around."""
    # One accent may be one character or two: file systems and tables differ in it.
    path = PurePosixPath(unicodedata.normalize("NFC", image.strip().replace("\\", "/")))
    stem = path.with_suffix("") if path.suffix.lower() in IMAGE_SUFFIXES else path
    return "/".join(part.strip() for part in stem.parts[-depth:]).lower()


def _depth(lists: Sequence[Sequence[str]]) -> int:
    """Returns how many parts of the paths it takes to tell the images of each list apart."""
    for depth in range(1, 8):
        if all(len({normalised(i, depth) for i in one}) == len({normalised(i, 99) for i in one}) for one in lists):
            return depth
    return 8


def _spread(tables: Iterable[ImageList], ties: bool) -> dict[str, list[str]]:
    """Returns columns of all lists, one list behind another: those that tie rows together, or the others."""
    tables = list(tables)
    names = dict.fromkeys(name for table in tables for name in table.columns)
    return {
        name: [value for table in tables for value in _column(table, name)]
        for name in names
        if (name.lower() in TIE_COLUMNS) == ties
    }


def _column(table: ImageList, name: str) -> list[str]:
    """Returns a column of a list; of those that tie rows together, only what is a value."""
    values = table.columns.get(name, [""] * len(table.images))
    return [_tie(value) for value in values] if name.lower() in TIE_COLUMNS else values


def _tie(value: str) -> str:
    # Unlike a class, no lesion is called "none": it is what Python writes of one that is not known.
    return "" if value.strip().casefold() == "none" else known(value)


def _places(names: Sequence[str], table: ImageList, path: Path) -> list[int | None]:
    """Returns the row of the metadata that each name has, if any."""
    rows: dict[str, int] = {}
    for row, image in enumerate(table.images):
        name = normalised(image)
        if name in rows and _facts(table, row) != _facts(table, rows[name]):
            raise DataError(
                f"an image must have one row of metadata, but {image!r} has rows {rows[name]} and {row} of {path}, "
                "which differ: remove one"
            )
        rows.setdefault(name, row)
    places = [rows.get(name.rpartition("/")[2]) for name in names]
    if not any(place is not None for place in places):
        raise DataError(
            f"--metadata must know images of the lists, but {path} has none of the {len(names)} "
            f"({names[0]!r}, ...): give the table of this collection, or leave --metadata out"
        )
    return places


def _facts(table: ImageList, row: int) -> list[str]:
    return [table.labels[row], *(values[row] for values in table.columns.values())]


def _told_apart(names: Sequence[str], files: Sequence[Path | None]) -> list[str]:
    """Returns the names, made different where all rows of a name have files and these differ in their bytes."""
    rows = defaultdict(list)
    for row, name in enumerate(names):
        rows[name].append(row)
    told = list(names)
    for name, same in rows.items():
        own = {row: file for row in same if (file := files[row]) is not None}
        distinct = list(dict.fromkeys(own.values()))
        if len(distinct) > 1 and len(own) == len(same):
            for row, file in own.items():
                told[row] = f"{name}\0{next(one for one in distinct if _same_bytes(one, file))}"
    return told


def _same_bytes(one: Path, other: Path) -> bool:
    try:
        return one == other or filecmp.cmp(one, other, shallow=False)
    except OSError:  # of a file that cannot be read, only the name is known
        return True


def _named_files(tables: Mapping[str, ImageList], lists: Mapping[str, Path]) -> list[Path | None]:
    """Returns the files that the lists name, relative to themselves, where they are there."""
    files: list[Path | None] = []
    for part, table in tables.items():
        for row, image in enumerate(table.images):
            if ".." in PurePosixPath(image.replace("\\", "/")).parts:
                raise DataError(
                    f"a path must not leave the folder of its list, but {image!r} in row {row} of {lists[part]} does: "
                    "write it in full, or name the folder of the images with --images"
                )
            spelled = (lists[part].parent / one for one in (image, image.replace("\\", "/")))
            files.append(next((file for file in spelled if os.path.isfile(file)), None))
    return files


def find_files(images: Sequence[str], folder: Path) -> list[Path | None]:
    """Returns for each image the file of its name in a folder, at any depth, or None.

    Raises:
        DataError: The folder is not there or has none of the images, or two files have an image's name.
    """
    if not folder.is_dir():
        raise DataError(f"--images must be a folder, but {folder} is none: correct it")
    by_name: dict[str, list[Path]] = {}
    for file in image_files(folder):
        by_name.setdefault(normalised(file.name), []).append(folder / file)
    files = [_best_file(image, by_name.get(normalised(image), [])) for image in images]
    if not any(files):
        raise DataError(
            f"--images must hold images of the lists, but {folder} has a file for none of the {len(images)} "
            f"({images[0]!r}, ...): name the folder of this collection, or leave --images out"
        )
    return files


def _best_file(image: str, files: Sequence[Path]) -> Path | None:
    """Returns the file whose path agrees with the most of the image's, from its end."""
    if len(files) < 2:
        return files[0] if files else None
    wanted = PurePosixPath(image.strip().replace("\\", "/").lower()).parts[::-1]
    agreeing = [_num_agreeing(wanted, tuple(part.lower() for part in file.parts[::-1])) for file in files]
    best = max(agreeing)
    if agreeing.count(best) > 1:
        one, other = [file for file, number in zip(files, agreeing, strict=True) if number == best][:2]
        raise DataError(
            f"one file must have the name of an image, but {image!r} may be {one} or {other}: name a folder with "
            "--images that has only one of them, or write suffixes into the list"
        )
    return files[agreeing.index(best)]


def _num_agreeing(one: Sequence[str], other: Sequence[str]) -> int:
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
