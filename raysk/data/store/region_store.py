"""The region store: the masks and boxes of a manifest at one size, beside its image store.

masks.npy       (N, size, size), uint8: 255 on the lesion; 0 everywhere in a row without a mask
boxes.npy       (N, 4), float32: left, top, right, bottom; NaN in a row without a box
store.json      the digest of both, and the rows whose region cannot be used
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from raysk.artifacts import digest_of, locked, read_json, replacing, write_json
from raysk.data.manifest import Manifest
from raysk.data.regions import Region, ScaledRegion, made_of_each, read_regions, scaled_region, state_of
from raysk.data.store.shared_stores import fetch, publish
from raysk.errors import ArtifactError, DataError

FORMAT_VERSION = 1
FILES = ("masks.npy", "boxes.npy", "store.json")  # the last one marks the others as complete


class RegionStore:
    """Masks and boxes in the order of the rows of a manifest; pickled as its path.

    Attributes:
        folder: The folder of the store.
        masks: (N, size, size), uint8, 255 on the lesion; read-only and mapped from the file.
        boxes: (N, 4), float32; NaN in a row without a box.
        digest: The digest of both.
    """

    def __init__(self, folder: Path, masks: npt.NDArray[np.uint8], boxes: npt.NDArray[np.float32], digest: str) -> None:
        self.folder, self.masks, self.boxes, self.digest = folder, masks, boxes, digest

    def __len__(self) -> int:
        return len(self.boxes)

    def __reduce__(self) -> tuple[Any, ...]:
        return RegionStore.open, (self.folder,)

    @classmethod
    def open(cls, folder: Path) -> "RegionStore":
        """Maps a store that `build_regions` wrote.

        Raises:
            ArtifactError: The folder is not a complete store.
        """
        header = read_json(folder / "store.json")
        try:
            masks = np.load(folder / "masks.npy", mmap_mode="r", allow_pickle=False)
            boxes = np.load(folder / "boxes.npy", allow_pickle=False)
            if masks.shape != (len(boxes), header["size"], header["size"]):
                raise ValueError(f"its masks have the shape {masks.shape}")
        except (OSError, EOFError, ValueError, KeyError) as error:
            raise ArtifactError(f"{folder} must be a region store, but {error}: remove the folder") from error
        return cls(folder, masks, boxes, header["digest"])

    @property
    def key(self) -> str:
        """The key of the store on any machine."""
        return self.folder.name.removeprefix("regions-")


class StoredMasks(Mapping[int, npt.NDArray[np.uint8]]):
    """The masks of a region store by their rows; pickled as the path of the store."""

    def __init__(self, store: RegionStore) -> None:
        self._store = store

    def __getitem__(self, row: int) -> npt.NDArray[np.uint8]:
        return self._store.masks[row]

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self)))

    def __len__(self) -> int:
        return len(self._store)


def build_regions(
    manifest: Manifest,
    size: int,
    cache: Path,
    on_error: str = "refuse",
    progress: Callable[[int, int], None] | None = None,
    shared: str | None = None,
) -> RegionStore:
    """Finds or builds the region store of some files at a size; a change of a mask or of a box gives a new one.

    Args:
        manifest: The rows.
        size: Height and width in pixels.
        cache: The folder of stores on this machine.
        on_error: How to handle a region that does not fit its picture: "refuse" it, or "skip" it with a warning.
        progress: Called with the number of rows done and the total.
        shared: A folder or an address that all machines reach; see `build_stores`.

    Raises:
        DataError: A region does not fit its picture, or two rows have one mask.
        ArtifactError: A folder cannot be read or written.
    """
    regions = read_regions(manifest)
    _check_masks_once(regions)
    key = _key(regions, size)
    if (found := find_regions(key, cache, shared)) is not None:
        return found
    folder = cache / f"regions-{key}"
    with locked(cache / f".building-regions-{key}"):
        if not (folder / "store.json").is_file():
            scaled = made_of_each(regions, partial(scaled_region, size=size), on_error, progress)
            with replacing(folder) as temporary:
                temporary.mkdir()
                _write(temporary, scaled, size)
    if shared is not None:
        publish(folder, shared, FILES)
    return RegionStore.open(folder)


def find_regions(key: str, cache: Path, shared: str | None = None) -> RegionStore | None:
    """Returns the region store of a key, copied from `shared` if this machine lacks it; None if it does not exist."""
    folder = cache / f"regions-{key}"
    if not (folder / "store.json").is_file() and shared is not None:
        with locked(cache / f".copying-regions-{key}"):
            if not (folder / "store.json").is_file():
                fetch(folder, shared, _verify, FILES)
    return RegionStore.open(folder) if (folder / "store.json").is_file() else None


def _verify(folder: Path) -> None:
    """Reads a whole store, and checks it against its digest."""
    store = RegionStore.open(folder)
    if _digest(store.masks, store.boxes) != store.digest:
        raise ArtifactError(f"{folder} must have the regions {store.digest}, but has others: remove the folder")


def _check_masks_once(regions: Sequence[Region]) -> None:
    first: dict[Path, Region] = {}
    for region in regions:
        if region.mask is not None and (other := first.setdefault(region.mask, region)) is not region:
            raise DataError(
                f"a mask must belong to one picture, but {region.mask} is that of {other.picture.name} and of "
                f"{region.picture.name}: correct data.mask"
            )


def _key(regions: Sequence[Region], size: int) -> str:
    files = [[state_of(region.picture), state_of(region.mask), region.box] for region in regions]
    return digest_of({"regions": files, "size": size, "version": FORMAT_VERSION})


def _write(folder: Path, scaled: Sequence[ScaledRegion | None], size: int) -> None:
    masks = np.lib.format.open_memmap(folder / "masks.npy", "w+", np.uint8, (len(scaled), size, size))
    boxes = np.full((len(scaled), 4), np.nan, np.float32)
    for row, region in enumerate(scaled):
        masks[row] = 0 if region is None or region.mask is None else region.mask
        if region is not None and region.box is not None:
            boxes[row] = region.box
    masks.flush()
    np.save(folder / "boxes.npy", boxes, allow_pickle=False)
    write_json(folder / "store.json", {"digest": _digest(masks, boxes), "size": size})


def _digest(masks: npt.NDArray[np.uint8], boxes: npt.NDArray[np.float32]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for row in masks:
        digest.update(np.ascontiguousarray(row).data)
    digest.update(np.ascontiguousarray(boxes).data)
    return digest.hexdigest()
