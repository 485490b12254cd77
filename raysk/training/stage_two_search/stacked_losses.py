"""The gradients of many losses on logits at once, in the layout (settings, classes, rows)."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from raysk.parts.losses.base import NoisyLoss, ScheduledLoss
from raysk.parts.losses.softmax_form import SoftmaxForm, SoftmaxLoss
from raysk.parts.losses.weighted import DeferredWeights
from raysk.training.stage_two_search.stacked_modules import StackedModules


class StackedLosses(ABC):
    """M losses.

    Args:
        modules: Their modules.
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self.modules = modules
        parts = [part for module in modules for part in module.modules()]
        self._scheduled = [part for part in parts if isinstance(part, ScheduledLoss)]
        self._noisy = [part for part in parts if isinstance(part, NoisyLoss)]
        self._stack()

    @abstractmethod
    def _stack(self) -> None:
        """Stacks the present values of the buffers."""

    def begin_epoch(self, done: float, seed: int) -> None:
        """Passes the share of the epochs that is done to the scheduled losses, and the epoch's seed to noisy ones."""
        for noisy in self._noisy:
            noisy.begin_noise(seed)
        for scheduled in self._scheduled:
            scheduled.begin_epoch(done)
        if self._scheduled:
            self._stack()

    @abstractmethod
    def total(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Returns a scalar with the gradient of the sum of all losses; logits affect the loss of their own setting.

        Args:
            logits: (M, C, B).
            labels: (M, B).
        """


class DifferentiatedLosses(StackedLosses):
    """Losses of one `structure`, by automatic differentiation."""

    def _stack(self) -> None:
        self._losses = StackedModules(self.modules)

    def total(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Returns the sum of all losses; see `StackedLosses.total`."""
        return self._losses(logits.transpose(1, 2), labels, dims=(0, 0)).sum()


class SoftmaxLosses(StackedLosses):
    """Losses of any structures that have a `SoftmaxForm`."""

    def _stack(self) -> None:
        forms = [softmax_loss(module).form() for module in self.modules]
        stacks = {
            field.name: torch.stack([getattr(form, field.name) for form in forms]).float()
            for field in fields(SoftmaxForm)
        }
        by_label = ("total", "label", "norm", "other", "margin", "gamma")
        self._by_label = torch.stack([stacks[name] for name in by_label])  # (6, M, C)
        self._factor, self._shift, self._every, self._noise = (
            stacks[name][..., None] for name in ("factor", "shift", "every", "noise")
        )  # each (M, C, 1)
        # Most losses need few of the terms.
        self._has = {name: bool((stack != (name == "factor")).any()) for name, stack in stacks.items()}
        self._focal = stacks["gamma"][:, 0].nonzero().flatten()
        self._values = torch.empty(0, device=self._shift.device)

    def total(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Returns zero, with the gradient of the sum of all losses: nobody reads their values."""
        total: Tensor = _WithGradient.apply(logits, self.gradients(logits.detach(), labels))
        return total

    def gradients(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Returns the gradient of each loss by its logits, (M, C, B), until the next call; see `SoftmaxForm`."""
        of_rows = self._by_label.gather(2, labels.expand(len(self._by_label), -1, -1))
        total, label, norm, other, margin, gamma = of_rows  # each (M, B)
        places = labels[:, None]
        # Memory that is asked for in each step would be slower than the arithmetic.
        values = torch.addcmul(self._shift, logits, self._factor, out=self._values.resize_(logits.shape))
        if self._has["noise"]:
            values -= self._noise * self._draw(logits[0].T).T
        if self._has["margin"]:
            values.scatter_add_(1, places, -margin[:, None])
        values -= values.amax(dim=1, keepdim=True)
        scale = norm.sum(dim=1, keepdim=True).reciprocal().expand_as(norm)  # (M, B)
        if self._has["gamma"]:
            focal = self._focal
            of_label = values[focal].gather(1, places[focal]).squeeze(1)
            sums = values.exp_().sum(dim=1)
            scale = scale.index_put((focal,), scale[focal] * _focus(sums[focal].log() - of_label, gamma[focal]))
        else:
            sums = values.exp_().sum(dim=1)
        values *= (total * scale / sums)[:, None]
        values.scatter_add_(1, places, -(label * scale)[:, None])
        if self._has["other"]:
            values -= (other * scale)[:, None]
        if self._has["every"]:
            values.addcmul_(self._every, scale[:, None], value=-1)
        return values.mul_(self._factor) if self._has["factor"] else values

    def _draw(self, logits: Tensor) -> Tensor:
        """Returns the draw (B, C) that each noisy loss would make alone."""
        draws = (softmax_loss(module).draw(logits) for module in self.modules)
        return next(draw for draw in draws if draw is not None)


def has_form(module: nn.Module) -> bool:
    """Returns whether a loss has a `SoftmaxForm`."""
    return isinstance(_inner(module), SoftmaxLoss)


def softmax_loss(module: nn.Module) -> SoftmaxLoss:
    """Returns the part of a loss that has the form.

    Raises:
        TypeError: It has none.
    """
    inner = _inner(module)
    if not isinstance(inner, SoftmaxLoss):
        raise TypeError(f"a loss must have a form, but got {type(inner).__name__}")
    return inner


def _inner(module: nn.Module) -> nn.Module:
    return module.loss if isinstance(module, DeferredWeights) else module


def _focus(entropy: Tensor, gamma: Tensor) -> Tensor:
    """Returns the slope (M, B) of (1 - p)^gamma (-log p) by -log p, the entropy: f of `SoftmaxForm`."""
    # A power below zero of zero is infinite, and would be multiplied by zero.
    miss = (-torch.expm1(-entropy)).clamp_min(torch.finfo(entropy.dtype).tiny)  # 1 - p
    return miss ** (gamma - 1) * (miss + gamma * (1 - miss) * entropy)


class _WithGradient(torch.autograd.Function):
    """Zero, whose gradient is given."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, gradient: Tensor) -> Tensor:
        ctx.gradient = gradient
        return values.new_zeros(())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        return ctx.gradient, None  # the slope of the total by itself is 1
