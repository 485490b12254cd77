"""Targeted supervised contrast: each class has a place on the sphere, as far from the others as can be."""

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
from raysk.parts.losses.similarities import PreciseLoss, log_denominators, mean_where, positive_means, same_label
from raysk.settings import Between

NUM_STEPS = 500  # of the descent, which more do not improve by 1 %


@losses.register("tsc")
@dataclass(frozen=True, kw_only=True)
class TSC(EmbeddingLoss):
    """Targeted supervised contrastive loss: Li et al. 2022, equation 4.

        L_i = -mean_{p in P(i)} log[ exp(z_i.z_p / tau) / S_i ] - weight log[ exp(z_i.t_{y_i} / tau) / S_i ]

    S_i sums exp(z_i.a / tau) over the other views and over the targets of all classes; P(i) is that of `KCL`, in
    expectation. Without targets the rare classes would end up close to one another.

    Which class has which target is decided before each epoch, such that the targets are close to the means of the
    classes, as they were in the embeddings of late. The paper decides anew in each step; ours keeps a loss that does
    not change in the course of an epoch. Ours also: a view without positives has the second term only.

    Args:
        positives: As for `KCL`.
        temperature: tau. The paper publishes 0.07.
        weight: lambda, of the pull to the targets. The paper publishes 1.
        momentum: Share of the old mean of a class that stays when a batch brings a new one. The released code has 0.9.
    """

    positives: MostPositives = 6
    temperature: Temperature = 0.07
    weight: Annotated[float, Between(0.0, 100.0)] = 1.0
    momentum: Annotated[float, Between(0.0, 1.0, open_high=True)] = 0.9

    def module(self, counts: Tensor, width: int) -> nn.Module:
        """Returns the module for embeddings of that width; of the class counts only their number enters."""
        return _TSC(self, spread_targets(len(counts), width))


class _TSC(PreciseLoss, ScheduledLoss):
    targets: Tensor  # (C, D), in an order of their own
    means: Tensor  # (C, D), of the classes
    target_of_class: Tensor  # (C,)

    def __init__(self, settings: TSC, targets: Tensor) -> None:
        super().__init__()
        self.settings = settings
        self.register_buffer("targets", targets, persistent=False)
        self.register_buffer("means", torch.zeros_like(targets))
        self.register_buffer("target_of_class", torch.arange(len(targets)))

    def begin_epoch(self, done: float) -> None:
        """Matches targets to classes: the sum of z.t over classes is the largest that an assignment can have."""
        closeness = (self.means @ self.targets.T).cpu().numpy()
        self.target_of_class.copy_(torch.from_numpy(linear_sum_assignment(closeness, maximize=True)[1]))

    def loss(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        of = self.settings
        if self.training:
            self._follow(embeddings.detach(), labels)
        targets = self.targets[self.target_of_class].to(embeddings)
        denominators = log_denominators(embeddings, of.temperature, targets)
        means, num_positives = positive_means(embeddings, same_label(labels), of.positives)
        own_target = (embeddings * targets[labels][:, None]).sum(dim=2)  # (B, V)
        among_views = mean_where(num_positives > 0, denominators - means / of.temperature)
        return among_views + of.weight * (denominators - own_target / of.temperature).mean()

    def _follow(self, embeddings: Tensor, labels: Tensor) -> None:
        """Moves the means of the classes in the batch; forward reads none of them."""
        members = F.one_hot(labels, len(self.means)).to(self.means)  # (B, C)
        fresh = unit_length(members.T @ embeddings.sum(dim=1).to(self.means))
        moved = unit_length(torch.lerp(fresh, self.means, self.settings.momentum))  # from zero straight to fresh
        self.means.copy_(torch.where(members.any(dim=0)[:, None], moved, self.means))


def spread_targets(num_classes: int, width: int) -> Tensor:
    """Returns unit vectors (C, D), float64, far from one another: always the same ones.

    Up to D + 1 of them can have equal distances, and are the corners of a simplex. More of them are spread by descent
    on their uniformity energy, sum_i log sum_{j != i} exp(t_i.t_j / tau), from random directions: equation 2.
    """
    if num_classes <= width + 1:
        return F.pad(_simplex(num_classes), (0, width + 1 - num_classes))
    random = torch.Generator().manual_seed(0)
    return _descend(torch.randn((num_classes, width), generator=random, dtype=torch.float64))


def _simplex(num_corners: int) -> Tensor:
    """Returns the corners, (C, C - 1): columns of Helmert's matrix, which map the unit vectors less their mean."""
    order = torch.arange(1, num_corners, dtype=torch.float64)
    # Row j has j ones, then -j.
    rows = torch.ones((num_corners, num_corners), dtype=torch.float64).tril()[:-1] - torch.diag(order, 1)[:-1]
    return unit_length(unit_length(rows).T)


def _descend(targets: Tensor) -> Tensor:
    """Returns targets of a lower energy, at tau 0.1."""
    targets = unit_length(targets)
    for step in range(NUM_STEPS):
        left = 1 - step / NUM_STEPS
        # At a low temperature targets feel none but their neighbours, and three of them may stay in one place.
        temperature = 0.1 + 0.9 * left**3
        shares = (targets @ targets.T / temperature).fill_diagonal_(-torch.inf).softmax(dim=1)
        slope = (shares + shares.T) @ targets  # times tau, that of the energy
        targets = unit_length(targets - 0.4 * left * slope)
    return targets
