"""Checks which image files can be decoded correctly; all others are refused, with a reason, before they do harm."""

import struct
from io import BytesIO
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from PIL import Image

from raysk.data.dicom import is_dicom, read_dicom

# Pillow's decoders raise these for damaged files; any other exception is a defect and keeps its traceback.
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)
# Pillow warns above this number: a file of a few kilobytes can need gigabytes of memory to decode.
MOST_PIXELS = 89_478_485


_ORIENTATION = 0x0112  # an EXIF tag
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip
_ON_THEIR_SIDE = (5, 6, 7, 8)
_BITS_PER_SAMPLE = 258  # a TIFF tag


class Depth(NamedTuple):
    """The bits of a grey value in a picture that is held with 16 bits a pixel.

    Attributes:
        bits: The number of bits that the file states.
        scaled: Whether a writer that follows the file format has scaled the values to 16 bits.
        given: Whether the user states the bits, since the file does not.
    """

    bits: int = 16
    scaled: bool = True
    given: bool = False


def open_image(source: Path | bytes) -> Image.Image:
    """Opens an image from its file or its bytes; of most formats, it decodes no pixel yet."""
    if isinstance(source, Path):
        with source.open("rb") as file:
            if not is_dicom(file.read(132)):
                return Image.open(source)
        source = source.read_bytes()
    return read_dicom(source, MOST_PIXELS) if is_dicom(source) else Image.open(BytesIO(source))


def upright(image: Image.Image) -> Image.Image:
    """Returns an image turned upright by its EXIF orientation.

    Pillow's `exif_transpose` also writes the EXIF data back, and fails if its other tags are malformed.
    """
    turn = _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    return image if turn is None else image.transpose(turn)


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Returns the width and the height that `upright` gives an image, and decodes no pixel."""
    width, height = image.size
    return (height, width) if image.getexif().get(_ORIENTATION, 1) in _ON_THEIR_SIDE else (width, height)


def check_decodable(image: Image.Image) -> None:
    """Refuses an opened image that cannot be decoded correctly, before any pixel is decoded.

    Raises:
        ValueError: The image has too many pixels, or its mode does not define which level is white.
    """
    if image.width * image.height > MOST_PIXELS:
        raise ValueError(f"{image.width} by {image.height} pixels are more than {MOST_PIXELS:,}: save it smaller")
    if image.mode in ("I", "F"):
        raise ValueError(f"mode {image.mode!r} does not define which level is white: save it with 8 or 16 bits")


def depth_of(image: Image.Image, bits: int | None = None) -> Depth:
    """Returns the depth that the file of an opened image states, before any pixel is decoded.

    A camera of 12 bits may write a TIFF file of 12 bits, or a PNG file of 16 bits with a chunk sBIT.

    Args:
        image: The image.
        bits: The number of bits if the file does not state fewer than 16.
    """
    stated = _stated_depth(image)
    return stated if stated.bits < 16 or bits is None else Depth(bits, scaled=False, given=True)


def _stated_depth(image: Image.Image) -> Depth:
    if not image.mode.startswith("I;16"):
        return Depth()
    file: IO[bytes] | None = getattr(image, "fp", None)
    if image.format == "PNG" and file is not None:
        return Depth(_significant_bits(file))
    if image.format == "TIFF":
        bits = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, (16,))
        return Depth(int(bits[0] if isinstance(bits, tuple) else bits), scaled=False)
    return Depth()


def in_eight_bits(image: Image.Image, depth: Depth) -> Image.Image:
    """Returns a picture of 16 bits a pixel with 8, which a plain conversion would clip to white; no other is changed.

    The scale follows from the depth, and never from the values of one picture: a dark picture stays dark.

    Raises:
        ValueError: A value needs more bits than the user gave.
    """
    if not image.mode.startswith("I;16"):
        return image
    levels = np.asarray(image).astype(np.uint32)
    if depth.given and levels.size and levels.max() >= 2**depth.bits:
        raise ValueError(f"level {levels.max()} needs more bits than data.bits={depth.bits}: raise data.bits")
    bits = 16 if depth.scaled and not _is_unscaled(levels, depth.bits) else depth.bits
    scaled = levels >> 8 if bits == 16 else np.minimum(levels * 255 // (2**bits - 1), 255)
    return Image.fromarray(scaled.astype(np.uint8))


def _is_unscaled(levels: np.ndarray, bits: int) -> bool:
    """Returns whether values of this many bits were stored as they are, although PNG has its writers scale them.

    A scaled value is a multiple of 2^(16 - bits), or one more by rounding if all values are small: unscaled values
    have other remainders.
    """
    if bits == 16 or not levels.size or levels.max() >= 2**bits:
        return False
    return bool((levels % 2 ** (16 - bits) > 1).any())


def _significant_bits(file: IO[bytes]) -> int:
    """Returns the bits in the chunk sBIT of a PNG file, 16 without a valid one; leaves the file at its place."""
    place = file.tell()
    try:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            if kind == b"sBIT":
                bits = file.read(1) if length else b""
                return bits[0] if bits and 1 <= bits[0] <= 16 else 16
            if kind == b"IDAT":
                break
            file.seek(length + 4, 1)
        return 16
    finally:
        file.seek(place)
