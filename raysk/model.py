"""The settings of the network that encodes an image."""

from dataclasses import dataclass
from os.path import abspath
from pathlib import Path
from typing import Annotated, Literal

from raysk.errors import ConfigError
from raysk.parts.backbones import check_backbone
from raysk.parts.pooling import Pooling
from raysk.parts.precision import Precision
from raysk.settings import Between, Settings


@dataclass(frozen=True, kw_only=True)
class Model(Settings):
    """The network that encodes an image.

    Args:
        backbone: Name of a timm model.
        pretrained: Whether to load timm's weights.
        checkpoint: A safetensors file of backbone weights to load instead.
        weights: A folder of safetensors files to load from instead, each called by the timm name of its backbone.
        seen: Whether the weights may have seen rows that the study scores; every row of the board then says so.
        output_stride: Pixels of the image per position of the last maps of a convolutional network. The usual 32 gives
            a picture of 48 pixels 2 x 2 positions; 16 and 8 dilate the last stages instead of shrinking their maps.
        pooling: "network" pools as the network does, "avg" gives the mean of the last feature map, "gem" its
            generalised mean, "token" the class token, "both" the token and the mean, and "none" all of the map,
            flattened.
        layers: Number of last layers whose pooled features are concatenated; not with "network" or "none".
        precision: The number format in which the network computes, in training and in the scores of a study. "auto" is
            16 bits on a GPU and float32 on a CPU. A CPU with AMX is about 1.6 times as fast in "bfloat16".
    """

    backbone: str = "test_resnet"
    pretrained: bool = False
    checkpoint: str | None = None
    weights: str | None = None
    seen: bool = False
    output_stride: Literal[8, 16, 32] = 32
    pooling: Pooling = "network"
    layers: Annotated[int, Between(1, 100)] = 1
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_backbone(self.backbone)
        # The workers of a lane have another working directory.
        for name in ("checkpoint", "weights"):
            if (path := getattr(self, name)) is not None:
                object.__setattr__(self, name, abspath(Path(path).expanduser()))
        if self.checkpoint is not None and self.weights is not None:
            raise ConfigError(
                f"weights must be null with a checkpoint, but got {self.weights} and {self.checkpoint}: give one"
            )
        if self.layers > 1 and self.pooling in ("network", "none"):
            raise ConfigError(
                f"layers must be 1 with pooling={self.pooling}, which pools the last layer only, but got "
                f"{self.layers}: set model.pooling=avg"
            )

    @property
    def file(self) -> Path | None:
        """The file of its initial weights; None without one."""
        if self.weights is not None:
            return Path(self.weights) / f"{self.backbone}.safetensors"
        return None if self.checkpoint is None else Path(self.checkpoint)

    @property
    def source(self) -> str | None:
        """Where its initial weights come from: a file, or timm's name; None if they are random."""
        if self.file is not None:
            return str(self.file)
        return self.backbone if self.pretrained else None

    @property
    def has_weights(self) -> bool:
        """Whether it begins with trained weights."""
        return self.source is not None
