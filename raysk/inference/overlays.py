"""Pictures of attention: the image beside its attention map, with the outline of the lesion where it is known."""

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]

# The shorter side of an image in the picture, in pixels, and the share of the map where attention is greatest.
_SIDE, _OPACITY = 256, 0.6
_OUTLINE = (255, 255, 255)


def draw_overlay(image: Pixels, attention: npt.NDArray[np.floating], lesion: Pixels | None = None) -> Image.Image:
    """Returns the image, and right of it the image below its attention map.

    Args:
        image: (S, S, 3), uint8.
        attention: (S, S), in [0, 1].
        lesion: (S, S), uint8, above 0 on the lesion; None if it is not known.
    """
    side = max(_SIDE, image.shape[0])
    large = cv2.resize(image, (side, side), interpolation=cv2.INTER_CUBIC)
    seen = np.clip(cv2.resize(attention.astype(np.float32), (side, side), interpolation=cv2.INTER_LINEAR), 0, 1)
    colours = cv2.applyColorMap(np.round(255 * seen).astype(np.uint8), cv2.COLORMAP_INFERNO)[:, :, ::-1]
    share = _OPACITY * seen[:, :, None]
    below = np.round(large * (1 - share) + colours * share).astype(np.uint8)
    pictures = [large, below]
    if lesion is not None and lesion.any():
        mask = (cv2.resize(lesion, (side, side), interpolation=cv2.INTER_NEAREST) > 0).astype(np.uint8)
        borders, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        pictures = [cv2.drawContours(np.ascontiguousarray(picture), borders, -1, _OUTLINE, 1) for picture in pictures]
    return Image.fromarray(np.concatenate(pictures, axis=1))
