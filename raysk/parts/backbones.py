"""Networks from images to pooled features, by their timm names; the only module that imports timm."""

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
        num_features: Width D of what `forward` gives.

    Attributes:
        network: The timm network.
        num_features: Width D of what `forward` gives.
        mean: Mean of each colour, of pixels in [0, 1], that its pretrained weights were trained with.
        std: Their standard deviation.
    """

    def __init__(self, network: Any, num_features: int) -> None:
        super().__init__()
        self.network: nn.Module = network
        self.num_features = num_features
        self.mean: tuple[float, ...] = tuple(network.pretrained_cfg["mean"])
        self.std: tuple[float, ...] = tuple(network.pretrained_cfg["std"])

    def forward(self, images: Tensor) -> Tensor:
        """Returns features (B, D), of pooled or whole maps, of normalised images (B, 3, H, W)."""
        return self.network(images).flatten(1)


def check_backbone(name: str) -> None:
    """Refuses what timm cannot build, without building it.

    Raises:
        ConfigError: No architecture of timm has that name, or none of its weights has that tag.
    """
    timm = _load_timm()
    architecture, _, tag = name.partition(".")
    # A search makes thousands of recipes, and timm takes 4 ms to list its names.
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
        name: A timm name, such as "resnet18" or, with the tag of certain weights, "resnet18.a1_in1k".
        pretrained: Fetch the published weights, or take them from the cache of an earlier fetch.
        checkpoint: Safetensors file with weights in timm's names; nothing is fetched then.
        image_size: Side of the images in pixels; networks that are built for one size are built for this one.
        pooling: "avg" pools as the network does, by the mean of its maps but for a few; "none" keeps every place of
            the last maps, so that the width grows with the image size, which must then be that of all images.

    Raises:
        ConfigError: timm has no such network or weights, the checkpoint does not fit it, or its features are no maps.
        TrainingError: The weights could not be fetched.
    """
    check_backbone(name)
    timm = _load_timm()
    published = timm.models.get_pretrained_cfg(name)
    fetch = pretrained and checkpoint is None
    if fetch and not published.has_weights:
        raise ConfigError(
            f"model.pretrained needs published weights, but timm has none of {name}: "
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
    # before these.
    return Backbone(network, int(network.head_hidden_size))


def _width_of_maps(network: Any, name: str, image_size: int) -> int:
    """Returns the size of the maps of one image; the network, running statistics included, stays as it is."""
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
        f"model.pooling must be avg for a network whose features are no maps, but got none for {name} ({reason}): "
        "set model.pooling=avg, or choose a convolutional network"
    )


def _read_weights(network: Any, name: str, path: Path) -> None:
    """Fills a network from a file, all of it or not at all.

    timm's own way leaves what the file lacks at random values, and says so in a log only.
    """
    rule = f"model.checkpoint must hold the weights of {name}"
    if not path.is_file():
        raise ConfigError(f"{rule}, but {path} is no file: correct the path")
    try:
        # Other formats can run code when they are read.
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
    except RuntimeError as error:  # Shapes differ; torch gives a line to each tensor.
        mismatch = str(error).splitlines()[-1].strip().rstrip(".")
        raise ConfigError(f"{rule}, but {path} has a {mismatch}: {remedy}") from error
    if result.missing_keys or result.unexpected_keys:
        wrong = f"lacks {result.missing_keys[0]}" if result.missing_keys else f"also has {result.unexpected_keys[0]}"
        raise ConfigError(f"{rule}, but {path} {wrong}: {remedy}")


def _first_line(error: Exception) -> str:
    """Returns what an error of another library says, in one line."""
    return str(error).partition("\n")[0].rstrip(".") or type(error).__name__


@cache
def _load_timm() -> ModuleType:
    """Imports timm when a network is first asked for: it takes seconds, and losses and heads do without.

    torchvision's wheel from the registry is built for CUDA. Beside a torch without CUDA its compiled operators do not
    load, and its import fails at the first that it looks up. raysk uses none of them, so declaring the two that are
    looked up is enough.
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
    """Returns the holder of the declared operators, and keeps it: they vanish when it is collected."""
    return torch.library.Library("torchvision", "FRAGMENT")
