"""What stands out in a picture: a box around it, without labels or masks."""

import cv2
import numpy as np
import numpy.typing as npt

from raysk.data.regions import Box, box_of

# Hou and Zhang compute the spectrum of a picture of 64 pixels, and smooth the map by a Gaussian.
_SIDE = 64
_SMOOTHING = 2.5
# A pixel is salient above this multiple of the mean, as Hou and Zhang choose objects.
_THRESHOLD = 3.0

Pixels = npt.NDArray[np.uint8]


def spectral_residual(image: Pixels) -> npt.NDArray[np.float64]:
    """Returns the saliency of each pixel of a picture of 64 by 64, (64, 64), at least 0 (Hou and Zhang 2007).

    The log spectrum of natural pictures is smooth. What stands out is its residual, the log amplitude less its local
    mean, transformed back with the phase of the picture and squared.

    Args:
        image: (H, W, 3), uint8.
    """
    small = cv2.resize(image, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float64)
    spectrum = np.fft.fft2(grey)
    amplitude = np.log(np.abs(spectrum) + 1e-8)
    residual = amplitude - cv2.blur(amplitude, (3, 3))
    salient = np.abs(np.fft.ifft2(np.exp(residual + 1j * np.angle(spectrum)))) ** 2
    return np.asarray(cv2.GaussianBlur(salient, (0, 0), _SMOOTHING), dtype=np.float64)


def salient_box(image: Pixels) -> Box | None:
    """Returns the box around what is salient in a picture, in its pixels; None if nothing is.

    Args:
        image: (H, W, 3), uint8.
    """
    salient = spectral_residual(image)
    box = box_of((salient > _THRESHOLD * salient.mean()).astype(np.uint8))
    if box is None:
        return None
    height, width = image.shape[:2]
    scale = width / _SIDE, height / _SIDE
    return Box(box.left * scale[0], box.top * scale[1], box.right * scale[0], box.bottom * scale[1])
