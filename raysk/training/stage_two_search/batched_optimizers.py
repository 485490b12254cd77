"""SGD, AdamW and averages on stacks of weights: torch's steps, with the numbers of each setting."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from raysk.stage import Optimizer
from raysk.training.optimization import learning_rate

# Defaults of torch's AdamW, which `create_optimizer` keeps.
_BETAS = (0.9, 0.999)
_EPSILON = 1e-8


class BatchedOptimizer(ABC):
    """Takes the steps of M settings with one rule.

    Every pass over the weights reads the memory of all settings, so a step makes as few passes as torch's operations
    allow, in place.

    Args:
        settings: M settings with the same `name`.
        parameters: Each (M, …) and contiguous; changed in place.
        num_steps: Steps of the whole stage.
    """

    def __init__(self, settings: Sequence[Optimizer], parameters: Sequence[Tensor], num_steps: int) -> None:
        self.parameters = [parameter.detach().view(len(settings), -1) for parameter in parameters]
        device = self.parameters[0].device
        self.rates = learning_rates(settings, num_steps).to(device, torch.float32)[..., None]  # (steps, M, 1)
        self.weight_decay = torch.tensor([[setting.weight_decay] for setting in settings], device=device)  # (M, 1)
        self.step_number = 0

    def step(self, gradients: Sequence[Tensor]) -> None:
        """Takes one step.

        Args:
            gradients: Shaped as the parameters; overwritten.
        """
        rates = self.rates[self.step_number]
        self.step_number += 1
        for number, gradient in enumerate(gradients):
            self._step(number, gradient.reshape(len(rates), -1), rates)

    @abstractmethod
    def _step(self, number: int, gradient: Tensor, rates: Tensor) -> None:
        """Updates a parameter with the gradient (M, K) and the rates (M, 1) of this step."""


class BatchedSGD(BatchedOptimizer):
    """d = g + lambda w, b = mu b + d, w = w - eta b."""

    def __init__(self, settings: Sequence[Optimizer], parameters: Sequence[Tensor], num_steps: int) -> None:
        super().__init__(settings, parameters, num_steps)
        self.velocities = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.momentum = torch.tensor([[setting.momentum] for setting in settings], device=self.rates.device)  # (M, 1)

    def _step(self, number: int, gradient: Tensor, rates: Tensor) -> None:
        weights, velocity = self.parameters[number], self.velocities[number]
        gradient.addcmul_(weights, self.weight_decay)
        velocity.mul_(self.momentum).add_(gradient)
        weights.addcmul_(velocity, rates, value=-1)


class BatchedAdamW(BatchedOptimizer):
    """w = (1 - eta lambda) w - eta m' / (sqrt(v') + epsilon), m' and v' are the bias-corrected moments."""

    def __init__(self, settings: Sequence[Optimizer], parameters: Sequence[Tensor], num_steps: int) -> None:
        super().__init__(settings, parameters, num_steps)
        self.means = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.squares = [torch.zeros_like(parameter) for parameter in self.parameters]

    def _step(self, number: int, gradient: Tensor, rates: Tensor) -> None:
        weights, mean, square = self.parameters[number], self.means[number], self.squares[number]
        mean_bias, square_bias = (1 - beta**self.step_number for beta in _BETAS)
        mean.lerp_(gradient, 1 - _BETAS[0])
        square.mul_(_BETAS[1]).addcmul_(gradient, gradient, value=1 - _BETAS[1])
        # Multiplying m' / (sqrt(v') + epsilon) above and below by the root of v's bias saves a pass.
        root = math.sqrt(square_bias)
        direction = torch.sqrt(square, out=gradient).add_(_EPSILON * root)
        torch.div(mean, direction, out=direction)
        weights.mul_(1 - rates * self.weight_decay)
        weights.addcmul_(direction, rates * (root / mean_bias), value=-1)


batched_optimizers: dict[str, type[BatchedOptimizer]] = {"sgd": BatchedSGD, "adamw": BatchedAdamW}


class BatchedAverage:
    """The exponential moving averages of weights; for a setting without one, the weights themselves.

    Args:
        decays: M decays; 0 keeps the last weights.
        weights: Each (M, …).
    """

    def __init__(self, decays: list[float], weights: list[Tensor]) -> None:
        self.is_needed = any(decays)
        self.values = [weight.detach() for weight in weights]
        self._shares = [1 - torch.tensor(decays).to(weight).view(-1, *[1] * (weight.dim() - 1)) for weight in weights]
        self._is_empty = True

    def update(self, weights: list[Tensor]) -> None:
        """Adds the weights of a step to the averages; copies the first weights, as torch's `AveragedModel` does."""
        if self.is_needed and self._is_empty:
            self.values = [weight.detach().clone() for weight in weights]
        elif self.is_needed:
            for value, weight, share in zip(self.values, weights, self._shares, strict=True):
                value.lerp_(weight.detach(), share)
        self._is_empty = False


def learning_rates(settings: Sequence[Optimizer], num_steps: int) -> Tensor:
    """Returns the rates of all steps, (num_steps, M), float64."""
    # A rate is the peak times a shape from schedule and warm-up, which many settings share.
    shapes: dict[tuple[str, float], Tensor] = {}
    for setting in settings:
        if (setting.schedule, setting.warmup) not in shapes:
            unit = replace(setting, lr=1.0)
            shape = [learning_rate(unit, step, num_steps) for step in range(num_steps)]
            shapes[setting.schedule, setting.warmup] = torch.tensor(shape, dtype=torch.float64)
    rates = [setting.lr * shapes[setting.schedule, setting.warmup] for setting in settings]
    return torch.stack(rates, dim=1)
