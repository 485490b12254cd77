"""Backbones by their timm names, from images to pooled features; only this module imports timm."""

import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from raysk.errors import ConfigError, TrainingError
from raysk.parts.pooling import Pooling, check_pooling, last_layers
from raysk.parts.weights import Origin, read_weights
from raysk.registry import unknown_name


class Backbone(nn.Module):
    """A timm network without its classifier.

    Args:
        network: The timm network.
        name: Its timm name.
        pooling: How it pools its last layers.
        layers: Number L of last layers whose pooled features are concatenated, the last one first.

    Attributes:
        network: The timm network.
        num_features: Width D of the features; set by `create_backbone`.
        mean: Mean of each colour in the training of the pretrained weights, for pixels in [0, 1].
        std: Standard deviation of each colour in that training.
    """

    num_features: int

    def __init__(self, network: Any, name: str, pooling: Pooling, layers: int) -> None:
        super().__init__()
        self.network: nn.Module = network
        self.name, self.pooling, self.num_layers = name, pooling, layers
        self.mean: tuple[float, ...] = tuple(network.pretrained_cfg["mean"])
        self.std: tuple[float, ...] = tuple(network.pretrained_cfg["std"])

    def forward(self, images: Tensor) -> Tensor:
        """Returns features (B, D), pooled or whole maps, of normalised images (B, 3, H, W)."""
        if self.pooling in ("network", "none"):
            features: Tensor = self.network(images)
            return features.flatten(1)
        outputs = last_layers(self.network, self.name, images, self.num_layers)
        return torch.cat([output.pooled(self.pooling) for output in outputs], dim=1)

    def layers(self) -> dict[str, int]:
        """Returns the number of the layer of each parameter, counted from the pixels, as timm divides the network.

        Raises:
            ConfigError: timm does not divide it.
        """
        matcher = getattr(self.network, "group_matcher", None)
        if matcher is None:
            raise ConfigError(
                f"optimizer.layer_decay must be 1 for {type(self.network).__name__}, which timm does not divide into "
                "layers: set it to 1, or choose another backbone"
            )
        numbers = _load_timm().models.group_parameters(self.network, matcher(coarse=False), reverse=True)
        return {f"network.{name}": number for name, number in numbers.items()}


def check_backbone(name: str) -> None:
    """Refuses names that timm cannot build; builds nothing.

    Raises:
        ConfigError: timm has no architecture of this name, or no weights with this tag.
    """
    timm = _load_timm()
    architecture, _, tag = name.partition(".")
    # Lists names for the error only: a search checks thousands of recipes, and timm takes 4 ms to list its names.
    if not timm.is_model(architecture):
        raise unknown_name("backbone", name, timm.list_models())
    if tag:
        tags = [pretrained.partition(".")[2] for pretrained in timm.list_pretrained(f"{architecture}.*")]
        if tag not in tags:
            raise unknown_name(f"weights of {architecture}", tag, tags)


def create_backbone(
    name: str,
    pretrained: bool,
    checkpoint: str | Path | None,
    image_size: int | None = None,
    pooling: Pooling = "network",
    layers: int = 1,
    output_stride: int = 32,
) -> Backbone:
    """Returns the network called `name`, in training mode.

    Args:
        name: A timm name, such as "resnet18", or "resnet18.a1_in1k" with the tag of its weights.
        pretrained: Whether to fetch the published weights, or read them from the cache of an earlier fetch.
        checkpoint: Safetensors file with weights under timm's names; if given, nothing is fetched.
        image_size: Side of the images in pixels; networks of a fixed input size are built for this size.
        pooling: "network" pools as the network does, nearly always by the mean of its maps or by its class token;
            "none" keeps every position of the last maps, so that the width grows with the image size and all images
            must have this size; see `pooling.Layer.pooled` for the others.
        layers: Number of last layers whose pooled features are concatenated.
        output_stride: Pixels of the image per position of the last maps; 32 leaves the network as it is.

    Raises:
        ConfigError: timm has no such network or weights, the checkpoint does not fit it, or it cannot pool this way or
            has no such stride.
        TrainingError: The weights could not be fetched.
    """
    check_backbone(name)
    timm = _load_timm()
    published = timm.models.get_pretrained_cfg(name)
    fetch = pretrained and checkpoint is None
    if fetch and not published.has_weights:
        raise ConfigError(
            f"model.pretrained needs published weights, but timm has none for {name}: "
            "set model.pretrained=false, model.weights=DIR or model.checkpoint=FILE"
        )
    options: dict[str, Any] = {"global_pool": ""} if pooling == "none" else {}
    if output_stride != 32:
        options["output_stride"] = output_stride
    if published.fixed_input_size and image_size is not None:
        options["img_size"] = image_size
    try:
        network = timm.create_model(name, pretrained=fetch, num_classes=0, **options)
    except (AssertionError, NotImplementedError, TypeError) as error:
        if output_stride != 32:
            raise ConfigError(
                f"model.output_stride must be 32 for {name}, which timm cannot dilate, but got {output_stride}: set it "
                "to 32, or choose another backbone"
            ) from error
        if pooling != "none" or not isinstance(error, AssertionError):
            raise
        raise _no_maps(name, _first_line(error)) from error
    except OSError as error:
        raise TrainingError(
            f"the weights of {name} must be fetched once, but that failed ({_first_line(error)}): set "
            "model.pretrained=false to train from scratch, or model.checkpoint=FILE or model.weights=DIR to read them"
        ) from error
    check_pooling(network, name, pooling, layers)
    if checkpoint is not None:
        _load_weights(network, name, Path(checkpoint))
    backbone = Backbone(network, name, pooling, layers)
    if pooling == "network":
        # Some networks (MobileNet-v3, VGG) have layers between pooling and classifier: timm's num_features is the width
        # before them.
        backbone.num_features = int(network.head_hidden_size)
    else:
        backbone.num_features = _width(backbone, image_size or published.input_size[-1])
    return backbone


def published_weights(name: str) -> str:
    """Returns the full name of the published weights that `create_backbone` fetches for a timm name."""
    published = _load_timm().models.get_pretrained_cfg(name)
    return f"{published.architecture}.{published.tag}"


def _width(backbone: Backbone, image_size: int) -> int:
    """Returns the width of the features; leaves the network and its running statistics unchanged."""
    backbone.eval()
    with torch.no_grad():
        images = torch.zeros(1, 3, image_size, image_size)
        if backbone.pooling == "none":
            features = backbone.network(images)
            if not isinstance(features, Tensor) or features.dim() != 4:
                shape = f"features {tuple(features.shape)}" if isinstance(features, Tensor) else "several features"
                raise _no_maps(backbone.name, f"{shape} of one image")
            width = features.numel()
        else:
            width = backbone(images).shape[1]
    if backbone.pooling != "none":
        _freeze_unused(backbone, images)
    backbone.train()
    return width


def _freeze_unused(backbone: Backbone, images: Tensor) -> None:
    """Freezes the weights that the features do not depend on, such as a layer after the network's own pooling.

    Workers that train together wait for the gradient of each weight that is not frozen.
    """
    weights = list(backbone.parameters())
    gradients = torch.autograd.grad(backbone(images).sum(), weights, allow_unused=True)
    for weight, gradient in zip(weights, gradients, strict=True):
        weight.requires_grad_(gradient is not None)


def _no_maps(name: str, reason: str) -> ConfigError:
    return ConfigError(
        f"model.pooling must be avg for a network whose features are not maps, but got none for {name} ({reason}): "
        "set model.pooling=avg, or choose a convolutional network"
    )


def _load_weights(network: Any, name: str, path: Path) -> None:
    """Loads the weights of a network from a file, all of them or none.

    timm's own loader leaves missing weights at random values and reports this in a log only.
    """
    weights = read_weights(path)
    if weights.origin is not None:
        _check_origin(weights.origin, network, name, path)
    classifiers = network.pretrained_cfg["classifier"] or ()
    classifiers = (classifiers,) if isinstance(classifiers, str) else tuple(classifiers)
    kept = {key: value for key, value in weights.tensors.items() if key.rpartition(".")[0] not in classifiers}
    rule = f"a file of weights must hold those of {name}"
    remedy = "give a file of this architecture, or set model.backbone to the one that it was made with"
    try:
        result = _fill(network, kept)
    except RuntimeError as error:  # Shapes differ; torch reports one line per tensor.
        mismatch = str(error).splitlines()[-1].strip().rstrip(".")
        raise ConfigError(f"{rule}, but {path} has a {mismatch}: {remedy}") from error
    if result.missing_keys or result.unexpected_keys:
        wrong = f"lacks {result.missing_keys[0]}" if result.missing_keys else f"also has {result.unexpected_keys[0]}"
        raise ConfigError(f"{rule}, but {path} {wrong}: {remedy}")
    if not all(bool(tensor.isfinite().all()) for tensor in kept.values()):
        raise ConfigError(f"{rule}, but {path} has weights that are not finite: give another file")


def _check_origin(origin: Origin, network: Any, name: str, path: Path) -> None:
    """Refuses weights of another architecture, or that expect other colours than those of this name.

    Raises:
        ConfigError: They do.
    """
    expected = tuple(network.pretrained_cfg["mean"]), tuple(network.pretrained_cfg["std"])
    is_same = origin.backbone.partition(".")[0] == name.partition(".")[0]
    if not is_same or not np.allclose(expected, (origin.mean, origin.std)):
        raise ConfigError(
            f"model.backbone must be that of the weights, but got {name} for {path}, whose encoder is a "
            f"{origin.backbone}: set model.backbone={origin.backbone}"
        )


def _fill(network: nn.Module, weights: dict[str, Tensor]) -> Any:
    """Loads weights; if they are of another image size, with the positions that timm interpolates between theirs."""
    try:
        return network.load_state_dict(weights, strict=False)
    except RuntimeError:
        interpolate = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
        shapes = {key: value.shape for key, value in network.state_dict().items()}
        differing = [key for key, value in weights.items() if key in shapes and shapes[key] != value.shape]
        if interpolate is None or not all(key.endswith("pos_embed") for key in differing):
            raise
        return network.load_state_dict(interpolate(weights, network), strict=False)


def _first_line(error: Exception) -> str:
    """Returns the first line of another library's error."""
    return str(error).partition("\n")[0].rstrip(".") or type(error).__name__


@cache
def _load_timm() -> ModuleType:
    """Imports timm on first use: the import takes seconds, and losses and heads do not need it.

    torchvision's wheel from the registry is built for CUDA. With a torch without CUDA its compiled operators do not
    load, and its import fails at the first lookup of one. raysk uses none of them, so it is enough to declare the two
    that are looked up.
    """
    try:
        import torchvision  # noqa: F401
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        for operator in ("nms", "qnms"):
            torch.library.define(
                f"torchvision::{operator}",
                "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
                lib=_declarations(),
            )
    import timm

    return timm


@cache
def _declarations() -> torch.library.Library:
    """Returns the library of the declared operators, and keeps it alive: they vanish when it is collected."""
    return torch.library.Library("torchvision", "FRAGMENT")
