"""Decodes image files into pixels: upright, in RGB, square."""

import re
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from raysk.data.crop import Window
from raysk.data.decodable import (
    UNREADABLE,
    Depth,
    check_decodable,
    depth_of,
    in_eight_bits,
    open_image,
    upright,
    upright_size,
)
from raysk.errors import DataError

Pixels = npt.NDArray[np.uint8]

_MEMORY_FILE = re.compile(r" <_io\.BytesIO object at \w+>")


def decode(
    path: Path, sizes: Sequence[int], bits: int | None = None, window: Window | None = None
) -> list[Pixels] | str:
    """Returns the pixels of an image file at every size, (size, size, 3), or the reason why it cannot be decoded.

    An image is turned upright, scaled so that its shorter side is `size`, and cropped to its centre. The file is read
    once; the pixels at one size do not depend on the other sizes. `bits` is the depth of a picture of 16 bits a pixel
    whose file states none; `window` is the square to see instead of that in the middle.

    Raises:
        DataError: The file exists but cannot be read now. This is no property of the image and must not be stored.
    """
    content = _content(path)
    return content if isinstance(content, str) else decode_content(content, sizes, bits, window)


def decode_windows(
    path: Path, size: int, bits: int | None, windows_of: Callable[[int, int], Sequence[Window]]
) -> tuple[tuple[int, int], list[Pixels]] | str:
    """Returns the width and height of a picture and the pixels of some squares of it, or why it cannot be decoded.

    A square picture has the pixels that `decode` gives. Another one is decoded once, without skipping detail.

    Args:
        path: The file.
        size: Side of the squares in the result, in pixels.
        bits: As in `decode`.
        windows_of: Returns the squares of an upright picture of this width and height.

    Raises:
        DataError: The file exists but cannot be read now.
    """
    content = _content(path)
    if isinstance(content, str):
        return content
    try:
        with open_image(content) as image:
            check_decodable(image)
            depth = depth_of(image, bits)  # first, since a look at the EXIF data of a PNG file decodes it
            width, height = upright_size(image)
            if width == height:
                return (width, height), [_decode(content, size, bits, None)]
            picture = in_eight_bits(upright(image), depth)
            boxes = [(left, top, left + side, top + side) for left, top, side in windows_of(width, height)]
            return (width, height), [_fit(picture, depth, size, box) for box in boxes]
    except UNREADABLE as error:
        return _reason(error)


def _content(path: Path) -> bytes | str:
    """Returns the content of an image file, or why it has none.

    Raises:
        DataError: The file exists but cannot be read now.
    """
    try:
        mode = path.stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # reading a pipe would wait for ever
            return "OSError: not a regular file"
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        return f"{type(error).__name__}: {error.strerror}"
    except OSError as error:
        raise DataError(
            f"{path} must be readable, but {error.strerror}: restore access to the file, or remove its row"
        ) from error


def decode_content(
    content: bytes, sizes: Sequence[int], bits: int | None = None, window: Window | None = None
) -> list[Pixels] | str:
    """Returns what `decode` returns for a file with this content."""
    try:
        return [_decode(content, size, bits, window) for size in sizes]
    except UNREADABLE as error:
        return _reason(error)


def decode_picture(picture: Image.Image, sizes: Sequence[int], bits: int | None = None) -> list[Pixels] | str:
    """Returns the pixels of an opened image at every size, or the reason why it cannot be used, as `decode` does.

    A large JPEG file gives slightly other pixels: `decode` has the decoder skip detail that the size does not need.
    """
    try:
        check_decodable(picture)
        depth = depth_of(picture, bits)
        return [_fit(upright(picture), depth, size) for size in sizes]
    except UNREADABLE as error:
        return _reason(error)


def _reason(error: Exception) -> str:
    reason = str(error).split("\n", 1)[0]
    return f"{type(error).__name__}: {_MEMORY_FILE.sub('', reason)}"


def _decode(content: bytes, size: int, bits: int | None, window: Window | None) -> Pixels:
    with open_image(content) as image:
        check_decodable(image)
        depth = depth_of(image, bits)  # first, since a look at the EXIF data of a PNG file decodes it
        if window is None:
            image.draft("RGB", (size, size))  # lets the JPEG decoder skip unneeded detail
            return _fit(upright(image), depth, size)
        whole = upright_size(image)
        # What the window shows at this size, the whole picture shows at that one.
        wanted = -(-size * min(whole) // window.side)
        image.draft("RGB", (wanted, wanted))
        picture = upright(image)
        across, down = picture.width / whole[0], picture.height / whole[1]
        right, bottom = window.left + window.side, window.top + window.side
        return _fit(picture, depth, size, (window.left * across, window.top * down, right * across, bottom * down))


def _fit(image: Image.Image, depth: Depth, size: int, box: tuple[float, float, float, float] | None = None) -> Pixels:
    image = in_eight_bits(image, depth).convert("RGB")
    if box is None:
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        box = (left, top, left + side, top + side)
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC, box=box))
