"""The crop: the part of each picture that a recipe sees, around the lesion or all of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np

from raysk.data.decodable import open_image, upright_size
from raysk.data.manifest import Manifest
from raysk.data.regions import Region, box_of, check_box, made_of_each, read_mask, read_regions, state_of
from raysk.settings import Between, Settings


@dataclass(frozen=True, kw_only=True)
class Crop(Settings):
    """The part of a picture that the network sees, in training and at test time.

    Args:
        region: "none" sees the square in the middle of the picture. "box" and "mask" see the square around the box of
            the table or around the mask; a picture without one is seen as with "none".
        margin: How far the square reaches beyond the lesion on each side, as a share of the lesion's longer side.
    """

    region: Literal["none", "box", "mask"] = "none"
    margin: Annotated[float, Between(0, 10)] = 0.1

    @property
    def name(self) -> str:
        """A short name, "" without a crop."""
        return "" if self.region == "none" else f"{self.region} + {self.margin:g}"


class Window(NamedTuple):
    """A square in an upright picture, in its pixels."""

    left: int
    top: int
    side: int


def crop_facts(manifest: Manifest, crop: Crop) -> dict[str, Any]:
    """Returns what the windows of a crop depend on, for the key of a store; empty without a crop."""
    if crop.region == "none":
        return {}
    places = [state_of(r.mask) if crop.region == "mask" else r.box for r in read_regions(manifest)]
    return {"crop": crop.name, "lesions": places}


def windows_of(manifest: Manifest, crop: Crop, on_error: str = "refuse") -> list[Window | None]:
    """Returns the window of each row; None for the square in the middle.

    Raises:
        DataError: A mask or a box does not fit its picture and `on_error` is "refuse".
    """
    if crop.region == "none":
        return [None] * len(manifest)
    return made_of_each(read_regions(manifest), partial(window_of, crop=crop), on_error)


def window_of(region: Region, crop: Crop) -> Window | None:
    """Returns the window of a picture, within it; None if its lesion is not known.

    Raises:
        ValueError: The mask or the box does not fit the picture.
        OSError: The picture or its mask cannot be read.
    """
    if (region.mask if crop.region == "mask" else region.box) is None:
        return None
    with open_image(region.picture) as image:
        width, height = upright_size(image)
    if crop.region == "mask" and region.mask is not None:
        box = box_of(np.asarray(read_mask(region.mask, (width, height))))
    else:
        box = region.box
    if box is None:
        return None
    check_box(box, width, height)
    longer = max(box.right - box.left, box.bottom - box.top)
    side = max(1, min(width, height, round(longer * (1 + 2 * crop.margin))))
    left = round((box.left + box.right - side) / 2)
    top = round((box.top + box.bottom - side) / 2)
    return Window(min(max(left, 0), width - side), min(max(top, 0), height - side), side)


def as_plain(windows: Sequence[Window | None]) -> tuple[Window | None, ...]:
    """Returns windows for a chunk; empty if all are None."""
    return tuple(windows) if any(window is not None for window in windows) else ()
