"""Contrastive losses that choose positives so that large classes do not dominate: KCL and supervised minority."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from raysk.parts.losses.base import EmbeddingLoss, losses
from raysk.parts.losses.contrastive import Temperature
from raysk.parts.losses.similarities import PreciseLoss, contrastive_loss, same_label
from raysk.settings import Between

MostPositives = Annotated[int, Between(1, 10_000)]


@losses.register("kcl")
@dataclass(frozen=True, kw_only=True)
class KCL(EmbeddingLoss):
    """Contrastive loss with k positives of the class: Kang et al. 2021, equation 4, in expectation over the draw.

    The paper draws k of an anchor's n positives in other images at random, and adds the other views of its own image,
    so that anchors of a large class do not have more positives than anchors of a small class. The loss is linear in
    the positives, so its mean over all draws is known: each of the n counts min(k, n) / n. Ours is that mean. Its
    gradient is the mean gradient of the random loss, without noise, and does not depend on the order of the batch.

    Args:
        positives: k. Kang et al. publish 6.
        temperature: tau. Li et al. 2022 publish 0.07.
    """

    positives: MostPositives = 6
    temperature: Temperature = 0.07

    def module(self, counts: Tensor, width: int) -> nn.Module:
        """Returns the module; it uses neither class counts nor width."""
        return _KCL(self.positives, self.temperature)


@losses.register("supmin")
@dataclass(frozen=True, kw_only=True)
class SupMin(EmbeddingLoss):
    """Supervised contrast for the minority only: Mildenberger et al. 2025, section 4.1.

    The positives of a view are the views of its class if the class is small, else the other views of its image: if one
    class fills most of a batch, labels would pull nearly everything into one point. The paper has two classes. Ours:
    among several classes, those with fewer than N / C training rows are small; if all sizes are equal, none is.

    Args:
        temperature: tau; the default is that of SupCon, our choice.
    """

    least_views: ClassVar[int] = 2
    temperature: Temperature = 0.07

    def module(self, counts: Tensor, width: int) -> nn.Module:
        """Returns the module for class counts (C,); it does not use the width."""
        return _SupMin(counts < counts.mean(), self.temperature)


class _KCL(PreciseLoss):
    def __init__(self, positives: int, temperature: float) -> None:
        super().__init__()
        self.positives = positives
        self.temperature = temperature

    def loss(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        return contrastive_loss(embeddings, same_label(labels), self.temperature, self.positives)


class _SupMin(PreciseLoss):
    is_small: Tensor

    def __init__(self, is_small: Tensor, temperature: float) -> None:
        super().__init__()
        self.register_buffer("is_small", is_small, persistent=False)
        self.temperature = temperature

    def loss(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        same_image = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
        same = same_image | (same_label(labels) & self.is_small[labels])
        return contrastive_loss(embeddings, same, self.temperature)
