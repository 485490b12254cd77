"""Losses on embeddings that pull positives together and push all others apart: SupCon and SimCLR.

Both are `contrastive_formula`, with different positives. Training uses `similarities.contrastive_loss`, which never
holds the whole (B V, B V) matrix of similarities with its gradients; tests compare the two functions.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from raysk.parts.losses.base import EmbeddingLoss, losses
from raysk.parts.losses.similarities import PreciseLoss, contrastive_loss, same_label
from raysk.settings import Between

Temperature = Annotated[float, Between(0.001, 10.0)]


def contrastive_formula(embeddings: Tensor, keys: Tensor, temperature: float) -> Tensor:
    """Returns the loss of Khosla et al. 2020, equation 2, as written; anchors without a positive are left out.

    L = mean_i  -1/|P(i)| sum_{p in P(i)} log( exp(z_i z_p / tau) / sum_{a != i} exp(z_i z_a / tau) )

    Args:
        embeddings: z, of unit length, (B, V, D).
        keys: What positives share: the class for SupCon, the image for SimCLR, (B,).
        temperature: tau.
    """
    num_images, num_views, _ = embeddings.shape
    z, key = embeddings.flatten(0, 1), keys.repeat_interleave(num_views)  # (B V, D), (B V,)
    others = ~torch.eye(num_images * num_views, dtype=torch.bool, device=z.device)
    positives = (key[:, None] == key) & others  # P(i)
    scores = z @ z.T / temperature
    log_shares = scores - scores.masked_fill(~others, -torch.inf).logsumexp(1, keepdim=True)
    has_positive = positives.any(1)
    terms = -log_shares.masked_fill(~positives, 0).sum(1)[has_positive] / positives.sum(1)[has_positive]
    return terms.sum() / max(1, len(terms))


@losses.register("supcon")
@dataclass(frozen=True, kw_only=True)
class SupCon(EmbeddingLoss):
    """Supervised contrastive loss: Khosla et al. 2020, equation 2 (L_out); positives are the views of the same class.

    Args:
        temperature: tau; small values weight the hardest negatives most. Chen et al. 2022 publish 0.07.
    """

    needs_unit_length: ClassVar[bool] = False
    temperature: Temperature = 0.07

    def module(self, counts: Tensor, width: int) -> nn.Module:
        """Returns the module; it uses neither class counts nor width."""
        return _SupCon(self.temperature)


@losses.register("simclr")
@dataclass(frozen=True, kw_only=True)
class SimCLR(EmbeddingLoss):
    """NT-Xent without labels: Chen et al. 2020, equation 1; positives are the other views of the same image.

    Args:
        temperature: tau. The paper publishes 0.5 for ResNet-50 at batch sizes up to 8,192 views.
    """

    least_views: ClassVar[int] = 2
    needs_unit_length: ClassVar[bool] = False
    needs_labels: ClassVar[bool] = False
    temperature: Temperature = 0.5

    def module(self, counts: Tensor, width: int) -> nn.Module:
        """Returns the module; it uses no class counts, width or labels."""
        return _SimCLR(self.temperature)


class _SupCon(PreciseLoss):
    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature

    def loss(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        return contrastive_loss(embeddings, same_label(labels), self.temperature)


class _SimCLR(PreciseLoss):
    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature

    def loss(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        same_image = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
        return contrastive_loss(embeddings, same_image, self.temperature)
