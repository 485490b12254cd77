"""Losses on embeddings that pull positives together and push all others apart: SupCon and SimCLR."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from raysk.parts.losses.base import EmbeddingLoss, at_least_single, losses
from raysk.settings import Between

Temperature = Annotated[float, Between(0.001, 10.0)]


@losses.register("supcon")
@dataclass(frozen=True, kw_only=True)
class SupCon(EmbeddingLoss):
    """Supervised contrastive loss: Khosla et al. 2020, equation 2 (L_out); positives are the views of the same class.

    Args:
        temperature: tau; small values weigh the hardest negatives most. Chen et al. 2022 publish 0.07.
    """

    temperature: Temperature = 0.07

    def module(self, counts: Tensor, width: int) -> nn.Module:
        """Returns the module; neither the class counts nor the width enter."""
        return _ContrastiveLoss(self.temperature, use_labels=True)


@losses.register("simclr")
@dataclass(frozen=True, kw_only=True)
class SimCLR(EmbeddingLoss):
    """NT-Xent without labels: Chen et al. 2020, equation 1; positives are the other views of the same image.

    Args:
        temperature: tau. The paper publishes 0.5 for ResNet-50 at batch sizes up to 8,192 views.
    """

    least_views: ClassVar[int] = 2
    temperature: Temperature = 0.5

    def module(self, counts: Tensor, width: int) -> nn.Module:
        """Returns the module; class counts, width and labels do not enter."""
        return _ContrastiveLoss(self.temperature, use_labels=False)


class _ContrastiveLoss(nn.Module):
    def __init__(self, temperature: float, use_labels: bool) -> None:
        super().__init__()
        self.temperature = temperature
        self.use_labels = use_labels

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        if self.use_labels:
            same = labels[:, None] == labels[None, :]
        else:
            same = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
        return contrastive_loss(embeddings, same, self.temperature)


def contrastive_loss(embeddings: Tensor, same: Tensor, temperature: float) -> Tensor:
    """Returns (1/|I|) sum_{i in I} [log sum_{a != i} exp(z_i.z_a / tau) - mean_{p in P(i)} z_i.z_p / tau].

    I holds the anchors that have a positive; without any the loss is 0, with a gradient of 0. Only one (B V, B V)
    matrix is made besides its gradient: the sum over positives is z_i times the sum of the positives.

    Args:
        embeddings: Unit vectors, (B, V, D).
        same: Which images are positives of which, (B, B), symmetric and true on the diagonal.
        temperature: tau.
    """
    # Autocast would multiply in half precision, whose error the division by tau makes 14 times as large.
    with torch.autocast(embeddings.device.type, enabled=False):
        embeddings = at_least_single(embeddings)
        num_views = embeddings.shape[1]
        z = embeddings.flatten(0, 1)  # (B V, D)
        similarities = (z @ z.T / temperature).fill_diagonal_(-torch.inf)
        log_denominators = similarities.logsumexp(dim=1).view(embeddings.shape[:2])  # (B, V)

        class_sums = same.to(z) @ embeddings.sum(dim=1)  # (B, D), each anchor's own embedding included
        num_positives = same.sum(dim=1, keepdim=True) * num_views - 1  # (B, 1)
        positive_sums = (embeddings * (class_sums[:, None] - embeddings)).sum(dim=2) / temperature  # (B, V)

        losses_of_anchors = log_denominators - positive_sums / num_positives.clamp_min(1)
        has_positive = (num_positives > 0).expand_as(losses_of_anchors)
        # No branch on a value, which would make the accelerator wait.
        return torch.where(has_positive, losses_of_anchors, 0).sum() / has_positive.sum().clamp_min(1)
