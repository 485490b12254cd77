"""Losses on logits: cross entropy with weights and smoothing, focal loss, and two losses that shift logits by class."""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

from raysk.parts.losses.base import LogitLoss, losses
from raysk.parts.losses.softmax_form import SoftmaxForm, SoftmaxLoss
from raysk.parts.losses.weighted import Defer, WeightedLoss, WeightedMean
from raysk.parts.losses.weights import EffectiveBeta, power_weights
from raysk.parts.precision import at_least_single
from raysk.settings import Between

Smoothing = Annotated[float, Between(0.0, 1.0, open_high=True)]


@losses.register("cross_entropy")
@dataclass(frozen=True, kw_only=True)
class CrossEntropy(WeightedLoss):
    """Cross entropy: sum_i w_{y_i} (-log p_{i, y_i}) / sum_i w_{y_i}.

    As in torch, the weighted mean divides by the weights of the batch, so a batch of one class has the loss of
    unweighted cross entropy. Smoothing follows torch, too: the target is 1 - label_smoothing for the label plus
    label_smoothing / C for every class k, and the term of class k is weighted by w_k.

    Args:
        label_smoothing: Share of the target that is spread evenly over all classes.
    """

    label_smoothing: Smoothing = 0.0

    def weighted(self, counts: Tensor, weights: Tensor) -> nn.Module:
        """Returns the module for weights (C,)."""
        return _WeightedCrossEntropy(weights, self.label_smoothing)


@losses.register("class_balanced")
@dataclass(frozen=True, kw_only=True)
class ClassBalanced(LogitLoss):
    """Cross entropy weighted by (1 - beta) / (1 - beta^n_k): Cui et al. 2019, with the softmax.

    It equals cross entropy with the weights "effective"; it has its own name because comparisons list it.

    Args:
        beta: 0 weights all classes equally; towards 1 the weights approach 1 / n_k. Published: 0.9 to 0.9999.
        defer: Share of the epochs before the weights apply; 0 applies them from the start.
    """

    beta: EffectiveBeta = 0.999
    defer: Defer = 0.0

    def module(self, counts: Tensor) -> nn.Module:
        """Returns the module for class counts (C,)."""
        return CrossEntropy(weights="effective", beta=self.beta, defer=self.defer).module(counts)


@losses.register("generalized_reweight")
@dataclass(frozen=True, kw_only=True)
class GeneralizedReweight(LogitLoss):
    """Cross entropy weighted by (N / n_k)^rho: Zhang et al. 2021, generalized re-weighting, published with "disalign".

    As in `CrossEntropy`, the mean divides by the weights of the batch. rho 0 is cross entropy, and rho 1 has the
    weights "balanced".

    Args:
        rho: Strength of the weights. Zhang et al. choose it for each data set; the default is that of
            re-implementations of their code.
    """

    rho: Annotated[float, Between(0.0, 3.0)] = 1.5

    def module(self, counts: Tensor) -> nn.Module:
        """Returns the module for class counts (C,)."""
        return _WeightedCrossEntropy(power_weights(counts, self.rho), 0.0)


@losses.register("focal")
@dataclass(frozen=True, kw_only=True)
class Focal(WeightedLoss):
    """Focal loss in its softmax form: (1/B) sum_i w_{y_i} (1 - p_{i, y_i})^gamma (-log p_{i, y_i}).

    Lin et al. 2017, equation 5; with class weights as in Le et al. 2020. The mean divides by B, not by the weights, as
    published. With gamma 0 it is cross entropy. The default gamma is our choice; Le et al. do not give one.

    Args:
        gamma: How strongly rows that are already classified well are discounted. Chen et al. 2022 publish 5.
        alpha: Multiplies the weight of the largest class by alpha, and those of all others by 1 - alpha; null leaves
            them. Chen et al. 2022 publish 0.25 for benign images and 0.75 for the others.
    """

    gamma: Annotated[float, Between(0.0, 20.0)] = 2.0
    alpha: Annotated[float, Between(0.0, 1.0, open_low=True, open_high=True)] | None = None

    def weighted(self, counts: Tensor, weights: Tensor) -> nn.Module:
        """Returns the module for class counts (C,) and weights (C,)."""
        if self.alpha is not None:
            weights = weights * torch.where(counts == counts.max(), self.alpha, 1 - self.alpha)
        return _FocalLoss(weights, self.gamma)


@losses.register("balanced_softmax")
@dataclass(frozen=True, kw_only=True)
class BalancedSoftmax(WeightedLoss):
    """Cross entropy of z + log n_k: Ren et al. 2020, equation 4. Predictions use z alone."""

    def weighted(self, counts: Tensor, weights: Tensor) -> nn.Module:
        """Returns the module for class counts (C,) and weights (C,)."""
        return _ShiftedCrossEntropy(weights, counts.log())


@losses.register("logit_adjustment")
@dataclass(frozen=True, kw_only=True)
class LogitAdjustment(WeightedLoss):
    """Cross entropy of z + tau log(n_k / N): Menon et al. 2021, equation 10. tau 1 is balanced softmax.

    Args:
        tau: Strength of the shift by the log class shares.
    """

    tau: Annotated[float, Between(0.0, 10.0)] = 1.0

    def weighted(self, counts: Tensor, weights: Tensor) -> nn.Module:
        """Returns the module for class counts (C,) and weights (C,)."""
        return _ShiftedCrossEntropy(weights, self.tau * (counts / counts.sum()).log())


@losses.register("label_aware_smoothing")
@dataclass(frozen=True, kw_only=True)
class LabelAwareSmoothing(WeightedLoss):
    """Cross entropy whose target is 1 - eps_y for the label y and eps_y / (C - 1) for each other class.

    Zhong et al. 2021, in the concave form: eps grows with the size of the class, against a classifier's
    overconfidence in its common classes.

    Args:
        head_smoothing: eps of the largest class.
        tail_smoothing: eps of the smallest class.
    """

    head_smoothing: Smoothing = 0.3
    tail_smoothing: Smoothing = 0.0

    def weighted(self, counts: Tensor, weights: Tensor) -> nn.Module:
        """Returns the module for class counts (C,) and weights (C,)."""
        return _SmoothedCrossEntropy(weights, class_smoothing(counts, self.head_smoothing, self.tail_smoothing))


def class_smoothing(counts: Tensor, head: float, tail: float) -> Tensor:
    """Returns eps_k = tail + (head - tail) sin(pi (n_k - n_min) / (2 (n_max - n_min))), (C,).

    If all counts are equal, the fraction is 0/0. Our choice is 0: all classes are tail classes.

    Args:
        counts: Rows of each class, (C,).
        head: eps of the largest class.
        tail: eps of the smallest class.
    """
    smallest = counts.min()
    # Counts are whole numbers, so the clamp changes equal counts only.
    fraction = (counts - smallest) / (counts.max() - smallest).clamp_min(1)
    return tail + (head - tail) * torch.sin(math.pi / 2 * fraction)


def centred(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Returns z - max z, (B, C), and the logarithm of the sum of its exponentials, (B,): log p is their difference.

    For few classes torch's log_softmax takes four times as long and gives the same digits.
    """
    logits = at_least_single(logits)
    shifted = logits - logits.detach().amax(dim=1, keepdim=True)  # a shift of all logits has no gradient
    return shifted, shifted.exp().sum(dim=1).log()


def label_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Returns -log p of the label for logits (B, C) and labels (B,), as (B,) in at least float32."""
    shifted, log_total = centred(logits)
    return log_total - shifted.gather(1, labels[:, None]).squeeze(1)


# Two modules of one class differ in buffers only, so that many heads are fitted as one (see LogitLoss). The buffers
# follow from the settings and the class counts, so a checkpoint need not hold them.


class _WeightedCrossEntropy(SoftmaxLoss):
    weights: Tensor
    smoothing: Tensor

    def __init__(self, weights: Tensor, smoothing: float) -> None:
        super().__init__()
        self.register_buffer("weights", weights, persistent=False)  # (C,)
        self.register_buffer("smoothing", weights.new_tensor(smoothing), persistent=False)  # ()

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        shifted, log_total = centred(logits)
        weights, smoothing = self.weights.to(log_total), self.smoothing.to(log_total)
        row_weights = weights[labels]  # (B,)
        label_sum = (row_weights * (log_total - shifted.gather(1, labels[:, None]).squeeze(1))).sum()
        # Summing over the rows first saves smoothing another (B, C).
        class_sum = weights.sum() * log_total.sum() - (weights * shifted.sum(dim=0)).sum()
        return ((1 - smoothing) * label_sum + smoothing / len(weights) * class_sum) / row_weights.sum()

    def form(self) -> SoftmaxForm:
        label, every = (1 - self.smoothing) * self.weights, self.smoothing / len(self.weights) * self.weights
        return SoftmaxForm.of(self.weights, total=label + every.sum(), label=label, every=every)


class _FocalLoss(SoftmaxLoss):
    weights: Tensor
    gamma: Tensor

    def __init__(self, weights: Tensor, gamma: float) -> None:
        super().__init__()
        self.register_buffer("weights", weights, persistent=False)  # (C,)
        self.register_buffer("gamma", weights.new_tensor(gamma), persistent=False)  # ()

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        entropy = label_entropy(logits, labels)
        # At p = 1 a power below one has an infinite slope, and the gradient would be infinity times zero: the clamp
        # makes it a large number times zero.
        miss = (-torch.expm1(-entropy)).clamp_min(torch.finfo(entropy.dtype).tiny)  # 1 - p, (B,)
        return (self.weights.to(entropy)[labels] * miss ** self.gamma.to(entropy) * entropy).mean()

    def form(self) -> SoftmaxForm:
        return SoftmaxForm.of(self.weights, gamma=self.gamma, norm=torch.ones_like(self.weights))


class _ShiftedCrossEntropy(WeightedMean, SoftmaxLoss):
    shift: Tensor

    def __init__(self, weights: Tensor, shift: Tensor) -> None:
        super().__init__(weights)
        self.register_buffer("shift", shift, persistent=False)  # (C,)

    def rows(self, logits: Tensor, labels: Tensor) -> Tensor:
        logits = at_least_single(logits)
        return label_entropy(logits + self.shift.to(logits), labels)

    def form(self) -> SoftmaxForm:
        return SoftmaxForm.of(self.weights, shift=self.shift)


class _SmoothedCrossEntropy(WeightedMean, SoftmaxLoss):
    smoothing: Tensor

    def __init__(self, weights: Tensor, smoothing: Tensor) -> None:
        super().__init__(weights)
        self.register_buffer("smoothing", smoothing, persistent=False)  # (C,)

    def rows(self, logits: Tensor, labels: Tensor) -> Tensor:
        shifted, log_total = centred(logits)
        num_classes = logits.shape[1]
        label_terms = log_total - shifted.gather(1, labels[:, None]).squeeze(1)  # (B,)
        class_sums = num_classes * log_total - shifted.sum(dim=1)  # (B,)
        other_target = self.smoothing.to(log_total)[labels] / (num_classes - 1)  # (B,), of each other class
        return (1 - num_classes * other_target) * label_terms + other_target * class_sums

    def form(self) -> SoftmaxForm:
        other = self.weights * self.smoothing / (len(self.weights) - 1)
        return SoftmaxForm.of(self.weights, label=self.weights - len(self.weights) * other, other=other)
