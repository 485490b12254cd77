"""Checks which image files can be decoded correctly; all others are refused, with a reason, before they do harm."""

from PIL import Image

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


def upright(image: Image.Image) -> Image.Image:
    """Returns an image turned upright by its EXIF orientation.

    Pillow's `exif_transpose` also writes the EXIF data back, and fails if its other tags are malformed.
    """
    turn = _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    return image if turn is None else image.transpose(turn)


def check_decodable(image: Image.Image) -> None:
    """Refuses an opened image that cannot be decoded correctly, before any pixel is decoded.

    Raises:
        ValueError: The image has too many pixels, or its mode does not define which level is white.
    """
    if image.width * image.height > MOST_PIXELS:
        raise ValueError(f"{image.width} by {image.height} pixels are more than {MOST_PIXELS:,}: save it smaller")
    if image.mode in ("I", "F"):
        raise ValueError(f"mode {image.mode!r} does not define which level is white: save it with 8 or 16 bits")
