"""Losses on logits: cross entropy, focal loss, and the two that adjust logits by the class shares."""

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raysk.parts.losses.base import LogitLoss, at_least_single, losses
from raysk.parts.losses.weights import EffectiveBeta, WeightName, class_weights
from raysk.settings import Between


@losses.register("cross_entropy")
@dataclass(frozen=True, kw_only=True)
class CrossEntropy(LogitLoss):
    """Cross entropy: sum_i w_{y_i} (-log p_{i, y_i}) / sum_i w_{y_i}.

    The weighted mean divides by the weights of the batch, as torch does, so a batch of one class has the loss of
    unweighted cross entropy. With `weights="effective"` this is the class-balanced loss of Cui et al. 2019.

    Args:
        weights: Name of the class weights.
        beta: Of the weights "effective" only.
        label_smoothing: Share of the target that goes to all classes alike.
    """

    weights: WeightName = "none"
    beta: EffectiveBeta = 0.999
    label_smoothing: Annotated[float, Between(0.0, 1.0, open_high=True)] = 0.0

    def module(self, counts: Tensor) -> nn.Module:
        """Returns the module for class counts (C,)."""
        return _WeightedCrossEntropy(class_weights[self.weights](counts, self.beta), self.label_smoothing)


@losses.register("focal")
@dataclass(frozen=True, kw_only=True)
class Focal(LogitLoss):
    """Focal loss in its softmax form: (1/B) sum_i w_{y_i} (1 - p_{i, y_i})^gamma (-log p_{i, y_i}).

    Lin et al. 2017, equation 5; with class weights as in Le et al. 2020. The mean divides by B and not by the weights,
    as published. gamma 0 is cross entropy. The default gamma is our choice for Le et al., who do not give one.

    Args:
        gamma: How strongly rows that are already right are left out.
        weights: Name of the class weights.
        beta: Of the weights "effective" only.
    """

    gamma: Annotated[float, Between(0.0, 20.0)] = 2.0
    weights: WeightName = "none"
    beta: EffectiveBeta = 0.999

    def module(self, counts: Tensor) -> nn.Module:
        """Returns the module for class counts (C,)."""
        return _FocalLoss(class_weights[self.weights](counts, self.beta), self.gamma)


@losses.register("balanced_softmax")
@dataclass(frozen=True, kw_only=True)
class BalancedSoftmax(LogitLoss):
    """Cross entropy of z + log n_k: Ren et al. 2020, equation 4. Predictions use z alone."""

    def module(self, counts: Tensor) -> nn.Module:
        """Returns the module for class counts (C,)."""
        return _ShiftedCrossEntropy(counts.log())


@losses.register("logit_adjustment")
@dataclass(frozen=True, kw_only=True)
class LogitAdjustment(LogitLoss):
    """Cross entropy of z + tau log(n_k / N): Menon et al. 2021, equation 10. tau 1 is balanced softmax.

    Args:
        tau: How much of the class shares is taken out of the logits.
    """

    tau: Annotated[float, Between(0.0, 10.0)] = 1.0

    def module(self, counts: Tensor) -> nn.Module:
        """Returns the module for class counts (C,)."""
        return _ShiftedCrossEntropy(self.tau * (counts / counts.sum()).log())


# The buffers below follow from the settings and the class counts, so a checkpoint need not hold them.


class _WeightedCrossEntropy(nn.Module):
    weights: Tensor

    def __init__(self, weights: Tensor, label_smoothing: float) -> None:
        super().__init__()
        self.register_buffer("weights", weights, persistent=False)
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        logits = at_least_single(logits)
        return F.cross_entropy(logits, labels, self.weights.to(logits), label_smoothing=self.label_smoothing)


class _FocalLoss(nn.Module):
    weights: Tensor

    def __init__(self, weights: Tensor, gamma: float) -> None:
        super().__init__()
        self.register_buffer("weights", weights, persistent=False)
        self.gamma = gamma

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        log_p = -F.cross_entropy(at_least_single(logits), labels, reduction="none")  # (B,)
        # At p = 1 a power below one has an infinite slope, and infinity times zero would be the gradient: the clamp
        # makes it zero times a large number.
        miss = (-torch.expm1(log_p)).clamp_min(torch.finfo(log_p.dtype).tiny)  # 1 - p, (B,)
        return (self.weights.to(log_p)[labels] * miss**self.gamma * -log_p).mean()


class _ShiftedCrossEntropy(nn.Module):
    shift: Tensor

    def __init__(self, shift: Tensor) -> None:
        super().__init__()
        self.register_buffer("shift", shift, persistent=False)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        logits = at_least_single(logits)
        return F.cross_entropy(logits + self.shift.to(logits), labels)
