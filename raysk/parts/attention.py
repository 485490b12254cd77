"""Attention to the lesion: the map of what a classifier looks at, and a loss that rewards attention on the lesion.

The map of an image of class y is M = sum_k alpha_k A_k, over the last maps A of the network, with alpha_k the mean of
the gradient of the logit z_y over the positions of A_k, a constant (Grad-CAM without its ReLU). Scaled to [0, 1] by its
own least and greatest value, and to the size of the image,

    L_a = -min(mean of M inside, T) + mean of M outside,    T = 0.5

(CARE: Zhuang et al. 2019 and 2023): attention inside the lesion's box is rewarded up to T, so that a part of the lesion
is enough; attention outside is penalised without limit. L_a is 1 at worst and -T at best.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor

from raysk.parts.scaling import scaling
from raysk.registry import Registry
from raysk.settings import Between, Settings


@dataclass(frozen=True, kw_only=True)
class Attention(Settings):
    """Settings of what guides the attention of a classifier in its training."""


attentions: Registry[type[Attention]] = Registry("attention")


@attentions.register("none")
@dataclass(frozen=True, kw_only=True)
class NoAttention(Attention):
    """Nothing guides the attention."""


@attentions.register("care")
@dataclass(frozen=True, kw_only=True)
class Care(Attention):
    """CARE (Zhuang et al. 2019, 2023): L = weight sum L_a + (1 - weight) L(logits), L_a of images of rare classes.

    Args:
        weight: alpha of the paper, which publishes 0.01. The sum is over the images of a batch with a known lesion.
        threshold: T, above which more attention inside earns no reward. The paper publishes 0.5.
        distance: delta: a pixel outside at distance d from the lesion's box counts 1 - exp(-(d / delta)^2), with
            distances in sides of the image; 0 counts all alike, as the paper's main experiments do. The form is ours.
        region: Where a lesion is: the "box" of the table, the box around its "mask", or around what stands out in the
            picture by "spectral_residual" or "fine_grained" saliency, which need neither.
        margin: How far the box is widened on each side, as a share of its width and height.
        classes: The rare classes, by name; empty for those of `rare`.
        rare: A class is rare if its share of the training rows is at most this.
    """

    weight: Annotated[float, Between(0, 1, open_low=True, open_high=True)] = 0.01
    threshold: Annotated[float, Between(0, 1, open_low=True)] = 0.5
    distance: Annotated[float, Between(0, 10)] = 0.0
    region: Literal["box", "mask", "spectral_residual", "fine_grained"] = "box"
    margin: Annotated[float, Between(0, 10)] = 0.0
    classes: tuple[str, ...] = ()
    rare: Annotated[float, Between(0, 1, open_low=True)] = 0.1

    @property
    def reads_regions(self) -> bool:
        """Whether the boxes or masks of the table say where lesions are, and not the pictures alone."""
        return self.region in ("box", "mask")


def box_regions(boxes: Tensor, height: int, width: int) -> Tensor:
    """Returns the pixels in each box, bool (B, height, width).

    Args:
        boxes: Top, bottom, left and right of each box in pixels, (B, 4), whole numbers; bottom and right are the first
            row below and the first column beside the box. Boxes are clipped to the image.
        height: Rows of the image.
        width: Columns of the image.
    """
    top, bottom, left, right = boxes[:, :, None, None].unbind(dim=1)  # (B, 1, 1) each
    row = torch.arange(height, device=boxes.device)[:, None]  # (H, 1)
    column = torch.arange(width, device=boxes.device)  # (W,)
    return (row >= top) & (row < bottom) & (column >= left) & (column < right)


def region_weights(regions: Tensor, distance: float = 0.0) -> tuple[Tensor, Tensor]:
    """Returns weights of the pixels inside and outside each region, (B, H, W) each, in float32.

    The weights of a part sum to 1, so that the weighted sum of a map is its mean there; inside, and outside for a
    `distance` of 0, they are equal. An empty part, such as the outside of a region that covers the image, has weights
    of 0 and is not scored: our choice.

    Args:
        regions: The pixels of each region, bool (B, H, W).
        distance: See `Care`.
    """
    inside, outside = regions.float(), (~regions).float()
    if distance:
        outside = outside * (1 - torch.exp(-((_distances(regions) / distance) ** 2)))
    return _to_mean(inside), _to_mean(outside)


def at_map_size(weights: Tensor, height: int, width: int) -> Tensor:
    """Returns weights (B, h, w) of a map of this size: their sum with it is that of `weights` with the scaled map.

    Scaling a map M to the image is linear, U M, so that <weights, U M> = <U' weights, M>. Nothing of the image's size
    is then computed for the map or its gradient.

    Args:
        weights: (B, H, W).
        height: h.
        width: w.
    """
    rows = scaling(height, weights.shape[1]).to(weights.device)  # (h, H)
    columns = scaling(width, weights.shape[2]).to(weights.device)  # (w, W)
    return rows @ weights @ columns.T


def attention_map(maps: Tensor, alphas: Tensor) -> Tensor:
    """Returns M of each image in [0, 1], (B, h, w); 0 everywhere where M is the same at all positions.

    Args:
        maps: A, (B, K, h, w).
        alphas: (B, K), constants.
    """
    raw = torch.einsum("bkhw,bk->bhw", maps.float(), alphas.float())
    least, greatest = raw.amin(dim=(1, 2), keepdim=True), raw.amax(dim=(1, 2), keepdim=True)
    is_flat = greatest <= least
    return (raw - least) / torch.where(is_flat, torch.ones_like(least), greatest - least) * ~is_flat


def attention_loss(attention: Tensor, inside: Tensor, outside: Tensor, threshold: float = 0.5) -> Tensor:
    """Returns L_a of each image, (B,): Zhuang et al. 2023.

    Args:
        attention: M, (B, H, W), in [0, 1].
        inside: Weights of the pixels in the box, (B, H, W), from `region_weights`.
        outside: Weights of the other pixels, (B, H, W).
        threshold: T, above which more mean attention inside earns no reward.
    """
    mean_inside = (attention * inside).sum(dim=(1, 2))
    mean_outside = (attention * outside).sum(dim=(1, 2))
    return mean_outside - mean_inside.clamp_max(threshold)


def _to_mean(weights: Tensor) -> Tensor:
    """Returns weights (B, H, W) that sum to 1, or to 0 where all are 0."""
    total = weights.sum(dim=(1, 2), keepdim=True)
    return weights / torch.where(total > 0, total, torch.ones_like(total))


def _distances(regions: Tensor) -> Tensor:
    """Returns the distance of each pixel from the box around its region, in sides of the image, (B, H, W)."""
    away = []
    for dim, length in ((2, regions.shape[1]), (1, regions.shape[2])):
        place = torch.arange(length, device=regions.device)
        used = regions.any(dim=dim)  # (B, length)
        first = torch.where(used, place, length).amin(dim=1, keepdim=True)
        last = torch.where(used, place, -1).amax(dim=1, keepdim=True)
        away.append(torch.maximum(first - place, place - last).clamp_min(0) / length)
    return (away[0][:, :, None] ** 2 + away[1][:, None, :] ** 2).sqrt()
