"""Optimizer, learning rate and averaged weights of a stage, from its recipe."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from raysk.parts.encoder import Encoder
from raysk.stage import Optimizer


def parameter_groups(settings: Optimizer, *modules: nn.Module) -> list[dict[str, Any]]:
    """Returns the trainable parameters in groups for torch; `scale` is a group's learning rate relative to others.

    As Bao et al. 2022 (BEiT) fine-tune, the layer of an encoder at depth d below its top has layer_decay^(d + 1).
    Everything outside an encoder has head_factor.
    """
    depths: dict[nn.Parameter, int] = {}
    if settings.layer_decay != 1 or settings.head_factor != 1:
        for module in modules:
            for encoder in (part for part in module.modules() if isinstance(part, Encoder)):
                decays = settings.layer_decay != 1
                depths |= encoder.depths() if decays else dict.fromkeys(encoder.parameters(), 0)
    groups: dict[float, list[nn.Parameter]] = {}
    for weight in (weight for module in modules for weight in module.parameters() if weight.requires_grad):
        scale = settings.layer_decay ** (depths[weight] + 1) if weight in depths else settings.head_factor
        groups.setdefault(scale, []).append(weight)
    return [{"params": weights, "scale": scale} for scale, weights in groups.items()]


def create_optimizer(
    settings: Optimizer, parameters: Iterable[nn.Parameter] | list[dict[str, Any]]
) -> torch.optim.Optimizer:
    """Returns the optimizer of a stage, for parameters or groups of them."""
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
