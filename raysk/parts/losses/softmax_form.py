"""The form that the losses on logits share, from which their gradients follow without automatic differentiation."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class SoftmaxForm:
    """The gradient of a loss on logits as a formula, so that hundreds of losses can share its few operations.

    For a row of label y with logits z, and p = softmax(factor z + shift - noise e - margin_y 1[k = y]):

        dL/dz_k = factor_k f (total_y p_k - label_y 1[k = y] - other_y - every_k) / sum_i norm_{y_i}

    e is a draw of the module (see `SoftmaxLoss.draw`), f = (1 - p_y)^gamma - gamma p_y (1 - p_y)^(gamma - 1) log p_y,
    which is 1 for gamma 0, and the sum is over the rows of the batch.

    Args:
        total: (C,), the sum of the row's target.
        label: (C,), the part of the target that only the label has.
        norm: (C,).
        factor: (C,).
        shift: (C,).
        margin: (C,).
        other: (C,), the part that all classes have, by the row's label.
        every: (C,), the part that a class has in all rows.
        noise: (C,).
        gamma: (C,), the same for all classes.
    """

    total: Tensor
    label: Tensor
    norm: Tensor
    factor: Tensor
    shift: Tensor
    margin: Tensor
    other: Tensor
    every: Tensor
    noise: Tensor
    gamma: Tensor

    @classmethod
    def of(cls, weights: Tensor, **parts: Tensor) -> "SoftmaxForm":
        """Returns the form of the mean of cross entropies weighted by class (C,), but for the parts given."""
        zeros, ones = torch.zeros_like(weights), torch.ones_like(weights)
        plain = {field.name: zeros for field in fields(cls)}
        plain |= {"total": weights, "label": weights, "norm": weights, "factor": ones}
        return cls(**plain | {name: part.expand_as(weights) for name, part in parts.items()})


class SoftmaxLoss(nn.Module, ABC):
    """A module whose loss has the form of `SoftmaxForm`; `form` follows from its buffers."""

    @abstractmethod
    def form(self) -> SoftmaxForm:
        """Returns its form with the present values of its buffers."""

    def draw(self, logits: Tensor) -> Tensor | None:
        """Returns e for logits (B, C), the next draw of a loss with noise in training; None for a loss without."""
        return None
