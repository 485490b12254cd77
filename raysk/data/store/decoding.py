"""From image files to pixels: upright, in RGB, square."""

import io
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from raysk.data.decodable import UNREADABLE, check_decodable, upright
from raysk.errors import DataError

Pixels = npt.NDArray[np.uint8]

_OF_MEMORY = re.compile(r" <_io\.BytesIO object at \w+>")


def decode(path: Path, sizes: list[int]) -> list[Pixels] | str:
    """Returns the pixels of an image file at every size, (size, size, 3), or the reason why it has none.

    An image is turned upright, scaled so that its shorter side is `size`, and cropped to its centre. The file is read
    once; what one size looks like does not depend on which others are asked for.

    Raises:
        DataError: The file is there and cannot be read now: that says nothing of the image, and is not to be kept.
    """
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        return f"{type(error).__name__}: {error.strerror}"
    except OSError as error:
        raise DataError(
            f"{path} must be readable, but {error.strerror}: mend what keeps it from being read, or remove its row"
        ) from error
    try:
        return [_decode(content, size) for size in sizes]
    except UNREADABLE as error:
        said = str(error).split("\n", 1)[0]
        return f"{type(error).__name__}: {_OF_MEMORY.sub('', said)}"


def _decode(content: bytes, size: int) -> Pixels:
    with Image.open(io.BytesIO(content)) as image:
        check_decodable(image)
        image.draft("RGB", (size, size))  # lets JPEG skip detail that is not asked for
        return _fit(upright(image), size)


def _fit(image: Image.Image, size: int) -> Pixels:
    if image.mode.startswith("I;16"):  # 16 bits a pixel, which a plain conversion would clip to white
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    image = image.convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    box = (left, top, left + side, top + side)
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC, box=box))
