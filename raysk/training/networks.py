"""The networks of the two stages, from images to embeddings or logits."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from raysk.parts.backbones import Backbone, create_backbone
from raysk.parts.heads import Head, LinearHead, ProjectionHead
from raysk.parts.losses.base import at_least_single
from raysk.recipe import Model


class Encoder(nn.Module):
    """Maps images to features: a timm backbone after the normalisation that its weights expect.

    Args:
        model: The backbone and its initial weights.
        image_size: Side of the images, in pixels.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: Model, image_size: int) -> None:
        super().__init__()
        backbone = create_backbone(model.backbone, model.pretrained, model.checkpoint, image_size, model.pooling)
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

    @classmethod
    def blank(cls, model: Model, image_size: int) -> "Encoder":
        """Returns an encoder to load weights into; fetches nothing."""
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


class StageOneNetwork(nn.Module):
    """The network of stage one: an encoder, and the outputs for its losses.

    Args:
        encoder: Kept after stage one.
        projection: Width E of the embedding; None without a loss on embeddings.
        num_classes: C of the classifier that is trained and kept with the encoder; None without one.
        head: Settings of the classifier.
    """

    def __init__(
        self,
        encoder: Encoder,
        projection: int | None,
        num_classes: int | None = None,
        head: Head = LinearHead(),  # noqa: B008 - settings cannot be changed
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.projection = None if projection is None else ProjectionHead(encoder.num_features, out=projection)
        self.classifier = None if num_classes is None else head.build(encoder.num_features, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Embeds and classifies several views of each image.

        Args:
            images: (B, V, H, W, 3), uint8.

        Returns:
            Unit embeddings and logits side by side, (B, V, E + C), in at least float32; only those that have a loss.
            One tensor, so that gathering and recomputing treat all cases alike.
        """
        features = self.encoder(images.flatten(0, 1))
        outputs = [] if self.projection is None else [self.projection(features)]
        if self.classifier is not None:
            outputs.append(at_least_single(self.classifier(features)))
        return torch.cat(outputs, dim=1).unflatten(0, images.shape[:2])


class StageOneLoss(nn.Module):
    """The loss of stage one: weight L(embeddings) + CE(logits), on the output of `StageOneNetwork`.

    Args:
        on_embeddings: Loss on embeddings; None without one.
        weight: Weight of the loss on embeddings.
        on_logits: Loss on logits; None without one.
        width: E; 0 without embeddings.
    """

    def __init__(self, on_embeddings: nn.Module | None, weight: float, on_logits: nn.Module | None, width: int) -> None:
        super().__init__()
        self.on_embeddings, self.weight, self.on_logits, self.width = on_embeddings, weight, on_logits, width

    def forward(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Returns the loss of outputs (B, V, E + C) and labels (B,); each view counts as a row for the classifier."""
        terms = []
        if self.on_embeddings is not None:
            terms.append(self.weight * self.on_embeddings(outputs[..., : self.width], labels))
        if self.on_logits is not None:
            logits = outputs[..., self.width :].flatten(0, 1)
            terms.append(self.on_logits(logits, labels.repeat_interleave(outputs.shape[1])))
        return torch.stack(terms).sum()


class Classifier(nn.Module):
    """The network of stage two: an encoder and a head.

    Args:
        encoder: Maps images to features.
        head: Maps features to logits.
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
