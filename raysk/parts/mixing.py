"""Ways to mix images and labels with partners from the same batch, for training end to end."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import numpy as np
import torch
from torch import Tensor

from raysk.registry import Registry
from raysk.settings import Between, Settings

# alpha of Beta(alpha, alpha): small values draw shares near 0 and 1, 1 draws uniformly, large values draw halves.
Alpha = Annotated[float, Between(0.0, 100.0, open_low=True)]


class PairedBatch(NamedTuple):
    """A batch with a partner for each row.

    Attributes:
        images: (B, V, H, W, 3), uint8.
        labels: (B,).
        partners: The image of each row's partner, shaped as `images`.
        partner_labels: (B,).
    """

    images: Tensor
    labels: Tensor
    partners: Tensor
    partner_labels: Tensor


class Mixed(NamedTuple):
    """A mixed batch, whose loss is share * L(z, labels) + (1 - share) * L(z, partner_labels).

    Attributes:
        images: (B, V, H, W, 3), uint8 or float32, both in [0, 255].
        labels: (B,), with weight `share`.
        partner_labels: (B,), with weight 1 - `share`.
        share: In [0, 1].
    """

    images: Tensor
    labels: Tensor
    partner_labels: Tensor
    share: float


@dataclass(frozen=True, kw_only=True)
class Mixing(Settings, ABC):
    """Settings of one way to mix a batch with partners; the training loop chooses the partners."""

    @abstractmethod
    def mix(self, pairs: PairedBatch, counts: Tensor, random: np.random.Generator) -> Mixed:
        """Mixes each row with its partner; leaves the arguments unchanged.

        Args:
            pairs: The rows and their partners.
            counts: Rows of each class in the training rows of the fold, (C,).
            random: Generator with the same seed on every rank. It draws equally many numbers in every batch, whatever
                the rows, so that the ranks stay in step.
        """


mixings: Registry[type[Mixing]] = Registry("mixing")


@mixings.register("none")
@dataclass(frozen=True, kw_only=True)
class NoMixing(Mixing):
    """No mixing: the images stay as they are."""

    def mix(self, pairs: PairedBatch, counts: Tensor, random: np.random.Generator) -> Mixed:
        """Returns the batch unchanged, with share 1."""
        return Mixed(pairs.images, pairs.labels, pairs.partner_labels, 1.0)


@mixings.register("mixup")
@dataclass(frozen=True, kw_only=True)
class Mixup(Mixing):
    """share * x + (1 - share) * x', also for the labels, share ~ Beta(alpha, alpha): Zhang et al. 2018, section 2.

    A batch has one share, as in the released code.

    Args:
        alpha: Strength of the mixing. Zhang et al. publish 0.1 to 0.4 for ImageNet.
    """

    alpha: Alpha = 0.2

    def mix(self, pairs: PairedBatch, counts: Tensor, random: np.random.Generator) -> Mixed:
        """Returns mixed images, float32, and unchanged labels."""
        share = float(random.beta(self.alpha, self.alpha))
        images = torch.lerp(pairs.partners.float(), pairs.images.float(), share)
        return Mixed(images, pairs.labels, pairs.partner_labels, share)


@mixings.register("cutmix")
@dataclass(frozen=True, kw_only=True)
class CutMix(Mixing):
    """Replaces a box of the image by the same box of its partner: Yun et al. 2019, section 3.1.

    The box has the image's proportions, the area 1 - share with share ~ Beta(alpha, alpha), and a centre drawn
    uniformly over the image. It is clipped at the border; the share of the labels is the share of unreplaced pixels.

    Args:
        alpha: As for mixup. Yun et al. publish 1.
        probability: Share of the batches that are mixed. Yun et al. publish 1 for ImageNet, 0.5 for CIFAR.
    """

    alpha: Alpha = 1.0
    probability: Annotated[float, Between(0.0, 1.0)] = 1.0

    def mix(self, pairs: PairedBatch, counts: Tensor, random: np.random.Generator) -> Mixed:
        """Returns images with a box of their partners, uint8, and unchanged labels."""
        height, width = pairs.images.shape[2:4]
        side = (1 - random.beta(self.alpha, self.alpha)) ** 0.5  # relative to the image's
        top, bottom = _cut(height, side, random.random())
        left, right = _cut(width, side, random.random())
        # Drawn last, in every batch, so that one setting does not change the boxes of another.
        if random.random() >= self.probability:
            return Mixed(pairs.images, pairs.labels, pairs.partner_labels, 1.0)
        images = pairs.images.clone()
        images[:, :, top:bottom, left:right] = pairs.partners[:, :, top:bottom, left:right]
        share = 1 - (bottom - top) * (right - left) / (height * width)
        return Mixed(images, pairs.labels, pairs.partner_labels, share)


@mixings.register("remix")
@dataclass(frozen=True, kw_only=True)
class Remix(Mixup):
    """Mixup that labels a mixture of a common and a rare class as the rare one: Chou et al. 2020, section 3.

    With n rows in the row's class, n' rows in its partner's class and s the share of the image:

        n / n' >= kappa and s < tau        the partner's label alone
        n / n' <= 1 / kappa and 1 - s < tau        the row's label alone
        otherwise        both, as in mixup

    So the rare class must make up more than 1 - tau of the mixture. A label that is used alone fills both fields.

    Args:
        alpha: As for mixup; 1 is our choice.
        kappa: Least ratio of rows between a common and a rare class. Chou et al. publish 3.
        tau: Share of the image below which a common class loses its label. Chou et al. publish 0.5.
    """

    alpha: Alpha = 1.0
    kappa: Annotated[float, Between(1.0, 1e6, open_low=True)] = 3.0
    tau: Annotated[float, Between(0.0, 1.0)] = 0.5

    def mix(self, pairs: PairedBatch, counts: Tensor, random: np.random.Generator) -> Mixed:
        """Returns mixed images, float32, and labels, where one label may fill both fields."""
        mixed = super().mix(pairs, counts, random)
        labels, partner_labels = pairs.labels, pairs.partner_labels
        rows, partner_rows = counts[labels], counts[partner_labels]
        to_partner = (rows >= self.kappa * partner_rows) & (mixed.share < self.tau)
        to_row = (self.kappa * rows <= partner_rows) & (1 - mixed.share < self.tau)
        return mixed._replace(
            labels=torch.where(to_partner, partner_labels, labels),
            partner_labels=torch.where(to_row, labels, partner_labels),
        )


def _cut(length: int, side: float, centre: float) -> tuple[int, int]:
    """Returns start and end of an interval of about `side` x `length` pixels around `centre`, clipped to [0, length].

    Args:
        length: Size of the image in this direction, in pixels.
        side: Length of the interval before clipping, relative to `length`, in [0, 1].
        centre: Centre of the interval, relative to `length`, in [0, 1).
    """
    begin = round((centre - side / 2) * length)
    return max(begin, 0), min(begin + round(side * length), length)
