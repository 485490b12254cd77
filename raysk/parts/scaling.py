"""Linear scaling of maps as products of matrices, whose gradients repeat digit for digit on a GPU too."""

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional


@cache
def scaling(small: int, large: int) -> Tensor:
    """Returns the linear interpolation from `small` to `large` positions as a matrix, (small, large)."""
    unit = torch.eye(small, device="cpu")[None]  # kept, so never on the device that checks networks without memory
    return functional.interpolate(unit, size=large, mode="linear", align_corners=False)[0]


def scaled(maps: Tensor, size: int) -> Tensor:
    """Returns square maps (B, C, h, h) at another size, (B, C, size, size), as bilinear interpolation does.

    The gradient of torch's own interpolation adds up in any order on a GPU.
    """
    matrix = scaling(maps.shape[2], size).to(maps)
    return matrix.T @ maps @ matrix
