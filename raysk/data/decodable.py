"""Which image files can be decoded rightly; what else there is gets refused, with a reason, before it does harm."""

from PIL import Image

# Pillow's decoders let these through for damaged files; anything else is a defect and keeps its traceback.
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)
# From here on Pillow warns. A file of a few kilobytes can ask for gigabytes of memory when it is decoded.
MOST_PIXELS = 89_478_485


_ORIENTATION = 0x0112  # an EXIF tag
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip


def upright(image: Image.Image) -> Image.Image:
    """Returns an image turned as its EXIF orientation says.

    Pillow's `exif_transpose` also writes the EXIF data back, and fails where other tags of it are odd.
    """
    turn = _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    return image if turn is None else image.transpose(turn)


def check_decodable(image: Image.Image) -> None:
    """Refuses an opened image of which no pixel has been decoded yet.

    Raises:
        ValueError: It has too many pixels, or grey levels of which nobody knows what is white.
    """
    if image.width * image.height > MOST_PIXELS:
        raise ValueError(f"{image.width} by {image.height} pixels are more than {MOST_PIXELS:,}: save it smaller")
    if image.mode in ("I", "F"):
        raise ValueError(f"mode {image.mode!r} does not say which of its levels is white: save it with 8 or 16 bits")
