"""Pooling: from the last layers of a timm network to the features of an image."""

import inspect
from typing import Any, Literal

import torch
from torch import Tensor

from raysk.errors import ConfigError

Pooling = Literal["network", "avg", "gem", "token", "both", "none"]

# The exponent of the generalised mean, at which Radenovic et al. 2018 start; a ready encoder learns none.
_EXPONENT, _LEAST = 3.0, 1e-6


class Layer:
    """The output of one layer: a vector for each position, and the class token if there is one.

    Args:
        positions: (B, P, D).
        token: (B, D); None without a class token.
    """

    def __init__(self, positions: Tensor, token: Tensor | None) -> None:
        self.positions, self.token = positions, token

    def pooled(self, pooling: Pooling) -> Tensor:
        """Returns one vector for each image: (B, D), and (B, 2 D) for "both".

        "avg" is the mean over the positions; "gem" is their generalised mean (Radenovic, Tolias and Chum 2018, equation
        3), (mean of max(x, 1e-6)^3)^(1/3); "token" is the class token; "both" is the class token beside the mean.
        """
        if pooling == "gem":
            return self.positions.clamp_min(_LEAST).pow(_EXPONENT).mean(dim=1).pow(1 / _EXPONENT)
        mean = self.positions.mean(dim=1)
        if pooling == "avg" or self.token is None:
            return mean
        return self.token if pooling == "token" else torch.cat([self.token, mean], dim=1)


def check_pooling(network: Any, name: str, pooling: Pooling, layers: int) -> None:
    """Refuses a pooling, or a number of layers, that a timm network does not have.

    Raises:
        ConfigError: It has no class token, or gives no layers but the last.
    """
    if pooling in ("token", "both") and getattr(network, "cls_token", None) is None:
        raise ConfigError(
            f"model.pooling must be network, avg or gem for a network without a class token, but got {pooling} for "
            f"{name}: choose one of these"
        )
    if layers > 1 and pooling in ("network", "none"):
        raise ConfigError(
            f"model.layers must be 1 with model.pooling={pooling}, which pools the last layer only, but got {layers}: "
            "set model.pooling=avg"
        )
    if layers > 1 and not hasattr(network, "forward_intermediates"):
        raise ConfigError(
            f"model.layers must be 1 for {name}, whose earlier layers timm does not give, but got {layers}: set it to "
            "1, or choose another backbone"
        )


def last_layers(network: Any, name: str, images: Tensor, number: int) -> list[Layer]:
    """Returns the last layers of a timm network, the last one first.

    A layer of a convolutional network is a stage between two reductions of its maps, and one of a transformer is a
    block. The last one is as the network's classifier gets it, before it is pooled.

    Raises:
        ConfigError: The network has fewer layers, or gives something else.
    """
    if number == 1:
        return [layer_of(network, name, network.forward_features(images))]
    options: dict[str, Any] = {"indices": number}
    known = inspect.signature(network.forward_intermediates).parameters
    if getattr(network, "num_prefix_tokens", 0) and "return_prefix_tokens" in known:
        options |= {"return_prefix_tokens": True, "norm": True}
    try:
        last, earlier = network.forward_intermediates(images, **options)
    except AssertionError as error:
        raise ConfigError(
            f"model.layers must be at most the number of layers of {name}, but got {number}: choose fewer"
        ) from error
    return [layer_of(network, name, last), *(_earlier(maps) for maps in reversed(earlier[:-1]))]


def layer_of(network: Any, name: str, features: Any) -> Layer:
    """Returns the last layer from its output in the layout of its network: (B, N, D), (B, D, H, W) or (B, H, W, D).

    Raises:
        ConfigError: It has another layout.
    """
    if isinstance(features, Tensor) and features.dim() == 3:
        prefix = int(getattr(network, "num_prefix_tokens", 0))
        token = features[:, 0] if getattr(network, "cls_token", None) is not None else None
        return Layer(features[:, prefix:], token)
    if isinstance(features, Tensor) and features.dim() == 4:
        is_last = getattr(network, "output_fmt", "NCHW") == "NHWC"
        return Layer(features.flatten(1, 2) if is_last else features.flatten(2).transpose(1, 2), None)
    shape = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
    raise ConfigError(
        f"model.pooling must be network for a network whose last layer is neither maps nor tokens, but {name} gives "
        f"{shape}: set model.pooling=network and model.layers=1"
    )


def _earlier(maps: Any) -> Layer:
    """Returns an earlier layer, which timm gives as maps (B, D, H, W), of a transformer beside its prefix tokens."""
    prefix = None
    if isinstance(maps, tuple):
        maps, prefix = maps
    return Layer(maps.flatten(2).transpose(1, 2), None if prefix is None else prefix[:, 0])
