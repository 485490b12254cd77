"""Losses that give rare classes a larger margin to the decision boundary: LDAM, VS and GCL."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from raysk.parts.losses.base import NoisyLoss, losses
from raysk.parts.losses.classification import label_entropy
from raysk.parts.losses.softmax_form import SoftmaxForm, SoftmaxLoss
from raysk.parts.losses.weighted import Defer, WeightedLoss, WeightedMean
from raysk.parts.losses.weights import ClassWeights, EffectiveBeta
from raysk.parts.precision import at_least_single
from raysk.settings import Between


@losses.register("ldam")
@dataclass(frozen=True, kw_only=True)
class LDAM(WeightedLoss):
    """LDAM-DRW: cross entropy of z - s m_y 1_y, with class-balanced weights late in training.

    Cao et al. 2019, algorithm 1. The logits z are those of a cosine head of the same scale, z = s cos, so that the
    margins m are in units of the cosine: use the head "cosine" with scale s. The published weights are those of Cui et
    al. 2019; as in `CrossEntropy`, the mean divides by the weights of the batch.

    Args:
        max_margin: Margin of the smallest class.
        scale: s, of the cosine head.
        defer: Share of the epochs before the weights apply; 1 never applies them. Published: 160 of 200 epochs.
    """

    max_margin: Annotated[float, Between(0.0, 10.0, open_low=True)] = 0.5
    scale: Annotated[float, Between(0.0, 1000.0, open_low=True)] = 30.0
    weights: ClassWeights = "effective"
    beta: EffectiveBeta = 0.9999
    defer: Defer = 0.8

    @property
    def head(self) -> Mapping[str, Any] | None:
        """A cosine head of the same scale."""
        return {"name": "cosine", "scale": self.scale}

    def weighted(self, counts: Tensor, weights: Tensor) -> nn.Module:
        """Returns the module for class counts (C,) and weights (C,)."""
        return _MarginCrossEntropy(weights, self.scale * class_margins(counts, self.max_margin))


@losses.register("vs")
@dataclass(frozen=True, kw_only=True)
class VS(WeightedLoss):
    """Vector scaling, cross entropy of D_k z_k + tau log(n_k / N) with D_k = (n_k / max n)^gamma: Kini et al. 2021.

    The shift acts early in training; the factors still act when the network separates the training rows, where a shift
    has lost its effect. gamma 0 is logit adjustment, and gamma 0 with tau 0 is cross entropy. Predictions use z alone.

    Args:
        gamma: Strength of the factors. The released code uses 0.3 for large imbalance.
        tau: Strength of the shift by the log class shares. The released code uses 1.
    """

    gamma: Annotated[float, Between(0.0, 2.0)] = 0.3
    tau: Annotated[float, Between(0.0, 10.0)] = 1.0

    def weighted(self, counts: Tensor, weights: Tensor) -> nn.Module:
        """Returns the module for class counts (C,) and weights (C,)."""
        factors = (counts / counts.max()) ** self.gamma
        return _ScaledCrossEntropy(weights, factors, self.tau * (counts / counts.sum()).log())


@losses.register("gcl")
@dataclass(frozen=True, kw_only=True)
class GCL(WeightedLoss):
    """Gaussian clouded logits, cross entropy of s (cos_k - noise |e_k| d_k / max d - margin 1[k = y]): Li et al. 2022.

    d_k = log max n - log n_k, and e is drawn for each row and class: normal with deviation 1/3, clipped to [-1, 1].
    The noise lowers the logits of rare classes in training, so that their rows are pushed further into their class. The
    logits s cos are those of a cosine head of the same scale. Li et al. then retrain the classifier with balanced
    sampling. If all classes have one size there is no noise, our choice for 0 / 0.

    Args:
        noise: Largest reduction of a cosine. The released code uses 1.
        margin: Reduction of the label's cosine. The released code uses 0.5.
        scale: s, of the cosine head.
    """

    noise: Annotated[float, Between(0.0, 10.0)] = 1.0
    margin: Annotated[float, Between(0.0, 2.0)] = 0.5
    scale: Annotated[float, Between(0.0, 1000.0, open_low=True)] = 30.0

    @property
    def head(self) -> Mapping[str, Any] | None:
        """A cosine head of the same scale."""
        return {"name": "cosine", "scale": self.scale}

    def weighted(self, counts: Tensor, weights: Tensor) -> nn.Module:
        """Returns the module for class counts (C,) and weights (C,)."""
        return _CloudedCrossEntropy(weights, self.scale * self.noise * cloud_sizes(counts), self.scale * self.margin)


def class_margins(counts: Tensor, max_margin: float) -> Tensor:
    """Returns m_k = max_margin n_k^(-1/4) / max_j n_j^(-1/4), (C,): Cao et al. 2019.

    Args:
        counts: Rows of each class, (C,).
        max_margin: Margin of the smallest class.
    """
    return max_margin * (counts.min() / counts) ** 0.25


def cloud_sizes(counts: Tensor) -> Tensor:
    """Returns d_k / max d with d_k = log max n - log n_k, (C,): 0 for the largest class, 1 for the smallest.

    Args:
        counts: Rows of each class, (C,).
    """
    differences = (counts.max() / counts).log()
    # Counts are whole numbers, so the clamp changes equal counts only.
    return differences / differences.max().clamp_min(torch.finfo(counts.dtype).eps)


class _MarginCrossEntropy(WeightedMean, SoftmaxLoss):
    margins: Tensor

    def __init__(self, weights: Tensor, margins: Tensor) -> None:
        super().__init__(weights)
        self.register_buffer("margins", margins, persistent=False)  # (C,), in units of the logits

    def rows(self, logits: Tensor, labels: Tensor) -> Tensor:
        logits = at_least_single(logits)
        margins = self.margins.to(logits)[labels, None]  # (B, 1)
        return label_entropy(logits.scatter_add(1, labels[:, None], -margins), labels)

    def form(self) -> SoftmaxForm:
        return SoftmaxForm.of(self.weights, margin=self.margins)


class _ScaledCrossEntropy(WeightedMean, SoftmaxLoss):
    factors: Tensor
    shift: Tensor

    def __init__(self, weights: Tensor, factors: Tensor, shift: Tensor) -> None:
        super().__init__(weights)
        self.register_buffer("factors", factors, persistent=False)  # (C,)
        self.register_buffer("shift", shift, persistent=False)  # (C,)

    def rows(self, logits: Tensor, labels: Tensor) -> Tensor:
        logits = at_least_single(logits)
        return label_entropy(self.factors.to(logits) * logits + self.shift.to(logits), labels)

    def form(self) -> SoftmaxForm:
        return SoftmaxForm.of(self.weights, factor=self.factors, shift=self.shift)


class _CloudedCrossEntropy(WeightedMean, NoisyLoss, SoftmaxLoss):
    sizes: Tensor
    margin: Tensor

    def __init__(self, weights: Tensor, sizes: Tensor, margin: float) -> None:
        super().__init__(weights)
        self.register_buffer("sizes", sizes, persistent=False)  # (C,), in units of the logits
        self.register_buffer("margin", sizes.new_tensor(margin), persistent=False)  # ()

    def rows(self, logits: Tensor, labels: Tensor) -> Tensor:
        logits = at_least_single(logits)
        clouds = self.draw(logits)
        if clouds is not None:
            logits = logits - self.sizes.to(logits) * clouds
        margin = self.margin.to(logits).expand(len(labels), 1)
        return label_entropy(logits.scatter_add(1, labels[:, None], -margin), labels)

    def form(self) -> SoftmaxForm:
        return SoftmaxForm.of(self.weights, margin=self.margin, noise=self.sizes)

    def draw(self, logits: Tensor) -> Tensor | None:
        return (self.normal_like(logits) / 3).clamp(-1, 1).abs() if self.training else None
