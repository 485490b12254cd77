"""The rows of an audit, read from a manifest or from the lists of a given split."""

import filecmp
import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from raysk.data.audit.lists import ImageList, read_list
from raysk.data.audit.ties import column_of, divided, with_equal_names
from raysk.data.manifest import Manifest
from raysk.data.sources.base import IMAGE_SUFFIXES
from raysk.data.sources.files import image_files
from raysk.data.sources.groups import GROUP
from raysk.errors import DataError

# Models learn from the earlier of two parts, so rows of the later part leak.
_EARLIER_FIRST = ("unlabelled", "train_only", "train", "training", "folds", "val", "valid", "validation", "dev", "test")


@dataclass(frozen=True, eq=False)
class Entries:
    """N rows to audit.

    Attributes:
        images: The image of each row, as its list writes it.
        names: The normalised name of each image, which identifies it.
        parts: The part of each row.
        labels: The label of each row, "" where unknown.
        ties: Columns that tie rows together, such as the lesion: a value for each row, "" where unknown.
        paths: The file of each row, None where unknown.
        attributes: Further columns, which may be shortcuts.
        folded: Whether raysk will divide the rows into folds, so that near-duplicates must share a "group".
        matched: Number of rows that --metadata and --images match, by option; empty without these options.
        grouped_by: What the groups of folded rows are made of, by table.
        bits: The depth of pictures of 16 bits a pixel whose files state none.
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
    grouped_by: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    bits: int | None = None

    def __len__(self) -> int:
        return len(self.images)

    def leaves_out(self, row: int) -> bool:
        """Returns whether raysk keeps a row away from its like by itself: the unlabelled rows of a collection."""
        return self.folded and self.parts[row] == "unlabelled"

    @property
    def part_names(self) -> list[str]:
        """The parts, training parts first."""
        places = {name: place for place, name in enumerate(_EARLIER_FIRST)}
        return sorted(dict.fromkeys(self.parts), key=lambda part: places.get(part.lower(), len(places) - 1.5))


def entries_of(manifest: Manifest) -> Entries:
    """Returns the rows of a manifest: each role is a part, and rows without a role are the part "folds"."""
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
        grouped_by=manifest.grouped_by or {"": (GROUP,) if manifest.grouped else ()},
        bits=manifest.bits,
    )


def read_split(lists: Mapping[str, Path], images: Path | None = None, metadata: Path | None = None) -> Entries:
    """Reads the lists of a split.

    A list is a table (separated by , ; | or tab) with a column of images under one of the usual names. It may have a
    column of labels, or one 0/1 column for each class. Or it is a text file with an image and an optional label on each
    line. Names are compared in lower case without folder and suffix; folders are kept if two images of a list would
    otherwise have the same name. Images of one name are distinct if all their files exist and differ in their bytes.
    Columns of lesions, patients and groups, which are known by their names, tie rows together.

    Args:
        lists: The file of each part.
        images: A folder to search for the files at any depth; without it, a list gives the path of each file.
        metadata: A table with the lesion, patient, label and attributes of each image. Its values replace those of the
            lists, but its labels only fill in missing ones.

    Raises:
        DataError: A file cannot be read, a list has no column of images or no rows, two files or two metadata rows
            have one name, the folder or the metadata has none of the images, or a path leaves its folder.
    """
    paths = [*lists.values(), *([] if metadata is None else [metadata])]
    *listed, last = with_equal_names([read_list(path) for path in paths])
    tables = dict(zip(lists, [*listed, last], strict=False))
    for part, table in tables.items():
        if not table.images:
            raise DataError(f"a list must name images, but {lists[part]} names none: give the list of {part!r}")
    depth = _depth([table.images for table in tables.values()])
    written = [image for table in tables.values() for image in table.images]
    names = [normalised(image, depth) for image in written]
    parts = [part for part, table in tables.items() for _ in table.images]
    labels = [label for table in tables.values() for label in table.labels]
    columns = _concatenated(tables.values())
    matched = {}
    if metadata is not None:
        table = last
        rows = _metadata_rows(names, table, metadata)
        matched["--metadata"] = len(rows) - rows.count(None)
        labels = [label or ("" if row is None else table.labels[row]) for label, row in zip(labels, rows, strict=True)]
        for name in table.columns:
            values = column_of(table, name)
            known = columns.get(name, [""] * len(names))
            columns[name] = [v if row is None else values[row] or v for v, row in zip(known, rows, strict=True)]
    ties, attributes = divided(columns)
    files = _named_files(tables, lists) if images is None else find_files(written, images)
    if images is not None:
        matched["--images"] = len(files) - files.count(None)
    names = _distinct_names(names, files)
    return Entries(written, names, parts, labels, ties, files, {**attributes}, matched=matched)


def normalised(image: str, depth: int = 1) -> str:
    """Returns the last `depth` parts of a path in lower case, without the suffix and surrounding spaces."""
    # An accented letter may be one character or two: file systems and tables differ in this.
    path = PurePosixPath(unicodedata.normalize("NFC", image.strip().replace("\\", "/")))
    stem = path.with_suffix("") if path.suffix.lower() in IMAGE_SUFFIXES else path
    return "/".join(part.strip() for part in stem.parts[-depth:]).lower()


def _depth(lists: Sequence[Sequence[str]]) -> int:
    """Returns the number of path parts that distinguish the images of each list."""
    for depth in range(1, 8):
        if all(
            len({normalised(image, depth) for image in images}) == len({normalised(image, 99) for image in images})
            for images in lists
        ):
            return depth
    return 8


def _concatenated(tables: Iterable[ImageList]) -> dict[str, list[str]]:
    """Concatenates the columns of all lists."""
    tables = list(tables)
    names = dict.fromkeys(name for table in tables for name in table.columns)
    return {name: [value for table in tables for value in column_of(table, name)] for name in names}


def _metadata_rows(names: Sequence[str], table: ImageList, path: Path) -> list[int | None]:
    """Returns the metadata row of each name, None without one."""
    row_of_name: dict[str, int] = {}
    for row, image in enumerate(table.images):
        name = normalised(image)
        if name in row_of_name and _facts(table, row) != _facts(table, row_of_name[name]):
            raise DataError(
                f"an image must have one row of metadata, but {image!r} has rows {row_of_name[name]} and {row} of "
                f"{path}, which differ: remove one"
            )
        row_of_name.setdefault(name, row)
    rows = [row_of_name.get(name.rpartition("/")[2]) for name in names]
    if not any(row is not None for row in rows):
        raise DataError(
            f"--metadata must contain images of the lists, but {path} has none of the {len(names)} "
            f"({names[0]!r}, ...): give the table of this collection, or leave --metadata out"
        )
    return rows


def _facts(table: ImageList, row: int) -> list[str]:
    return [table.labels[row], *(values[row] for values in table.columns.values())]


def _distinct_names(names: Sequence[str], files: Sequence[Path | None]) -> list[str]:
    """Makes the names of different images distinct if all rows of a name have files and these differ in their bytes."""
    rows_of_name = defaultdict(list)
    for row, name in enumerate(names):
        rows_of_name[name].append(row)
    distinct_names = list(names)
    for name, rows in rows_of_name.items():
        file_of_row = {row: file for row in rows if (file := files[row]) is not None}
        paths = list(dict.fromkeys(file_of_row.values()))
        if len(paths) > 1 and len(file_of_row) == len(rows):
            for row, file in file_of_row.items():
                distinct_names[row] = f"{name}\0{next(path for path in paths if _same_bytes(path, file))}"
    return distinct_names


def _same_bytes(file: Path, other: Path) -> bool:
    try:
        return file == other or filecmp.cmp(file, other, shallow=False)
    except OSError:  # without its bytes, a file has only its name
        return True


def _named_files(tables: Mapping[str, ImageList], lists: Mapping[str, Path]) -> list[Path | None]:
    """Returns the files that the lists name, relative to the lists, None for files that do not exist."""
    files: list[Path | None] = []
    for part, table in tables.items():
        for row, image in enumerate(table.images):
            if ".." in PurePosixPath(image.replace("\\", "/")).parts:
                raise DataError(
                    f"a path must not leave the folder of its list, but {image!r} in row {row} of {lists[part]} does: "
                    "write an absolute path, or give the folder of the images with --images"
                )
            candidates = (lists[part].parent / text for text in (image, image.replace("\\", "/")))
            files.append(next((file for file in candidates if os.path.isfile(file)), None))
    return files


def find_files(images: Sequence[str], folder: Path) -> list[Path | None]:
    """Finds the file of each image in a folder, at any depth; returns None for images without one.

    Raises:
        DataError: The folder does not exist or has none of the images, or two files match an image equally well.
    """
    if not folder.is_dir():
        raise DataError(f"--images must be a folder, but {folder} is not: correct it")
    by_name: dict[str, list[Path]] = {}
    for file in image_files(folder):
        by_name.setdefault(normalised(file.name), []).append(folder / file)
    files = [_best_file(image, by_name.get(normalised(image), [])) for image in images]
    if not any(files):
        raise DataError(
            f"--images must contain images of the lists, but {folder} has none of the {len(images)} "
            f"({images[0]!r}, ...): give the folder of this collection, or leave --images out"
        )
    return files


def _best_file(image: str, files: Sequence[Path]) -> Path | None:
    """Returns the file whose path has the longest common end with that of the image."""
    if len(files) < 2:
        return files[0] if files else None
    wanted = PurePosixPath(image.strip().replace("\\", "/").lower()).parts[::-1]
    agreeing = [_num_agreeing(wanted, tuple(part.lower() for part in file.parts[::-1])) for file in files]
    best = max(agreeing)
    if agreeing.count(best) > 1:
        first, second = [file for file, number in zip(files, agreeing, strict=True) if number == best][:2]
        raise DataError(
            f"an image must match one file, but {image!r} may be {first} or {second}: give --images a folder with only "
            "one of them, or write suffixes into the list"
        )
    return files[agreeing.index(best)]


def _num_agreeing(parts: Sequence[str], others: Sequence[str]) -> int:
    """Returns the number of leading parts that are equal."""
    differing = (place for place, (part, other) in enumerate(zip(parts, others, strict=False)) if part != other)
    return next(differing, min(len(parts), len(others)))
