"""Reads every image file once for an audit: its bytes, its size and a small grey picture of it."""

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from raysk.data.decodable import UNREADABLE, check_decodable, depth_of, in_eight_bits, open_image
from raysk.data.manifest import IntArray

PICTURE_SIDE = 48
TINY = 32  # pixels of the shorter side
ONE_COLOUR = 4  # largest range of grey levels that JPEG makes of one colour
_CHUNK = 256  # files read ahead

Pictures = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Scan:
    """What was read from N files.

    Attributes:
        pictures: Small grey pictures, (N, 48, 48), squashed to squares in the orientation of the file; zeros for files
            that cannot be read.
        digests: The digest of the bytes of each file, "" for none.
        num_bytes: The size of each file, (N,).
        sizes: Width and height in pixels, (N, 2); 0 where unknown.
        reasons: Why a file cannot be read, "" where it can.
    """

    pictures: Pictures
    digests: list[str]
    num_bytes: IntArray
    sizes: IntArray
    reasons: list[str]

    def __len__(self) -> int:
        return len(self.reasons)

    @property
    def readable(self) -> npt.NDArray[np.bool_]:
        """Whether each file could be read, (N,)."""
        return np.array([not reason for reason in self.reasons], dtype=bool)

    @property
    def tiny(self) -> npt.NDArray[np.bool_]:
        """Whether the shorter side of a readable image is below 32 pixels, (N,)."""
        return self.readable & (self.sizes.min(axis=1) < TINY)

    @property
    def one_colour(self) -> npt.NDArray[np.bool_]:
        """Whether a readable image has a single colour, (N,)."""
        shades = self.pictures.max(axis=(1, 2)).astype(int) - self.pictures.min(axis=(1, 2))
        return self.readable & (shades <= ONE_COLOUR)


class _File(NamedTuple):
    reason: str
    digest: str = ""
    num_bytes: int = 0
    size: tuple[int, int] = (0, 0)
    picture: Pictures | None = None


def scan_files(
    paths: Sequence[Path | None], progress: Callable[[int, int], None] | None = None, bits: int | None = None
) -> Scan:
    """Reads each file once, on all cores; holds the bytes of a few files at a time.

    Args:
        paths: The files; None counts as a missing file.
        progress: Called with the number of files done and the total.
        bits: The depth of pictures of 16 bits a pixel whose files state none.
    """
    pictures = np.zeros((len(paths), PICTURE_SIDE, PICTURE_SIDE), dtype=np.uint8)
    files: list[_File] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow releases the interpreter lock while it decodes
        for start in range(0, len(paths), _CHUNK):
            for file in pool.map(partial(_scan, bits=bits), paths[start : start + _CHUNK]):
                if file.picture is not None:
                    pictures[len(files)] = file.picture
                files.append(file._replace(picture=None))
            if progress is not None:
                progress(len(files), len(paths))
    return Scan(
        pictures,
        [file.digest for file in files],
        np.array([file.num_bytes for file in files], dtype=np.int64),
        np.array([file.size for file in files], dtype=np.int64).reshape(-1, 2),
        [file.reason for file in files],
    )


def _scan(path: Path | None, bits: int | None) -> _File:
    if path is None or not path.is_file():  # a pipe is not a file either: reading it may block for ever
        return _File("there is no such file")
    try:
        content = path.read_bytes()
    except OSError as error:
        return _File(f"{error.strerror}")
    if not content:
        return _File("the file is empty")
    file = _File("", hashlib.blake2b(content, digest_size=16).hexdigest(), len(content))
    try:
        with open_image(content) as image:
            file = file._replace(size=image.size)
            check_decodable(image)
            return file._replace(picture=small_picture(image, bits))
    except UNREADABLE as error:
        return file._replace(reason=f"{type(error).__name__}: {error}".split("\n", 1)[0])


def small_picture(image: Image.Image, bits: int | None = None) -> Pictures:
    """Returns a grey square of `PICTURE_SIDE` pixels from an image of any mode."""
    if image.mode == "RGB":
        image.draft("L", (2 * PICTURE_SIDE, 2 * PICTURE_SIDE))  # lets JPEG skip colour and detail
    image = in_eight_bits(image, depth_of(image, bits))
    if image.mode in ("P", "PA"):
        image = image.convert("RGB")
    side = (PICTURE_SIDE, PICTURE_SIDE)
    return np.asarray(image.convert("L").resize(side, Image.Resampling.BILINEAR, reducing_gap=2.0))
