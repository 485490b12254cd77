"""Contrastive losses with a learnable centre for each class, so that no batch lacks a class: BCL and PaCo."""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

from raysk.parts.heads import unit_length
from raysk.parts.losses.base import EmbeddingLoss, losses
from raysk.parts.losses.contrastive import Temperature
from raysk.parts.losses.similarities import PreciseLoss, log_denominators, positive_means, same_label
from raysk.settings import Between

Share = Annotated[float, Between(0.0, 1.0)]


@losses.register("bcl")
@dataclass(frozen=True, kw_only=True)
class BCL(EmbeddingLoss):
    """Balanced contrastive loss: Zhu et al. 2022, equation 6, with class averaging and class complement.

        L_i = -mean_{p in P(i)} log[ exp(z_i.z_p / tau) / sum_k mean_{a in B_k, a != i} exp(z_i.z_a / tau) ]

    B_k holds the views of class k in the batch and its centre, P(i) the members of the anchor's class but i. In the
    denominator each class has one vote, whatever its size, and one that the batch lacks has its centre's. The anchors
    are the views. The paper takes the centres from a classifier's weights through a network; ours are free parameters
    of the loss, of unit length. Zhu et al. weigh cross entropy 1 and this loss 0.35.

    Args:
        temperature: tau. The paper publishes 0.1.
    """

    temperature: Temperature = 0.1

    def module(self, counts: Tensor, width: int) -> nn.Module:
        """Returns the module; of the class counts only their number enters."""
        return _BCL(_first_centres(len(counts), width), self.temperature)


@losses.register("paco")
@dataclass(frozen=True, kw_only=True)
class PaCo(EmbeddingLoss):
    """Parametric contrastive loss: Cui et al. 2021, equation 4, with the weights of the released code.

    With l_k = (z_i.c_k + log(n_k / N)) / supt and s_a = z_i.z_a / tau:

        L_i = -[beta l_{y_i} + alpha sum_{p in P(i)} s_p] / (beta + alpha |P(i)|)
              + log[ sum_k exp(l_k) + gamma sum_{a != i} exp(s_a) ]

    P(i) holds the other views of the class. alpha 0, gamma 0, beta 1, supt 1 is balanced softmax with the centres c_k
    as a classifier without bias. The centres are parameters of the loss, of any length; the paper reads its logits
    from the features, ours from the embeddings. Ours has no momentum queue: the views are those of the batch.

    Args:
        alpha: Weight of each positive view. The paper publishes 0.05 for ImageNet-LT, 0.02 for CIFAR.
        beta: Weight of the own class's centre.
        gamma: Weight of the views in the denominator.
        supt: Temperature of the centres.
        temperature: tau, of the views. The released code has 0.2 for ImageNet-LT, 0.05 for CIFAR.
    """

    alpha: Share = 0.05
    beta: Annotated[float, Between(0.01, 10.0)] = 1.0
    gamma: Share = 1.0
    supt: Annotated[float, Between(0.01, 10.0)] = 1.0
    temperature: Temperature = 0.2

    def module(self, counts: Tensor, width: int) -> nn.Module:
        """Returns the module for class counts (C,) and embeddings of that width."""
        return _PaCo(self, _first_centres(len(counts), width), (counts / counts.sum()).log())


def _first_centres(num_classes: int, width: int) -> Tensor:
    """Returns unit vectors (C, D) in random directions, the same ones on every worker."""
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
        means, num_views_of_class = positive_means(embeddings, same_label(labels))
        own_centre = (embeddings * centres[labels][:, None]).sum(dim=2)  # (B, V)
        means = (means * num_views_of_class + own_centre) / (num_views_of_class + 1)

        classes = torch.arange(len(centres), device=labels.device)
        num_members = num_views * labels.bincount(minlength=len(centres)) + 1  # (C,)
        # An anchor is no member of its own class: (C, C), from the class of the anchor to that of the other.
        log_weights = -(num_members - torch.eye(len(centres)).to(num_members)).to(embeddings).log()
        log_weights = log_weights[:, torch.cat([labels.repeat_interleave(num_views), classes])]
        denominators = log_denominators(embeddings, self.temperature, centres, log_weights, labels)
        return (denominators - means / self.temperature).mean()


class _PaCo(PreciseLoss):
    log_shares: Tensor

    def __init__(self, settings: PaCo, centres: Tensor, log_shares: Tensor) -> None:
        super().__init__()
        self.settings = settings
        self.centres = nn.Parameter(centres)
        self.register_buffer("log_shares", log_shares, persistent=False)

    def loss(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        of = self.settings
        centres, log_shares = self.centres.to(embeddings), self.log_shares.to(embeddings)
        means, num_positives = positive_means(embeddings, same_label(labels))
        own_centre = (embeddings * centres[labels][:, None]).sum(dim=2) + log_shares[labels][:, None]  # (B, V)
        sums = of.beta * own_centre / of.supt + of.alpha * num_positives * means / of.temperature
        means = sums / (of.beta + of.alpha * num_positives)

        num_views = len(labels) * embeddings.shape[1]
        log_gamma = embeddings.new_tensor(of.gamma).log().expand(num_views)
        log_weights = torch.cat([log_gamma, log_shares / of.supt])
        scaled = centres * (of.temperature / of.supt)  # log_denominators divides by tau
        return (log_denominators(embeddings, of.temperature, scaled, log_weights) - means).mean()
