"""The encoder: a backbone after the normalisation that its weights expect."""

from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from raysk.parts.backbones import Backbone
from raysk.parts.precision import Precision, at_least_single, autocast


class Encoder(nn.Module):
    """Maps images to features.

    Args:
        backbone: Maps normalised images to features.
        precision: The number format in which it computes.

    Attributes:
        num_features: Width D of the features.
        mean: Mean of each colour that is subtracted, for pixels in [0, 1]; (1, 3, 1, 1).
        std: Standard deviation of each colour that is divided by; (1, 3, 1, 1).
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: Backbone, precision: Precision = "auto") -> None:
        super().__init__()
        self.precision = precision
        # Channels last in memory, as in the images: convolutions are fastest on this layout.
        self.backbone: Backbone = backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.num_features = backbone.num_features
        self.register_buffer("mean", torch.tensor(backbone.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(backbone.std).view(1, 3, 1, 1), persistent=False)

    def depths(self) -> dict[nn.Parameter, int]:
        """Returns the depth of each parameter's layer below the top of the encoder, from 0; see `Backbone.layers`."""
        layers = self.backbone.layers()
        last = max(layers.values())
        return {weight: last - layers[name] for name, weight in self.backbone.named_parameters()}

    def forward(self, images: Tensor) -> Tensor:
        """Encodes uint8 images.

        Args:
            images: (B, H, W, 3), uint8.

        Returns:
            Features (B, D), in at least float32.
        """
        with self.computing():
            features: Tensor = self.backbone(self.normalised(images))
        return at_least_single(features)

    def computing(self) -> AbstractContextManager[object]:
        """Returns the context in which the backbone computes in the precision of the encoder."""
        return autocast(self.mean.device, self.precision)

    def normalised(self, images: Tensor) -> Tensor:
        """Returns uint8 images (B, H, W, 3) as the backbone expects them, (B, 3, H, W)."""
        return images.permute(0, 3, 1, 2).to(self.mean.dtype).div(255).sub(self.mean).div(self.std)
