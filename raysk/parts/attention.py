"""Attention to a region of the image: how much of a network's attention map lies in a box, and a loss that asks for it.

The attention map M of an image is in [0, 1], one value a pixel. For a box of the lesion,

    L_a = -min(mean of M inside, T) + mean of M outside,    T = 0.5

(Zhuang et al. 2023): attention inside is rewarded up to T, so that a part of the lesion is enough, and attention
outside is punished without end. L_a is 1 at worst and -T at best.
"""

import torch
from torch import Tensor


def region_masks(boxes: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Returns weights of the pixels inside and outside of each box, (B, height, width) each, in float32.

    The weights of a region are equal and sum to 1, so that a weighted sum of a map is its mean there. A region without
    a pixel, such as the outside of a box that is the whole image, has weights of 0: our choice, it then is not scored.

    Args:
        boxes: Top, bottom, left and right of each box in pixels, (B, 4), whole numbers; bottom and right are the first
            row and column below and beside the box. What lies beyond the image is cut off.
        height: Rows of the image.
        width: Columns of the image.
    """
    top, bottom, left, right = boxes[:, :, None, None].unbind(dim=1)  # (B, 1, 1) each
    row = torch.arange(height, device=boxes.device)[:, None]  # (H, 1)
    column = torch.arange(width, device=boxes.device)  # (W,)
    inside = (row >= top) & (row < bottom) & (column >= left) & (column < right)  # (B, H, W)
    return _shared_out(inside), _shared_out(~inside)


def attention_loss(attention: Tensor, inside: Tensor, outside: Tensor, threshold: float = 0.5) -> Tensor:
    """Returns L_a of each image, (B,): Zhuang et al. 2023.

    Args:
        attention: M, (B, H, W), in [0, 1].
        inside: Weights of the pixels in the box, (B, H, W), from `region_masks`.
        outside: Weights of the other pixels, (B, H, W).
        threshold: T, the mean attention inside beyond which more is not rewarded.
    """
    mean_inside = (attention * inside).sum(dim=(1, 2))
    mean_outside = (attention * outside).sum(dim=(1, 2))
    return mean_outside - mean_inside.clamp_max(threshold)


def _shared_out(region: Tensor) -> Tensor:
    """Returns 1 / area on the pixels of each region, (B, H, W), and 0 elsewhere."""
    return region / region.sum(dim=(1, 2), keepdim=True).clamp_min(1)
