"""Class weights from class counts: one function per formula, by its name in a loss's `weights` setting."""

from collections.abc import Callable
from typing import Annotated

import torch
from torch import Tensor

from raysk.registry import Registry
from raysk.settings import Between

class_weights: Registry[Callable[[Tensor, float], Tensor]] = Registry("class weights")

ClassWeights = Annotated[str, class_weights] | tuple[Annotated[float, Between(0.0, 1e9, open_low=True)], ...]
EffectiveBeta = Annotated[float, Between(0.0, 1.0, open_high=True)]

# "balanced", "max", "inverse" and "median" are all proportional to 1/n_k and differ in scale only. The scale cancels
# in the weighted mean of cross entropy, which divides by the weights of the batch; in focal loss, which divides by
# the number of rows, it multiplies the learning rate.


@class_weights.register("none")
def no_weights(counts: Tensor, beta: float) -> Tensor:
    """Returns 1 for every class, (C,)."""
    return torch.ones_like(counts)


@class_weights.register("balanced")
def balanced_weights(counts: Tensor, beta: float) -> Tensor:
    """Returns N / (C n_k), (C,): the mean weight of a training row is 1."""
    return counts.sum() / (len(counts) * counts)


@class_weights.register("max")
def max_weights(counts: Tensor, beta: float) -> Tensor:
    """Returns max(n) / n_k, (C,): the largest class has weight 1."""
    return counts.max() / counts


@class_weights.register("inverse")
def inverse_weights(counts: Tensor, beta: float) -> Tensor:
    """Returns 1 / n_k, scaled to sum to C, (C,). The sum is our choice; Le et al. 2020 do not give one."""
    inverse = 1 / counts
    return inverse * (len(counts) / inverse.sum())


@class_weights.register("median")
def median_weights(counts: Tensor, beta: float) -> Tensor:
    """Returns median(n) / n_k, (C,); with an even number of classes the median is the mean of the middle two."""
    return counts.quantile(0.5) / counts


@class_weights.register("effective")
def effective_weights(counts: Tensor, beta: float) -> Tensor:
    """Returns (1 - beta) / (1 - beta^n_k), scaled to sum to C, (C,): Cui et al. 2019, equation 2.

    Args:
        counts: Rows of each class, (C,).
        beta: 0 makes all weights 1; towards 1 they become proportional to 1 / n_k.
    """
    # expm1 keeps the digits that 1 - beta^n loses for a beta near 1.
    weights = 1 / -torch.expm1(counts * torch.tensor(beta, dtype=counts.dtype).log())
    return weights * (len(counts) / weights.sum())


def power_weights(counts: Tensor, rho: float) -> Tensor:
    """Returns (1 / n_k)^rho, scaled to a mean of 1, (C,): Zhang et al. 2021."""
    weights = (counts.min() / counts) ** rho
    return weights / weights.mean()
