"""Decodes image files into pixels: upright, in RGB, square."""

import io
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from raysk.data.decodable import UNREADABLE, check_decodable, upright
from raysk.errors import DataError

Pixels = npt.NDArray[np.uint8]

_MEMORY_FILE = re.compile(r" <_io\.BytesIO object at \w+>")


def decode(path: Path, sizes: list[int]) -> list[Pixels] | str:
    """Returns the pixels of an image file at every size, (size, size, 3), or the reason why it cannot be decoded.

    An image is turned upright, scaled so that its shorter side is `size`, and cropped to its centre. The file is read
    once; the pixels at one size do not depend on the other sizes.

    Raises:
        DataError: The file exists but cannot be read now. This is no property of the image and must not be stored.
    """
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        return f"{type(error).__name__}: {error.strerror}"
    except OSError as error:
        raise DataError(
            f"{path} must be readable, but {error.strerror}: restore access to the file, or remove its row"
        ) from error
    try:
        return [_decode(content, size) for size in sizes]
    except UNREADABLE as error:
        reason = str(error).split("\n", 1)[0]
        return f"{type(error).__name__}: {_MEMORY_FILE.sub('', reason)}"


def _decode(content: bytes, size: int) -> Pixels:
    with Image.open(io.BytesIO(content)) as image:
        check_decodable(image)
        image.draft("RGB", (size, size))  # lets the JPEG decoder skip unneeded detail
        return _fit(upright(image), size)


def _fit(image: Image.Image, size: int) -> Pixels:
    if image.mode.startswith("I;16"):  # 16 bits a pixel, which a plain conversion would clip to white
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    image = image.convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    box = (left, top, left + side, top + side)
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC, box=box))
