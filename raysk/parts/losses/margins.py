"""A loss that gives rare classes a larger margin to the decision boundary: LDAM."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from torch import Tensor, nn

from raysk.parts.losses.base import at_least_single, losses
from raysk.parts.losses.classification import label_entropy
from raysk.parts.losses.weighted import Defer, WeightedLoss, WeightedMean
from raysk.parts.losses.weights import ClassWeights, EffectiveBeta
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


def class_margins(counts: Tensor, max_margin: float) -> Tensor:
    """Returns m_k = max_margin n_k^(-1/4) / max_j n_j^(-1/4), (C,): Cao et al. 2019.

    Args:
        counts: Rows of each class, (C,).
        max_margin: Margin of the smallest class.
    """
    return max_margin * (counts.min() / counts) ** 0.25


class _MarginCrossEntropy(WeightedMean):
    margins: Tensor

    def __init__(self, weights: Tensor, margins: Tensor) -> None:
        super().__init__(weights)
        self.register_buffer("margins", margins, persistent=False)  # (C,), in units of the logits

    def rows(self, logits: Tensor, labels: Tensor) -> Tensor:
        logits = at_least_single(logits)
        margins = self.margins.to(logits)[labels, None]  # (B, 1)
        return label_entropy(logits.scatter_add(1, labels[:, None], -margins), labels)
