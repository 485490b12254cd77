"""Backbones by their timm names, from images to pooled features; only this module imports timm."""

from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from raysk.errors import ConfigError, TrainingError
from raysk.registry import unknown_name

Pooling = Literal["avg", "none"]


class Backbone(nn.Module):
    """A timm network without its classifier.

    Args:
        network: The timm network.
        num_features: Width D of the features.

    Attributes:
        network: The timm network.
        num_features: Width D of the features.
        mean: Mean of each colour in the training of the pretrained weights, for pixels in [0, 1].
        std: Standard deviation of each colour in that training.
    """

    def __init__(self, network: Any, num_features: int) -> None:
        super().__init__()
        self.network: nn.Module = network
        self.num_features = num_features
        self.mean: tuple[float, ...] = tuple(network.pretrained_cfg["mean"])
        self.std: tuple[float, ...] = tuple(network.pretrained_cfg["std"])

    def forward(self, images: Tensor) -> Tensor:
        """Returns features (B, D), pooled or whole maps, of normalised images (B, 3, H, W)."""
        return self.network(images).flatten(1)

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
    checkpoint: str | None,
    image_size: int | None = None,
    pooling: Pooling = "avg",
) -> Backbone:
    """Returns the network called `name`, in training mode.

    Args:
        name: A timm name, such as "resnet18", or "resnet18.a1_in1k" with the tag of its weights.
        pretrained: Whether to fetch the published weights, or read them from the cache of an earlier fetch.
        checkpoint: Safetensors file with weights under timm's names; if given, nothing is fetched.
        image_size: Side of the images in pixels; networks of a fixed input size are built for this size.
        pooling: "avg" pools as the network does, nearly always by the mean of its maps; "none" keeps every position of
            the last maps, so that the width grows with the image size and all images must have this size.

    Raises:
        ConfigError: timm has no such network or weights, the checkpoint does not fit it, or its features are not maps.
        TrainingError: The weights could not be fetched.
    """
    check_backbone(name)
    timm = _load_timm()
    published = timm.models.get_pretrained_cfg(name)
    fetch = pretrained and checkpoint is None
    if fetch and not published.has_weights:
        raise ConfigError(
            f"model.pretrained needs published weights, but timm has none for {name}: "
            "set model.pretrained=false or model.checkpoint=FILE"
        )
    options: dict[str, Any] = {"global_pool": ""} if pooling == "none" else {}
    if published.fixed_input_size and image_size is not None:
        options["img_size"] = image_size
    try:
        network = timm.create_model(name, pretrained=fetch, num_classes=0, **options)
    except AssertionError as error:
        if pooling == "avg":
            raise
        raise _no_maps(name, _first_line(error)) from error
    except OSError as error:
        raise TrainingError(
            f"the weights of {name} must be fetched once, but that failed ({_first_line(error)}): "
            "set model.pretrained=false to train from scratch, or model.checkpoint=FILE to read them from a file"
        ) from error
    if checkpoint is not None:
        _read_weights(network, name, Path(checkpoint))
    if pooling == "none":
        return Backbone(network, _width_of_maps(network, name, image_size or published.input_size[-1]))
    # Some networks (MobileNet-v3, VGG) have layers between pooling and classifier: timm's num_features is the width
    # before them.
    return Backbone(network, int(network.head_hidden_size))


def _width_of_maps(network: Any, name: str, image_size: int) -> int:
    """Returns the size of one image's maps; leaves the network and its running statistics unchanged."""
    network.eval()
    with torch.no_grad():
        features = network(torch.zeros(1, 3, image_size, image_size))
    network.train()
    if not isinstance(features, Tensor) or features.dim() != 4:
        shape = f"features {tuple(features.shape)}" if isinstance(features, Tensor) else "several features"
        raise _no_maps(name, f"{shape} of one image")
    return features.numel()


def _no_maps(name: str, reason: str) -> ConfigError:
    return ConfigError(
        f"model.pooling must be avg for a network whose features are not maps, but got none for {name} ({reason}): "
        "set model.pooling=avg, or choose a convolutional network"
    )


def _read_weights(network: Any, name: str, path: Path) -> None:
    """Loads the weights of a network from a file, all of them or none.

    timm's own loader leaves missing weights at random values and reports this in a log only.
    """
    rule = f"model.checkpoint must hold the weights of {name}"
    if not path.is_file():
        raise ConfigError(f"{rule}, but {path} is not a file: correct the path")
    try:
        # Reading other formats can run code.
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ConfigError(
            f"{rule}, but {path} is not readable ({_first_line(error)}): save it as .safetensors"
        ) from error

    classifiers = network.pretrained_cfg["classifier"] or ()
    classifiers = (classifiers,) if isinstance(classifiers, str) else tuple(classifiers)
    kept = {key: value for key, value in weights.items() if key.rpartition(".")[0] not in classifiers}
    remedy = "give a file of this architecture, or choose the backbone that it was made with"
    try:
        result = network.load_state_dict(kept, strict=False)
    except RuntimeError as error:  # Shapes differ; torch reports one line per tensor.
        mismatch = str(error).splitlines()[-1].strip().rstrip(".")
        raise ConfigError(f"{rule}, but {path} has a {mismatch}: {remedy}") from error
    if result.missing_keys or result.unexpected_keys:
        wrong = f"lacks {result.missing_keys[0]}" if result.missing_keys else f"also has {result.unexpected_keys[0]}"
        raise ConfigError(f"{rule}, but {path} {wrong}: {remedy}")


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
