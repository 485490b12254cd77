"""Losses whose rows have class weights, which may start late in training."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from torch import Tensor, nn

from raysk.errors import ConfigError
from raysk.parts.losses.base import LogitLoss, ScheduledLoss
from raysk.parts.losses.weights import ClassWeights, EffectiveBeta, class_weights
from raysk.settings import Between

Defer = Annotated[float, Between(0.0, 1.0)]


@dataclass(frozen=True, kw_only=True)
class WeightedLoss(LogitLoss):
    """A loss whose rows have class weights, which may start late.

    Args:
        weights: Name of the class weights, or a list with a weight for each class of the manifest, in its order.
        beta: Parameter of the weights "effective" only.
        defer: Share of the epochs before the weights apply (deferred re-weighting, DRW: Cao et al. 2019, algorithm 1);
            0 applies them from the start, 1 never.
    """

    weights: ClassWeights = "none"
    beta: EffectiveBeta = 0.999
    defer: Defer = 0.0

    def check(self, class_counts: np.ndarray) -> None:
        """Refuses a list of weights that does not fit the classes; see `LogitLoss.check`."""
        if not isinstance(self.weights, str) and len(self.weights) != len(class_counts):
            raise ConfigError(
                f"weights must be a name or a list with a weight for each of the {len(class_counts)} classes, but got "
                f"{len(self.weights)}: give them in the order of the classes in `raysk data show`"
            )

    def module(self, counts: Tensor) -> nn.Module:
        """Returns the module for class counts (C,)."""
        self.check(counts.numpy())
        if isinstance(self.weights, str):
            weights = class_weights[self.weights](counts, self.beta)
        else:
            weights = counts.new_tensor(self.weights)
        module = self.weighted(counts, weights)
        return DeferredWeights(module, self.defer) if self.defer > 0 else module

    @abstractmethod
    def weighted(self, counts: Tensor, weights: Tensor) -> nn.Module:
        """Returns a module that keeps the weights (C,) in its buffer `weights`; for the counts see `module`."""


class DeferredWeights(ScheduledLoss):
    """A loss whose class weights are 1 until a share of the epochs is done.

    Args:
        loss: Has the weights (C,) in its buffer `weights`.
        defer: The share.
    """

    late_weights: Tensor
    defer: Tensor

    def __init__(self, loss: nn.Module, defer: float) -> None:
        super().__init__()
        self.loss = loss
        late_weights = loss.get_buffer("weights").clone()
        self.register_buffer("late_weights", late_weights, persistent=False)  # (C,)
        self.register_buffer("defer", late_weights.new_tensor(defer), persistent=False)  # ()
        self.begin_epoch(0.0)

    def begin_epoch(self, done: float) -> None:
        """Sets the weights of the next epoch in place; `done` is the share of the epochs that is done, in [0, 1)."""
        weights = torch.where(self.defer <= done, self.late_weights, 1.0)
        self.loss.get_buffer("weights").copy_(weights)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Returns the loss."""
        loss: Tensor = self.loss(logits, labels)
        return loss


class WeightedMean(nn.Module, ABC):
    """sum_i w_{y_i} l_i / sum_i w_{y_i} of the losses l of rows, which a subclass computes.

    Args:
        weights: w, (C,).
    """

    weights: Tensor

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.register_buffer("weights", weights, persistent=False)  # (C,)

    @abstractmethod
    def rows(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Returns the loss of each row, (B,), in at least float32, for logits (B, C) and labels (B,)."""

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Returns the weighted mean."""
        losses = self.rows(logits, labels)
        row_weights = self.weights.to(losses)[labels]  # (B,)
        return (row_weights * losses).sum() / row_weights.sum()
