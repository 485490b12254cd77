"""What a recipe learns to predict: the class of an image, or the lesion in it."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from raysk.evaluation.metrics.base import CLASSES, MASKS, Form
from raysk.parts.backbones import Backbone
from raysk.parts.decoder import decoder_for
from raysk.registry import Registry
from raysk.settings import Between, Settings


@dataclass(frozen=True, kw_only=True)
class Task(Settings):
    """Settings of what is predicted.

    Attributes:
        form: The form of the predictions, which names their metrics and scores.
        reads_features: Whether stage two can fit the kept features of a frozen encoder, without images.
        reads_masks: Whether stage two learns from the masks of its rows.
        unused: The settings of a recipe that it does not read, which must keep their defaults.
    """

    form: ClassVar[Form]
    reads_features: ClassVar[bool] = False
    reads_masks: ClassVar[bool] = False
    unused: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def check_network(self, backbone: Backbone, image_size: int) -> None:
        """Refuses a network that cannot predict this.

        Args:
            backbone: The network, which stays unchanged.
            image_size: Side of the images, in pixels.

        Raises:
            ConfigError: It cannot.
        """


tasks: Registry[type[Task]] = Registry("task")


@tasks.register("classification")
@dataclass(frozen=True, kw_only=True)
class Classification(Task):
    """The class of an image, by the head and the loss of stage two."""

    form: ClassVar[Form] = CLASSES
    reads_features: ClassVar[bool] = True

    def check_network(self, backbone: Backbone, image_size: int) -> None:
        """Accepts any network: a head fits all features."""


@tasks.register("segmentation")
@dataclass(frozen=True, kw_only=True)
class Segmentation(Task):
    """The mask of the lesion, by a U-Net decoder on the maps of the encoder: L = dice L_Dice + (1 - dice) L_CE.

    Args:
        width: Channels of each level of the decoder.
        dice: Weight of the Dice loss; the rest is that of the cross entropy of each pixel.
        smoothing: Pixels that are added to both parts of the Dice ratio; above 0, so that empty masks have a loss.
    """

    form: ClassVar[Form] = MASKS
    reads_masks: ClassVar[bool] = True
    unused: ClassVar[tuple[str, ...]] = (
        "crop.region",
        *(f"stage_two.{name}" for name in ("loss", "head", "sampler", "mixing", "attention")),
        *(f"stage_two.{name}" for name in ("adjustment", "passes", "shift_batch_norm")),
    )
    width: Annotated[int, Between(2, 4096)] = 32
    dice: Annotated[float, Between(0, 1)] = 0.5
    smoothing: Annotated[float, Between(0, 1000, open_low=True)] = 1.0

    def check_network(self, backbone: Backbone, image_size: int) -> None:
        """Builds the decoder once; see `decoder_for`."""
        decoder_for(backbone, image_size, self.width)

    def loss(self) -> nn.Module:
        """Returns the loss of logits and masks."""
        return MaskLoss(self.dice, self.smoothing)


class MaskLoss(nn.Module):
    """The weighted sum of soft Dice (Milletari, Navab and Ahmadi 2016, with plain sums) and cross entropy of pixels.

    L_Dice is 1 - (2 sum p t + s) / (sum p + sum t + s) for each image, averaged over the images; p is the probability
    of the lesion, and t is 1 on it and 0 elsewhere.

    Args:
        dice: The weight of L_Dice, from 0 to 1.
        smoothing: s, in pixels.
    """

    def __init__(self, dice: float, smoothing: float) -> None:
        super().__init__()
        self.dice, self.smoothing = dice, smoothing

    def forward(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Returns the loss of logits (B, H, W) and masks (B, H, W), above 0 on the lesion."""
        logits, truth = logits.float().flatten(1), (masks > 0).float().flatten(1)
        shares = torch.sigmoid(logits)
        overlap, size = (shares * truth).sum(dim=1), shares.sum(dim=1) + truth.sum(dim=1)
        of_dice = 1 - (2 * overlap + self.smoothing) / (size + self.smoothing)
        of_pixels = functional.binary_cross_entropy_with_logits(logits, truth)
        return self.dice * of_dice.mean() + (1 - self.dice) * of_pixels
