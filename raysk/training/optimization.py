"""Optimizer, learning rate and averaged weights of a stage, from its recipe."""

import math
from collections.abc import Iterable

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from raysk.stage import Optimizer


def create_optimizer(settings: Optimizer, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Returns the optimizer of a stage."""
    if settings.name == "adamw":
        return torch.optim.AdamW(parameters, lr=settings.lr, weight_decay=settings.weight_decay)
    return torch.optim.SGD(parameters, lr=settings.lr, momentum=settings.momentum, weight_decay=settings.weight_decay)


def learning_rate(settings: Optimizer, step: int, num_steps: int) -> float:
    """Returns the learning rate of one step: a pure function, so that resuming needs no scheduler state.

    Args:
        settings: Peak, schedule and warm-up.
        step: Number of the step, from 0.
        num_steps: Steps of the whole stage.
    """
    warmup_steps = round(settings.warmup * num_steps)
    if step < warmup_steps:
        return settings.lr * (step + 1) / warmup_steps
    done = (step - warmup_steps) / max(1, num_steps - warmup_steps)
    if settings.schedule == "cosine":
        return settings.lr * (1 + math.cos(math.pi * done)) / 2
    if settings.schedule == "step":
        return settings.lr / 10 ** int(3 * done)
    return settings.lr


def averaged(model: nn.Module, decay: float) -> AveragedModel | None:
    """Returns the exponential moving average of a model's weights and running statistics; None for a decay of 0."""
    if decay == 0:
        return None
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
