"""The networks of the two stages, and how images enter them."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from raysk.parts.backbones import create_backbone
from raysk.parts.heads import Head, ProjectionHead
from raysk.recipe import Model


class Encoder(nn.Module):
    """Images to features: a timm backbone behind the normalisation that its weights expect.

    Args:
        model: Which backbone, and which weights to start from.
        image_size: Side of the images, in pixels.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: Model, image_size: int) -> None:
        super().__init__()
        backbone = create_backbone(model.backbone, model.pretrained, model.checkpoint, image_size)
        # Channels last in memory, as the images are: what convolutions are fastest on.
        self.backbone: nn.Module = backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.num_features = backbone.num_features
        self.register_buffer("mean", torch.tensor(backbone.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(backbone.std).view(1, 3, 1, 1), persistent=False)

    @classmethod
    def blank(cls, model: Model, image_size: int) -> "Encoder":
        """Returns an encoder whose weights are about to be loaded: nothing is fetched for it."""
        return cls(replace(model, pretrained=False, checkpoint=None), image_size)

    def forward(self, images: Tensor) -> Tensor:
        """Encodes uint8 images.

        Args:
            images: (B, H, W, 3), uint8.

        Returns:
            Features (B, D).
        """
        scaled = images.permute(0, 3, 1, 2).to(self.mean.dtype).div(255).sub(self.mean).div(self.std)
        features: Tensor = self.backbone(scaled)
        return features


class ProjectedEncoder(nn.Module):
    """The network of stage one: an encoder and the projection that the loss sees.

    Args:
        encoder: What is kept afterwards.
        projection: Width of the embedding.
    """

    def __init__(self, encoder: Encoder, projection: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.projection = ProjectionHead(encoder.num_features, out=projection)

    def forward(self, images: Tensor) -> Tensor:
        """Embeds several views of each image.

        Args:
            images: (B, V, H, W, 3), uint8.

        Returns:
            Unit embeddings (B, V, E).
        """
        embeddings: Tensor = self.projection(self.encoder(images.flatten(0, 1)))
        return embeddings.unflatten(0, images.shape[:2])


class Classifier(nn.Module):
    """The network of stage two: an encoder and a head.

    Args:
        encoder: Images to features.
        head: Features to logits.
        num_classes: C.
    """

    def __init__(self, encoder: Encoder, head: Head, num_classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head.build(encoder.num_features, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Classifies one view of each image.

        Args:
            images: (B, 1, H, W, 3), uint8.

        Returns:
            Logits (B, C).
        """
        logits: Tensor = self.head(self.encoder(images.squeeze(1)))
        return logits
