"""The last maps of a backbone, from which its features are made: what attention is read from."""

import math

import torch
from torch import Tensor, nn

from raysk.errors import ConfigError
from raysk.parts.backbones import Backbone
from raysk.parts.pooling import layer_of


def last_maps(backbone: Backbone, images: Tensor) -> Tensor:
    """Returns the last layer on whose positions the features depend, for normalised images (B, 3, H, W).

    It is the output of the last layer, in the layout of the network, or, where the features are a class token, the
    input of the last block: after it, the token depends on no position.
    """
    network = backbone.network
    if not _reads_token(backbone):
        maps: Tensor = network.forward_features(images)  # type: ignore[operator]
        return maps
    before: list[Tensor] = []
    with _last_block(backbone).register_forward_pre_hook(lambda _, inputs: before.append(inputs[0])):
        network.forward_features(images)  # type: ignore[operator]
    return before[0]


def pooled(backbone: Backbone, maps: Tensor) -> Tensor:
    """Returns the features (B, D) that the backbone makes of the output of `last_maps`; of one layer only."""
    network = backbone.network
    if _reads_token(backbone):
        maps = network.norm(_last_block(backbone)(maps))  # type: ignore[operator]
    if backbone.pooling in ("network", "none"):
        features: Tensor = network.forward_head(maps)  # type: ignore[operator]
        return features.flatten(1)
    return layer_of(network, backbone.name, maps).pooled(backbone.pooling)


def grid(backbone: Backbone, maps: Tensor) -> Tensor:
    """Returns the output of `last_maps`, or its gradient, as maps (B, K, h, w) without the class token."""
    network = backbone.network
    positions = layer_of(network, backbone.name, maps).positions.transpose(1, 2)
    if maps.dim() == 4:
        is_last = getattr(network, "output_fmt", "NCHW") == "NHWC"
        return positions.unflatten(2, tuple(maps.shape[1:3] if is_last else maps.shape[2:]))
    sides = getattr(network.patch_embed, "grid_size", None) or (math.isqrt(positions.shape[2]),) * 2
    return positions.unflatten(2, tuple(sides))


def check_has_maps(backbone: Backbone, image_size: int) -> None:
    """Refuses a network without a map of what it looks at, or with one of a single position.

    Raises:
        ConfigError: It concatenates layers, its features are not made of its last maps, or these have one position.
    """
    name = backbone.name
    if backbone.num_layers > 1:
        raise ConfigError(f"model.layers must be 1 for a map of attention, but got {backbone.num_layers}: set it to 1")
    mode, weight = backbone.training, next(backbone.parameters())
    images = torch.rand(2, 3, image_size, image_size).to(weight)
    with torch.no_grad():
        try:
            backbone.eval()
            maps = last_maps(backbone, images)
            is_same = weight.is_meta or torch.allclose(pooled(backbone, maps), backbone(images), rtol=1e-3, atol=1e-4)
            num_positions = grid(backbone, maps).shape[2:].numel()
        except (AttributeError, TypeError, RuntimeError) as error:
            raise _no_attention(name, str(error).partition("\n")[0]) from error
        finally:
            backbone.train(mode)
    if not is_same:
        raise _no_attention(name, "its features are not made of its last maps alone")
    if num_positions == 1:
        raise ConfigError(
            f"image_size must give a map of attention more than one position, but {name} gives 1 by 1 at {image_size} "
            "pixels: raise image_size, or set model.output_stride=8"
        )


def _no_attention(name: str, reason: str) -> ConfigError:
    return ConfigError(
        f"model.backbone must have last maps or tokens to show its attention, but {name} has not ({reason}): set "
        "model.pooling=avg, or choose another"
    )


def _reads_token(backbone: Backbone) -> bool:
    return backbone.pooling in ("network", "token") and getattr(backbone.network, "cls_token", None) is not None


def _last_block(backbone: Backbone) -> nn.Module:
    return backbone.network.blocks[-1]  # type: ignore[index, return-value]
