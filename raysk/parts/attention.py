"""Attention to a region of the image: pixel weights inside and outside a box, and a loss that rewards attention inside.

The attention map M of an image has a value in [0, 1] per pixel. For a box around the lesion,

    L_a = -min(mean of M inside, T) + mean of M outside,    T = 0.5

(Zhuang et al. 2023): attention inside is rewarded up to T, so that a part of the lesion is enough; attention outside is
penalised without limit. L_a is 1 at worst and -T at best.
"""

import torch
from torch import Tensor


def region_masks(boxes: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Returns weights of the pixels inside and outside each box, (B, height, width) each, in float32.

    The weights of a region are equal and sum to 1, so that the weighted sum of a map is its mean in the region. An
    empty region, such as the outside of a box that covers the image, has weights of 0 and is not scored: our choice.

    Args:
        boxes: Top, bottom, left and right of each box in pixels, (B, 4), whole numbers; bottom and right are the first
            row below and the first column beside the box. Boxes are clipped to the image.
        height: Rows of the image.
        width: Columns of the image.
    """
    top, bottom, left, right = boxes[:, :, None, None].unbind(dim=1)  # (B, 1, 1) each
    row = torch.arange(height, device=boxes.device)[:, None]  # (H, 1)
    column = torch.arange(width, device=boxes.device)  # (W,)
    inside = (row >= top) & (row < bottom) & (column >= left) & (column < right)  # (B, H, W)
    return _mean_weights(inside), _mean_weights(~inside)


def attention_loss(attention: Tensor, inside: Tensor, outside: Tensor, threshold: float = 0.5) -> Tensor:
    """Returns L_a of each image, (B,): Zhuang et al. 2023.

    Args:
        attention: M, (B, H, W), in [0, 1].
        inside: Weights of the pixels in the box, (B, H, W), from `region_masks`.
        outside: Weights of the other pixels, (B, H, W).
        threshold: T, above which more mean attention inside earns no reward.
    """
    mean_inside = (attention * inside).sum(dim=(1, 2))
    mean_outside = (attention * outside).sum(dim=(1, 2))
    return mean_outside - mean_inside.clamp_max(threshold)


def _mean_weights(region: Tensor) -> Tensor:
    """Returns 1 / area on the pixels of each region, (B, H, W), and 0 elsewhere."""
    return region / region.sum(dim=(1, 2), keepdim=True).clamp_min(1)
