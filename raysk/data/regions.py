"""The place of the lesion in each picture: a mask or a box, checked against the picture and scaled with it.

A manifest names them in attributes: "mask" is the path of a picture of the same size that is bright on the lesion, and
"x0", "y0", "x1", "y1" are the first column and row of a box and those beside and below it, in pixels of the picture.
"""

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from math import isfinite
from os import cpu_count
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from raysk.data.decodable import UNREADABLE, check_decodable, depth_of, in_eight_bits, open_image, upright, upright_size
from raysk.data.manifest import Manifest
from raysk.errors import DataError

MASK = "mask"
BOX = ("x0", "y0", "x1", "y1")
# A mask whose levels are few and small names classes: 0, 1, 2. The soft edge of a mask has levels up to 255.
_MOST_CLASS = 15
_UNKNOWN = frozenset({"", "nan", "null", "none", "<na>", "n/a", "na"})

Pixels = npt.NDArray[np.uint8]
Made = TypeVar("Made")

logger = logging.getLogger(__name__)


class Box(NamedTuple):
    """A box in pixels; right and bottom are the first column and row beside and below it."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True)
class Region:
    """What a manifest says of the place of the lesion in one picture.

    Args:
        picture: The file of the picture.
        mask: The file of its mask; None if there is none.
        box: The box around the lesion; None if it is not known.
    """

    picture: Path
    mask: Path | None = None
    box: Box | None = None


@dataclass(frozen=True, eq=False)
class ScaledRegion:
    """A region at the size of an image store, in which the picture is cropped to its centre.

    Args:
        mask: (size, size), 255 on the lesion and 0 elsewhere; None without a mask, or if it is empty.
        box: The part of the box in the square; None without a box, or if no part of it is there.
    """

    mask: Pixels | None
    box: Box | None


def read_regions(manifest: Manifest) -> list[Region]:
    """Returns the region of each row.

    Raises:
        DataError: A cell of a box is not a number.
    """
    try:
        return regions_of(manifest)
    except ValueError as error:
        raise DataError(f"the boxes must be in columns of numbers, but {error}: correct the table") from error


def state_of(path: Path | None) -> list[Any] | None:
    """Returns name, length and time of a file, by which a changed one is known; None without a file."""
    if path is None:
        return None
    try:
        status = path.stat()
        return [path.name, status.st_size, status.st_mtime_ns]
    except OSError:
        return [path.name, None, None]


@cache
def rows_with(manifest: Manifest, kind: str) -> npt.NDArray[np.bool_]:
    """Returns which rows name a "mask" or a "box", (N,)."""
    names = (MASK,) if kind == MASK else BOX
    columns = [[bool(_text(value)) for value in _column(manifest, name)] for name in names]
    return np.asarray(np.array(columns, dtype=bool).all(axis=0), dtype=np.bool_)


def regions_of(manifest: Manifest) -> list[Region]:
    """Returns the region of each row.

    Raises:
        ValueError: A cell of a box is not a number.
    """
    masks = [_text(value) for value in _column(manifest, MASK)]
    boxes = zip(*(_column(manifest, name) for name in BOX), strict=True)
    return [
        Region(picture, manifest.root / mask if mask else None, _box(cells))
        for picture, mask, cells in zip(manifest.paths, masks, boxes, strict=True)
    ]


def made_of_each(
    regions: Sequence[Region],
    make: Callable[[Region], Made],
    on_error: str,
    progress: Callable[[int, int], None] | None = None,
) -> list[Made | None]:
    """Returns what a function makes of each region, in threads; None for one that does not fit its picture.

    Args:
        regions: The regions of the rows.
        make: Raises an error of `UNREADABLE`, whose first line says why, if a region does not fit.
        on_error: How to handle that: "refuse" it, or "skip" it with a warning.
        progress: Called with the number of rows done and the total.

    Raises:
        DataError: A region does not fit its picture and `on_error` is "refuse".
    """

    def attempt(region: Region) -> tuple[Made | None, str]:
        try:
            return make(region), ""
        except UNREADABLE as error:
            return None, str(error).partition("\n")[0]

    made, bad = [], []
    with ThreadPoolExecutor(cpu_count()) as pool:
        for row, (result, reason) in enumerate(pool.map(attempt, regions)):
            made.append(result)
            bad += [f"row {row} ({regions[row].picture.name}): {reason}"] * bool(reason)
            if progress is not None:
                progress(row + 1, len(regions))
    if bad and on_error == "refuse":
        raise DataError(
            f"every mask and box must fit its picture, but {bad[0]} ({len(bad)} in all): correct them, blank their "
            "cells, or set data.on_error=skip"
        )
    if bad:
        logger.warning("left out the regions of %d rows that do not fit their pictures, first %s", len(bad), bad[0])
    return made


def scaled_region(region: Region, size: int) -> ScaledRegion:
    """Returns the region of a picture at a size, scaled and cropped as the picture itself is.

    Raises:
        ValueError: The mask or the box does not fit the picture; the message says why.
        OSError: The picture or its mask cannot be read.
    """
    if region.mask is None and region.box is None:
        return ScaledRegion(None, None)
    with open_image(region.picture) as image:
        width, height = upright_size(image)
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    mask = None
    if region.mask is not None:
        whole = read_mask(region.mask, (width, height))
        scaled = whole.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))
        mask = np.where(np.asarray(scaled) > 127, 255, 0).astype(np.uint8)
    box = None
    if region.box is not None:
        check_box(region.box, width, height)
        scale = size / side
        edges = zip(region.box, (left, top, left, top), strict=True)
        box = Box(*(min(max((edge - start) * scale, 0.0), float(size)) for edge, start in edges))
    is_inside = box is not None and box.left < box.right and box.top < box.bottom
    return ScaledRegion(mask if mask is not None and mask.any() else None, box if is_inside else None)


def box_of(mask: Pixels) -> Box | None:
    """Returns the smallest box around a mask (H, W); None for an empty one."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    return Box(float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))


def _column(manifest: Manifest, name: str) -> list[Any]:
    known = name in manifest.attributes
    return manifest.table.column(name).to_pylist() if known else [None] * len(manifest)


def _text(value: Any) -> str:
    text = "" if value is None else str(value).strip()
    return "" if text.casefold() in _UNKNOWN else text


def _box(cells: tuple[Any, ...]) -> Box | None:
    texts = [_text(cell) for cell in cells]
    if not any(texts):
        return None
    if not all(texts):
        raise ValueError(f"a box must have four edges, but got {' '.join(text or '(blank)' for text in texts)}")
    edges = [float(text) for text in texts]
    if not all(map(isfinite, edges)):
        raise ValueError(f"the edges of a box must be numbers, but got {' '.join(texts)}")
    return Box(*edges)


def check_box(box: Box, width: int, height: int) -> None:
    """Refuses a box that is not in its picture of this size.

    Raises:
        ValueError: It is reversed, in shares of the picture, or beside it.
    """
    shown = " ".join(f"{edge:g}" for edge in box)
    if box.left >= box.right or box.top >= box.bottom:
        raise ValueError(f"x0 and y0 of a box must be less than x1 and y1, but got {shown}")
    if max(box) <= 1 and max(width, height) > 1:
        raise ValueError(f"a box must be in pixels, but {shown} is in shares of the picture")
    if box.right <= 0 or box.bottom <= 0 or box.left >= width or box.top >= height:
        raise ValueError(f"a box must be in its picture of {width} by {height} pixels, but is {shown}")


def read_mask(path: Path, size: tuple[int, int]) -> Image.Image:
    """Returns a mask with levels 0 and 255, upright; a soft edge between them is cut in the middle.

    Args:
        path: The file.
        size: Width and height of its picture.

    Raises:
        ValueError: The mask has another size, or several classes.
    """
    with open_image(path) as image:
        check_decodable(image)
        depth = depth_of(image)
        grey = np.asarray(in_eight_bits(upright(image), depth).convert("L"))
    if grey.shape[::-1] != size:
        raise ValueError(f"a mask must have the size of its picture, {size[0]} by {size[1]}, but has "
                         f"{grey.shape[1]} by {grey.shape[0]}")  # fmt: skip
    levels = np.unique(grey)
    if len(levels) > 2 and levels[-1] <= _MOST_CLASS:
        raise ValueError(f"a mask must be of one lesion, but has the classes {', '.join(map(str, levels.tolist()))}")
    highest = max(int(levels[-1]), 1)
    return Image.fromarray(np.where(grey.astype(np.uint16) * 2 > highest, 255, 0).astype(np.uint8))
