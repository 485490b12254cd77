"""The networks of the two stages, from images to embeddings or logits."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from raysk.parts.backbones import create_backbone
from raysk.parts.encoder import Encoder
from raysk.parts.heads import Head, LinearHead, ProjectionHead
from raysk.recipe import Model


def new_encoder(model: Model, image_size: int) -> Encoder:
    """Returns the encoder of a recipe with its initial weights; may fetch published ones.

    Args:
        model: The backbone and its initial weights.
        image_size: Side of the images, in pixels.
    """
    return Encoder(
        create_backbone(
            model.backbone,
            model.pretrained,
            model.file,
            image_size,
            model.pooling,
            model.layers,
            model.output_stride,
        ),
        model.precision,
    )


def blank_encoder(model: Model, image_size: int) -> Encoder:
    """Returns an encoder to load weights into; fetches nothing."""
    return new_encoder(replace(model, pretrained=False, checkpoint=None, weights=None), image_size)


class StageOneNetwork(nn.Module):
    """The network of stage one: an encoder, and the outputs for its losses.

    Args:
        encoder: Kept after stage one.
        projection: Width E of the embedding; None without a loss on embeddings.
        num_classes: C of the classifier that is trained and kept with the encoder; None without one.
        head: Settings of the classifier.
        normalise: Whether the embeddings have unit length.
    """

    def __init__(
        self,
        encoder: Encoder,
        projection: int | None,
        num_classes: int | None = None,
        head: Head = LinearHead(),  # noqa: B008 - settings cannot be changed
        normalise: bool = True,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        width = encoder.num_features
        self.projection = None if projection is None else ProjectionHead(width, out=projection, normalise=normalise)
        self.classifier = None if num_classes is None else head.build(width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Embeds and classifies several views of each image.

        Args:
            images: (B, V, H, W, 3), uint8.

        Returns:
            Embeddings and logits side by side, (B, V, E + C), in at least float32; only those that have a loss.
            One tensor, so that gathering and recomputing treat all cases alike.
        """
        features = self.encoder(images.flatten(0, 1))
        outputs = [] if self.projection is None else [self.projection(features)]
        if self.classifier is not None:
            outputs.append(self.classifier(features))
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
