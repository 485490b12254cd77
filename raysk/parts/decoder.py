"""A U-Net decoder: from the maps of a backbone to a logit for each pixel."""

from collections.abc import Sequence
from math import gcd

import torch
from torch import Tensor, nn

from raysk.errors import ConfigError
from raysk.parts.backbones import Backbone
from raysk.parts.scaling import scaled

# Group norm, unlike batch norm, gives an image the same logits in any batch, and with any number of workers.
_GROUPS = 8


def maps_of(backbone: Backbone, images: Tensor) -> list[Tensor]:
    """Returns the last map (B, D, h, w) of each size that a network has, the smallest first.

    Args:
        backbone: The network.
        images: (B, 3, H, W), normalised.
    """
    every: list[Tensor] = backbone.network.forward_intermediates(images, intermediates_only=True)  # type: ignore[operator]
    return list({maps.shape[2:]: maps for maps in every}.values())[::-1]


class Decoder(nn.Module):
    """The expanding half of a U-Net (Ronneberger, Fischer and Brox 2015), on the maps of any backbone.

    It starts at the smallest map. Each level doubles the size, joins the map of the backbone that has this size, and
    convolves twice. A network with few sizes, such as a transformer, has levels without such a map. The last level has
    at least half of the size of the image, and its logits are scaled to it.

    Args:
        channels: Channels of the maps of the backbone, the smallest map first.
        sizes: Their heights.
        image_size: Height of the image.
        width: Channels of each level.
    """

    def __init__(self, channels: Sequence[int], sizes: Sequence[int], image_size: int, width: int) -> None:
        super().__init__()
        self.image_size = image_size
        known = dict(zip(sizes, channels, strict=True))
        self.sizes = _levels(sizes, image_size)
        self.stem = _convolved(channels[0], width)
        self.levels = nn.ModuleList(
            nn.Sequential(_convolved(width + known.get(size, 0), width), _convolved(width, width))
            for size in self.sizes
        )
        self.last = nn.Conv2d(width, 1, kernel_size=1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Returns logits (B, H, W) of the maps that `maps_of` returns."""
        joined = {each.shape[2]: each for each in maps[1:]}
        values = self.stem(maps[0])
        for size, level in zip(self.sizes, self.levels, strict=True):
            values = scaled(values, size)
            values = level(torch.cat([values, joined[size]], dim=1) if size in joined else values)
        return scaled(self.last(values), self.image_size).squeeze(1)


def decoder_for(backbone: Backbone, image_size: int, width: int) -> Decoder:
    """Returns a decoder on the maps of a backbone, which stays unchanged.

    Raises:
        ConfigError: The network does not give its maps.
    """
    mode, weight = backbone.training, next(backbone.parameters())
    try:
        with torch.no_grad():
            maps = maps_of(backbone.eval(), torch.zeros(1, 3, image_size, image_size).to(weight))
        channels, sizes = [each.shape[1] for each in maps], [each.shape[2] for each in maps]
        decoder = Decoder(channels, sizes, image_size, width).to(weight.device)
    except (AttributeError, AssertionError, TypeError, RuntimeError, IndexError) as error:
        raise ConfigError(
            f"model.backbone must give its maps to a decoder, but {backbone.name} does not "
            f"({str(error).partition(chr(10))[0]}): choose another"
        ) from error
    finally:
        backbone.train(mode)
    return decoder


def _levels(sizes: Sequence[int], image_size: int) -> tuple[int, ...]:
    """Returns the sizes of the levels above the smallest map: those of the other maps, then doubled to half the image.

    A step between two maps is at most a factor of two.
    """
    levels, size = [], sizes[0]
    for target in (*sizes[1:], -(-image_size // 2)):
        while size < target:
            size = target if 2 * size >= target else 2 * size
            levels.append(size)
    return tuple(levels)


def _convolved(num_in: int, num_out: int) -> nn.Module:
    convolution = nn.Conv2d(num_in, num_out, kernel_size=3, padding=1, bias=False)
    return nn.Sequential(convolution, nn.GroupNorm(gcd(_GROUPS, num_out), num_out), nn.ReLU(inplace=True))
