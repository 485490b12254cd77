"""Contrastive losses with a learnable centre for each class, so that every batch has every class: BCL and PaCo."""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

from raysk.parts.heads import unit_length
from raysk.parts.losses.base import EmbeddingLoss, losses
from raysk.parts.losses.contrastive import Temperature
from raysk.parts.losses.similarities import PreciseLoss, contrasts, leave_to_centres, positive_shares, same_label
from raysk.settings import Between

Share = Annotated[float, Between(0.0, 1.0)]


@losses.register("bcl")
@dataclass(frozen=True, kw_only=True)
class BCL(EmbeddingLoss):
    """Balanced contrastive loss: Zhu et al. 2022, equation 6, with class averaging and class complement.

        L_i = -mean_{p in P(i)} log[ exp(z_i.z_p / tau) / sum_k mean_{a in B_k, a != i} exp(z_i.z_a / tau) ]

    B_k holds the centre of class k and its views in the batch; P(i) is the B_k of the anchor's class without i. In the
    denominator all classes have equal weight, whatever their size; the centre stands in for a class that the batch
    lacks. The anchors are the views. The paper computes the centres from a classifier's weights with a network; ours
    are free parameters of the loss, of unit length. Zhu et al. weight cross entropy by 1 and this loss by 0.35.

    Args:
        temperature: tau. The paper publishes 0.1.
    """

    temperature: Temperature = 0.1

    def module(self, counts: Tensor, width: int) -> nn.Module:
        """Returns the module; it uses the number of classes, but not their counts."""
        return _BCL(_initial_centres(len(counts), width), self.temperature)


@losses.register("paco")
@dataclass(frozen=True, kw_only=True)
class PaCo(EmbeddingLoss):
    """Parametric contrastive loss: Cui et al. 2021, equation 4, with the weights of the released code.

    With l_k = (z_i.c_k + log(n_k / N)) / supt and s_a = z_i.z_a / tau:

        L_i = -[beta l_{y_i} + alpha sum_{p in P(i)} s_p] / (beta + alpha |P(i)|)
              + log[ sum_k exp(l_k) + gamma sum_{a != i} exp(s_a) ]

    P(i) holds the other views of the class. With alpha 0, gamma 0, beta 1 and supt 1 it is balanced softmax with the
    centres c_k as a classifier without bias. The centres are parameters of the loss, of any length; the paper computes
    its logits from the features, ours from the embeddings. Ours has no momentum queue: it uses the views of the batch.

    Args:
        alpha: Weight of each positive view. The released scripts for CIFAR-100 use 0.01; the paper publishes 0.05 for
            ImageNet-LT.
        beta: Weight of the centre of the anchor's class.
        gamma: Weight of the views in the denominator.
        supt: Temperature of the centres.
        temperature: tau, of the views. The released code uses 0.2 for ImageNet-LT, 0.05 for CIFAR.
    """

    alpha: Share = 0.01
    beta: Annotated[float, Between(0.01, 10.0)] = 1.0
    gamma: Share = 1.0
    supt: Annotated[float, Between(0.01, 10.0)] = 1.0
    temperature: Temperature = 0.2

    def module(self, counts: Tensor, width: int) -> nn.Module:
        """Returns the module for class counts (C,) and embeddings of this width."""
        return _PaCo(self, _initial_centres(len(counts), width), (counts / counts.sum()).log())


def _initial_centres(num_classes: int, width: int) -> Tensor:
    """Returns unit vectors (C, D) in random directions, the same on every worker."""
    random = torch.Generator().manual_seed(0)
    return unit_length(torch.randn((num_classes, width), generator=random))


class _BCL(PreciseLoss):
    def __init__(self, centres: Tensor, temperature: float) -> None:
        super().__init__()
        self.centres = nn.Parameter(centres)
        self.temperature = temperature

    def loss(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        num_views = embeddings.shape[1]
        centres = unit_length(self.centres.to(embeddings))
        shares, num_positives = positive_shares(embeddings, same_label(labels))
        own_centre = leave_to_centres(shares, num_positives / (num_positives + 1), labels, len(centres))

        classes = torch.arange(len(centres), device=labels.device)
        num_members = num_views * labels.bincount(minlength=len(centres)) + 1  # (C,)
        # An anchor does not count as a member of its class: (C, C), the anchor's class by the other's class.
        log_weights = -(num_members - torch.eye(len(centres)).to(num_members)).to(embeddings).log()
        log_weights = log_weights[:, torch.cat([labels.repeat_interleave(num_views), classes])]
        return contrasts(embeddings, shares, self.temperature, (centres, own_centre), log_weights, labels).mean()


class _PaCo(PreciseLoss):
    log_shares: Tensor

    def __init__(self, settings: PaCo, centres: Tensor, log_shares: Tensor) -> None:
        super().__init__()
        self.settings = settings
        self.centres = nn.Parameter(centres)
        self.register_buffer("log_shares", log_shares, persistent=False)

    def loss(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        settings = self.settings
        centres, log_shares = self.centres.to(embeddings), self.log_shares.to(embeddings)
        shares, num_positives = positive_shares(embeddings, same_label(labels))
        weight_of_views = settings.alpha * num_positives  # (B, 1)
        share_of_views = weight_of_views / (settings.beta + weight_of_views)
        own_centre = leave_to_centres(shares, share_of_views, labels, len(centres))

        num_views = len(labels) * embeddings.shape[1]
        log_gamma = embeddings.new_tensor(settings.gamma).log().expand(num_views)
        log_weights = torch.cat([log_gamma, log_shares / settings.supt])
        scaled = centres * (settings.temperature / settings.supt)  # contrasts divides by tau
        values = contrasts(embeddings, shares, settings.temperature, (scaled, own_centre), log_weights)
        return (values - (1 - share_of_views) * log_shares[labels][:, None] / settings.supt).mean()
