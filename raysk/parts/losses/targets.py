"""Targeted supervised contrast: each class has a target on the sphere, as far from the others as possible."""

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from raysk.parts.heads import unit_length
from raysk.parts.losses.base import EmbeddingLoss, ScheduledLoss, losses
from raysk.parts.losses.contrastive import Temperature
from raysk.parts.losses.imbalanced import MostPositives
from raysk.parts.losses.similarities import PreciseLoss, contrasts, leave_to_centres, positive_shares, same_label
from raysk.settings import Between

NUM_STEPS = 500  # of the descent; more steps improve it by less than 1 %


@losses.register("tsc")
@dataclass(frozen=True, kw_only=True)
class TSC(EmbeddingLoss):
    """Targeted supervised contrastive loss: Li et al. 2022, equation 4.

        L_i = -mean_{p in P(i)} log[ exp(z_i.z_p / tau) / S_i ] - weight log[ exp(z_i.t_{y_i} / tau) / S_i ]

    S_i sums exp(z_i.a / tau) over the other views and the targets of all classes; P(i) is that of `KCL`, in
    expectation. Without targets the rare classes would end up close to one another.

    Before each epoch the targets are assigned to the classes with the closest recent mean embeddings. The paper assigns
    them in each step; ours keeps the loss fixed during an epoch. Ours also: a view without positives has the second
    term only.

    Args:
        positives: As for `KCL`.
        temperature: tau. The paper publishes 0.07.
        weight: lambda, of the pull towards the targets. The paper publishes 1. The released code adds the target's term
            to the sum over 7 positives with 0.2; that is 0.029 in these units.
        momentum: Share of the old mean of a class in its update by a batch. The released code uses 0.9.
    """

    positives: MostPositives = 6
    temperature: Temperature = 0.07
    weight: Annotated[float, Between(0.0, 100.0)] = 1.0
    momentum: Annotated[float, Between(0.0, 1.0, open_high=True)] = 0.9

    def module(self, counts: Tensor, width: int) -> nn.Module:
        """Returns the module for embeddings of this width; it uses the number of classes, but not their counts."""
        return _TSC(self, spread_targets(len(counts), width))


class _TSC(PreciseLoss, ScheduledLoss):
    targets: Tensor  # (C, D), not in the order of the classes
    means: Tensor  # (C, D), of the classes
    target_of_class: Tensor  # (C,)

    def __init__(self, settings: TSC, targets: Tensor) -> None:
        super().__init__()
        self.settings = settings
        self.register_buffer("targets", targets, persistent=False)
        self.register_buffer("means", torch.zeros_like(targets))
        self.register_buffer("target_of_class", torch.arange(len(targets)))

    def begin_epoch(self, done: float) -> None:
        """Assigns targets to classes with the largest sum of mean.t over the classes."""
        closeness = (self.means @ self.targets.T).cpu().numpy()
        self.target_of_class.copy_(torch.from_numpy(linear_sum_assignment(closeness, maximize=True)[1]))

    def loss(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        settings = self.settings
        if self.training:
            self._update_means(embeddings.detach(), labels)
        targets = self.targets[self.target_of_class].to(embeddings)
        shares, num_positives = positive_shares(embeddings, same_label(labels), settings.positives)
        has_positive = (num_positives > 0).to(embeddings)  # (B, 1)
        # Both means as one: the first counts a view with positives, the second counts all.
        weight_of_views = has_positive / has_positive.mean().clamp_min(1 / len(labels))
        weights = weight_of_views + settings.weight
        share_of_views = weight_of_views / weights.clamp_min(torch.finfo(weights.dtype).tiny)
        own_target = leave_to_centres(shares, share_of_views, labels, len(targets))
        return (weights * contrasts(embeddings, shares, settings.temperature, (targets, own_target))).mean()

    def _update_means(self, embeddings: Tensor, labels: Tensor) -> None:
        """Updates the means of the classes in the batch; forward reads none of them."""
        members = F.one_hot(labels, len(self.means)).to(self.means)  # (B, C)
        fresh = unit_length(members.T @ embeddings.sum(dim=1).to(self.means))
        moved = unit_length(torch.lerp(fresh, self.means, self.settings.momentum))  # a mean of zero becomes fresh
        self.means.copy_(torch.where(members.any(dim=0)[:, None], moved, self.means))


def spread_targets(num_classes: int, width: int) -> Tensor:
    """Returns unit vectors (C, D), float64, far from one another; the same on every call.

    Up to D + 1 vectors can have equal distances: the corners of a simplex. More are spread from random directions by
    descent on their uniformity energy, sum_i log sum_{j != i} exp(t_i.t_j / tau): equation 2.
    """
    if num_classes <= width + 1:
        return F.pad(_simplex(num_classes), (0, width + 1 - num_classes))
    random = torch.Generator().manual_seed(0)
    return _descend(torch.randn((num_classes, width), generator=random, dtype=torch.float64))


def _simplex(num_corners: int) -> Tensor:
    """Returns the corners, (C, C - 1), as unit vectors: the columns of Helmert's matrix."""
    order = torch.arange(1, num_corners, dtype=torch.float64)
    # Row j has j ones, then -j.
    rows = torch.ones((num_corners, num_corners), dtype=torch.float64).tril()[:-1] - torch.diag(order, 1)[:-1]
    return unit_length(unit_length(rows).T)


def _descend(targets: Tensor) -> Tensor:
    """Returns targets with a lower energy, at tau 0.1."""
    targets = unit_length(targets)
    for step in range(NUM_STEPS):
        remaining = 1 - step / NUM_STEPS
        # At a low temperature only neighbours repel each other, and three targets may stay in one place.
        temperature = 0.1 + 0.9 * remaining**3
        shares = (targets @ targets.T / temperature).fill_diagonal_(-torch.inf).softmax(dim=1)
        slope = (shares + shares.T) @ targets  # of the energy, times tau
        targets = unit_length(targets - 0.4 * remaining * slope)
    return targets
