"""The image store: every image decoded once to one size, and memory-mapped by whoever reads it."""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image, ImageOps

from raysk.artifacts import digest_of, read_json, replacing, write_json
from raysk.data.decodable import UNREADABLE, check_decodable
from raysk.data.manifest import Manifest
from raysk.errors import ArtifactError, ConfigError, DataError

FORMAT_VERSION = 2
CHUNK_BYTES = 32 * 2**20

Pixels = npt.NDArray[np.uint8]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class BadImage:
    """An image that could not be decoded.

    Attributes:
        row: Its row in the manifest that the store was built from.
        path: The file.
        reason: What the decoder said.
    """

    row: int
    path: str
    reason: str


class ImageStore:
    """The decoded images of a manifest, all readable ones in the order of its rows; pickled as its path.

    Attributes:
        folder: Where the store lies.
        pixels: The images, uint8 RGB, (N, size, size, 3), read-only and mapped from the file.
        digest: Names the pixels and their size.
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
            ArtifactError: The folder is not a whole store.
        """
        header = read_json(folder / "store.json")
        try:
            batch = pa.ipc.open_file(pa.memory_map(str(folder / "images.arrow"))).get_batch(0)
        except (OSError, pa.ArrowInvalid) as error:
            reason = str(error).split("\n", 1)[0]
            raise ArtifactError(f"{folder} must be an image store, but {reason}: remove the folder") from error
        size = header["size"]
        flat = np.frombuffer(batch.column("pixels").buffers()[1], dtype=np.uint8, count=len(batch) * size * size * 3)
        return cls(folder, flat.reshape(len(batch), size, size, 3), header["digest"])


def build_store(
    manifest: Manifest,
    size: int,
    cache: Path,
    on_error: str = "refuse",
    progress: Progress | None = None,
) -> tuple[ImageStore, list[BadImage]]:
    """Finds the store of these files at this size in `cache`, or decodes them into it.

    An image is turned upright, scaled so that its shorter side is `size`, and cropped to its centre. Files are known
    by path, bytes and time of change: a store is built anew when one of them changes.

    Args:
        manifest: Whose images.
        size: Height and width in pixels.
        cache: The folder of stores.
        on_error: With unreadable images, "refuse" or "skip".
        progress: Called with the numbers of images done and in all.

    Returns:
        The store of the readable images, and the unreadable ones, whose rows the caller is to drop.

    Raises:
        DataError: Images are unreadable and `on_error` is "refuse", or none is readable, or the disk is too full.
    """
    if size < 1 or on_error not in ("refuse", "skip"):
        raise ConfigError(
            f"a store must have a size of at least 1 and on_error 'refuse' or 'skip', but got {size} and {on_error!r}: "
            "correct it"
        )
    folder = cache / f"store-{_store_key(manifest, size)}"
    if not (folder / "store.json").is_file():
        _check_disk(len(manifest), size, cache)
        try:
            with replacing(folder) as temporary:
                _write_store(temporary, manifest, size, progress)
        except ArtifactError:
            if not (folder / "store.json").is_file():  # else another process has built the same store meanwhile
                raise
    bad = [BadImage(**image) for image in read_json(folder / "store.json")["bad"]]
    if bad and (on_error == "refuse" or len(bad) == len(manifest)):
        first = ", ".join(f"{image.path} ({image.reason})" for image in bad[:3])
        raise DataError(
            f"every image must be readable, but {len(bad)} of {len(manifest)} are not: {first}"
            f"{', …' if len(bad) > 3 else ''}; restore them, or set data.on_error=skip to leave out their rows"
        )
    return ImageStore.open(folder), bad


def _store_key(manifest: Manifest, size: int) -> str:
    files = []
    for image, path in zip(manifest.table.column("image").to_pylist(), manifest.paths, strict=True):
        try:
            status = path.stat()
            files.append([image, status.st_size, status.st_mtime_ns])
        except OSError:
            files.append([image, None, None])
    return digest_of({"files": files, "size": size, "version": FORMAT_VERSION})


def _check_disk(num_images: int, size: int, cache: Path) -> None:
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArtifactError(
            f"{cache} must be writable, but {error.strerror}: free space or choose another folder"
        ) from error
    # Twice: an Arrow batch states its length before its pixels, which are therefore collected in a file first.
    needed = 2 * num_images * size * size * 3
    free = shutil.disk_usage(cache).free
    if needed > free:
        raise DataError(
            f"the image store takes {needed / 1e9:.1f} GB while it is written ({num_images} images of {size} by {size} "
            f"pixels of 3 bytes, twice), but {cache} has {free / 1e9:.1f} GB free: free space, or take smaller images"
        )


def _write_store(folder: Path, manifest: Manifest, size: int, progress: Progress | None) -> None:
    folder.mkdir()
    collected = folder / "pixels.raw"
    digest = hashlib.blake2b(f"{size}".encode(), digest_size=8)
    good: list[int] = []
    bad: list[BadImage] = []
    with collected.open("wb") as file:
        for row, decoded in enumerate(_decode_all(manifest.paths, size)):
            if isinstance(decoded, str):
                bad.append(BadImage(row, str(manifest.paths[row]), decoded))
            else:
                good.append(row)
                pixels = decoded.tobytes()
                digest.update(pixels)
                file.write(pixels)
            if progress is not None:
                progress(row + 1, len(manifest))
    _write_arrow(folder / "images.arrow", collected, good, size)
    collected.unlink()
    header = {"size": size, "digest": digest.hexdigest(), "bad": [asdict(image) for image in bad]}
    write_json(folder / "store.json", header)


def _write_arrow(path: Path, collected: Path, rows: list[int], size: int) -> None:
    """Writes one record batch, so that the pixels are one piece of memory when the file is mapped."""
    pixel_type = pa.binary(size * size * 3)
    pixels = pa.memory_map(str(collected)).read_buffer() if rows else pa.py_buffer(b"")
    column = pa.FixedSizeBinaryArray.from_buffers(pixel_type, len(rows), [None, pixels])
    batch = pa.record_batch([pa.array(rows, pa.int64()), column], names=["row", "pixels"])
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, batch.schema) as writer:
        writer.write_batch(batch)


def _decode_all(paths: list[Path], size: int) -> Iterator[Pixels | str]:
    """Yields for each path its pixels, or why there are none; holds a chunk of images at a time."""
    chunk = max(16, CHUNK_BYTES // (size * size * 3))
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow releases the interpreter lock while it decodes
        for start in range(0, len(paths), chunk):
            yield from pool.map(partial(_decode, size=size), paths[start : start + chunk])


def _decode(path: Path, size: int) -> Pixels | str:
    """Returns the pixels of an image file, (size, size, 3), or the reason why it has none."""
    try:
        with Image.open(path) as image:
            check_decodable(image)
            image.draft("RGB", (size, size))  # lets JPEG skip detail that is not asked for
            return _fit(ImageOps.exif_transpose(image), size)
    except UNREADABLE as error:
        return f"{type(error).__name__}: {error}".split("\n", 1)[0].replace(f" {str(path)!r}", "")


def _fit(image: Image.Image, size: int) -> Pixels:
    if image.mode.startswith("I;16"):  # 16 bits a pixel, which a plain conversion would clip to white
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    image = image.convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    box = (left, top, left + side, top + side)
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC, box=box))
