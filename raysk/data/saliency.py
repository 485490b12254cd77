"""What stands out in a picture: a box around it, without labels or masks."""

from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from raysk.data.regions import Box

Saliency = Literal["spectral_residual", "fine_grained"]

# Hou and Zhang compute the spectrum of a picture of 64 pixels, and smooth the map by a Gaussian.
_SIDE = 64
_SMOOTHING = 2.5
# How far the six surrounds of Montabone and Soto reach, in pixels: three scales of two sizes, 3 and 7.
_REACHES = (12, 24, 48, 28, 56, 112)
# The share of what stands out that may lie beyond each edge of the box. Around 300 lesions of HAM10000 at 128 pixels,
# the boxes have a mean overlap (intersection over union with the box of the mask) of 0.60 by fine-grained saliency and
# 0.52 by spectral residual, against 0.48 of the whole picture; boxes around all above three times the mean, as Hou and
# Zhang choose objects, have 0.17 and 0.21.
_BEYOND = 0.05

Pixels = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float64]


def spectral_residual(image: Pixels) -> FloatArray:
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


def fine_grained(image: Pixels) -> FloatArray:
    """Returns the saliency of each pixel, (H, W), in [0, 1] (Montabone and Soto 2010).

    A pixel stands out as far as it is brighter (on), or darker (off), than its surround: the mean of the square around
    it, at six sizes. On and off are summed over the sizes, scaled by their greatest values and added. Levels are whole
    numbers at each step, so that the map is that of OpenCV's contributed module.

    Args:
        image: (H, W, 3), uint8.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    for _ in range(2):
        grey = cv2.GaussianBlur(grey, (3, 3), 0)
    level = grey.astype(np.float64)
    sums = np.pad(level.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    on, off = np.zeros_like(level), np.zeros_like(level)
    for reach in _REACHES:
        (top, bottom), (left, right) = (_edges(length, reach) for length in level.shape)
        square = sums[bottom][:, right] - sums[top][:, right] - sums[bottom][:, left] + sums[top][:, left]
        num_others = np.maximum(np.outer(bottom - top, right - left) - 1, 1)
        difference = np.trunc(level - (square - level) / num_others)
        on, off = on + np.maximum(difference, 0), off + np.maximum(-difference, 0)
    on, off = (np.trunc(255 * part / max(part.max(), 1)) for part in (on, off))
    return np.asarray((on + off) / max(on.max(), off.max(), 1), dtype=np.float64)


def salient_box(image: Pixels, saliency: Saliency = "spectral_residual") -> Box | None:
    """Returns the box around what is salient in a picture, in its pixels; None if nothing is.

    Along each side of the picture it holds the middle nine tenths of the saliency above its mean: our choice.

    Args:
        image: (H, W, 3), uint8.
        saliency: How the saliency of a pixel is measured.
    """
    salient = _MAPS[saliency](image)
    above = np.maximum(salient - salient.mean(), 0)
    if above.sum() <= 1e-9 * salient.sum():
        return None
    (left, right), (top, bottom) = (_middle(above.sum(axis=axis)) for axis in (0, 1))
    height, width = image.shape[0] / salient.shape[0], image.shape[1] / salient.shape[1]
    return Box(left * width, top * height, right * width, bottom * height)


_MAPS = {"spectral_residual": spectral_residual, "fine_grained": fine_grained}


def _edges(length: int, reach: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Returns the first place of the surround of each place, and that behind its last one, within the picture."""
    place = np.arange(length)
    return np.maximum(place - reach + 1, 0), np.minimum(place + reach + 1, length)


def _middle(amounts: FloatArray) -> tuple[int, int]:
    """Returns the first place of the middle of some amounts, and the one behind its last place."""
    shares = amounts.cumsum() / amounts.sum()
    return int(np.searchsorted(shares, _BEYOND)), min(int(np.searchsorted(shares, 1 - _BEYOND)) + 1, len(shares))
