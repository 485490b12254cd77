"""Linear scaling of maps as products of matrices, whose gradients repeat digit for digit on a GPU too."""

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional


@cache
def scaling(small: int, large: int) -> Tensor:
    """Returns the linear interpolation from `small` to `large` positions as a matrix, (small, large)."""
    # It is kept: so it is never on the device without memory, and training can use what a prediction made.
    with torch.inference_mode(False):
        unit = torch.eye(small, device="cpu")[None]
        return functional.interpolate(unit, size=large, mode="linear", align_corners=False)[0]


def scaled(maps: Tensor, size: int) -> Tensor:
    """Returns square maps (B, C, h, h) at another size, (B, C, size, size), as bilinear interpolation does.

    The gradient of torch's own interpolation adds up in any order on a GPU.
    """
    matrix = scaling(maps.shape[2], size).to(maps)
    return matrix.T @ maps @ matrix
