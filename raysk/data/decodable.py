"""Which image files can be decoded rightly; what else there is gets refused, with a reason, before it does harm."""

from PIL import Image

# Pillow's decoders let these through for damaged files; anything else is a defect and keeps its traceback.
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)
# From here on Pillow warns. A file of a few kilobytes can ask for gigabytes of memory when it is decoded.
MOST_PIXELS = 89_478_485


def check_decodable(image: Image.Image) -> None:
    """Refuses an opened image of which no pixel has been decoded yet.

    Raises:
        ValueError: It has too many pixels, or grey levels of which nobody knows what is white.
    """
    if image.width * image.height > MOST_PIXELS:
        raise ValueError(f"{image.width} by {image.height} pixels are more than {MOST_PIXELS:,}: save it smaller")
    if image.mode in ("I", "F"):
        raise ValueError(f"mode {image.mode!r} does not say which of its levels is white: save it with 8 or 16 bits")
