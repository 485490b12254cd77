"""The image store: every image decoded once to one size, and memory-mapped by its readers."""

import hashlib
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from raysk.artifacts import locked, read_json, write_json
from raysk.data.store.decoding import Pixels
from raysk.data.store.shared_stores import fetch
from raysk.errors import ArtifactError

HASHED_AT_ONCE = 2**24  # bytes


@dataclass(frozen=True)
class BadImage:
    """An image that could not be decoded.

    Attributes:
        row: Its row in the manifest that the store was built from.
        path: The file.
        reason: The message of the decoder.
    """

    row: int
    path: str
    reason: str


class ImageStore:
    """The decoded, readable images of a manifest, in the order of its rows; pickled as its path.

    Attributes:
        folder: The folder of the store.
        pixels: The images, uint8 RGB, (N, size, size, 3), read-only and mapped from the file.
        digest: The digest of the pixels and their size.
    """

    def __init__(self, folder: Path, pixels: Pixels, digest: str) -> None:
        self.folder = folder
        self.pixels = pixels
        self.digest = digest

    def __len__(self) -> int:
        return len(self.pixels)

    def __reduce__(self) -> tuple[Any, ...]:
        return ImageStore.open, (self.folder,)

    @classmethod
    def open(cls, folder: Path) -> "ImageStore":
        """Maps a store that `build_store` wrote; no pixel is read yet.

        Raises:
            ArtifactError: The folder is not a complete store.
        """
        header = read_json(folder / "store.json")
        try:
            num_bytes = (folder / "images.arrow").stat().st_size
            if num_bytes != header["bytes"]:
                raise OSError(f"images.arrow has {num_bytes} of {header['bytes']} bytes")
            batch = pa.ipc.open_file(pa.memory_map(str(folder / "images.arrow"))).get_batch(0)
        except (OSError, KeyError, pa.ArrowInvalid) as error:
            reason = str(error).split("\n", 1)[0]
            raise ArtifactError(f"{folder} must be an image store, but {reason}: remove the folder") from error
        size = header["size"]
        flat = np.frombuffer(batch.column("pixels").buffers()[1], dtype=np.uint8, count=len(batch) * size * size * 3)
        return cls(folder, flat.reshape(len(batch), size, size, 3), header["digest"])

    @property
    def key(self) -> str:
        """The key of the store on any machine, a digest of files, size and format."""
        return self.folder.name.removeprefix("store-")

    @cached_property
    def bad(self) -> list[BadImage]:
        """The images that could not be decoded."""
        return [BadImage(**image) for image in read_json(self.folder / "store.json")["bad"]]

    def verify_if_changed(self) -> None:
        """Verifies the pixels unless their file is as it was when they were last written or verified.

        Raises:
            ArtifactError: The pixels do not match the digest.
        """
        note = self.folder / "verified.json"
        if not note.is_file() or read_json(note) != _state_of(self.folder):
            self.verify()
            with suppress(ArtifactError):  # A cache that is read-only is verified each time.
                note_state(self.folder)

    def verify(self) -> None:
        """Reads every pixel, and checks them against the digest.

        Raises:
            ArtifactError: The pixels do not match it.
        """
        digest = pixel_digest(self.pixels.shape[1])
        flat = self.pixels.reshape(-1)
        for start in range(0, len(flat), HASHED_AT_ONCE):
            digest.update(flat[start : start + HASHED_AT_ONCE].data)
        if digest.hexdigest() != self.digest:
            raise ArtifactError(
                f"{self.folder} must have the pixels {self.digest}, but has {digest.hexdigest()}: remove the folder"
            )


def find_store(key: str, cache: Path, shared: str | None = None) -> ImageStore | None:
    """Returns the store of a key, copied from `shared` if this machine lacks it; None if it does not exist.

    Raises:
        ArtifactError: The store is damaged, or cannot be copied.
    """
    folder = cache / f"store-{key}"
    if not (folder / "store.json").is_file() and shared is not None:
        with locked(cache / f".copying-{key}"):
            if not (folder / "store.json").is_file():
                fetch(folder, shared, lambda copy: ImageStore.open(copy).verify_if_changed())
    if not (folder / "store.json").is_file():
        return None
    store = ImageStore.open(folder)
    store.verify_if_changed()
    return store


def note_state(folder: Path) -> None:
    """Notes that the pixels of a store are correct in the present state of their file."""
    write_json(folder / "verified.json", _state_of(folder))


def _state_of(folder: Path) -> dict[str, int]:
    # Any write changes the time of the inode, also one that restores the modification time.
    status = (folder / "images.arrow").stat()
    return {"bytes": status.st_size, "modified_ns": status.st_mtime_ns, "changed_ns": status.st_ctime_ns}


def pixel_digest(size: int) -> "hashlib.blake2b":
    """Returns the initial digest for a size, to update with the bytes of each image in turn."""
    return hashlib.blake2b(f"{size}".encode(), digest_size=8)
