"""Batch norm with the statistics of the global batch, so that a network trains alike on any number of workers."""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# What `torch.nn.SyncBatchNorm` computes on a GPU; the module itself would have to replace every layer of a network.
from torch.nn.modules._functions import SyncBatchNorm
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode


class GlobalBatchNorm(nn.Module):
    """A network whose batch norm in training takes its statistics from the batches of all workers.

    All workers must pass equally large batches. The gradients of weights are those of `DistributedDataParallel`: each
    worker's own part of the sum. Layers and names of the network stay as they are.

    Args:
        network: Any network whose layers call `torch.nn.functional.batch_norm`, as those of torch and timm do.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: Tensor) -> Any:
        """Returns the outputs of the network."""
        with _GlobalStatistics():
            return self.network(*inputs)


class statistics_kept:  # noqa: N801 - reads as a statement
    """Keeps batch norm from updating its running statistics; the second run of a batch updates them."""

    def __init__(self, model: nn.Module) -> None:
        layers = [module for module in model.modules() if isinstance(module, _BatchNorm)]
        self.layers = [layer for layer in layers if layer.track_running_stats]

    def __enter__(self) -> None:
        for layer in self.layers:
            layer.track_running_stats = False

    def __exit__(self, *_: object) -> None:
        for layer in self.layers:
            layer.track_running_stats = True


class _GlobalStatistics(TorchFunctionMode):
    """Replaces batch norm in training; leaves all other functions as they are."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function is F.batch_norm and kwargs["training"]:
            return _batch_norm(*args, **kwargs)
        return function(*args, **kwargs)


def _batch_norm(
    inputs: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> Tensor:
    """Normalises inputs (B/W, C, …), and updates the running statistics; see `torch.nn.functional.batch_norm`."""
    if inputs.device.type == "cuda":
        group = dist.group.WORLD
        statistics = (running_mean, running_var, eps, momentum, group, dist.get_world_size())
        normalised: Tensor = SyncBatchNorm.apply(inputs, weight, bias, *statistics)
        return normalised
    # torch's layer refuses tensors on a CPU.
    weight = inputs.new_ones(inputs.shape[1]) if weight is None else weight
    bias = inputs.new_zeros(inputs.shape[1]) if bias is None else bias
    normalised, mean, variance = _Normalise.apply(inputs, weight, bias, eps)
    if running_mean is not None and running_var is not None:
        count = _count(inputs)
        running_mean.lerp_(mean, momentum)
        running_var.lerp_(variance * (count / (count - 1)), momentum)
    return normalised


class _Normalise(torch.autograd.Function):
    """Batch norm (Ioffe and Szegedy 2015) with the mean and the variance of all workers' batches.

    With r = 1 / sqrt(variance + eps) and z = (x - mean) r, it is y = w z + b, and the gradient is
    dx = w r (dy - mean(dy) - z mean(dy z)), also with the means of all workers.
    """

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        """Returns y, shaped as `inputs` (B/W, C, …), and mean and biased variance of the global batch, (C,)."""
        local = torch.stack(torch.var_mean(inputs, _all_but_channels(inputs), correction=0))
        shares = [torch.empty_like(local) for _ in range(dist.get_world_size())]
        dist.all_gather(shares, local)
        variances, means = torch.stack(shares, dim=1)  # each (W, C)
        # The law of total variance, for shares of one size.
        mean, variance = means.mean(dim=0), variances.mean(dim=0) + means.var(dim=0, correction=0)
        ctx.save_for_backward(inputs, weight, mean, (variance + eps).rsqrt())
        ctx.mark_non_differentiable(mean, variance)
        return F.batch_norm(inputs, mean, variance, weight, bias, eps=eps), mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """Returns the gradient of the inputs, and this worker's part of those of weight and bias."""
        inputs, weight, mean, scale = ctx.saved_tensors
        shape = (-1, *[1] * (inputs.dim() - 2))
        standard = (inputs - mean.view(shape)) * scale.view(shape)
        dims = _all_but_channels(inputs)
        sums = torch.stack([grads[0].sum(dims), (grads[0] * standard).sum(dims)])
        global_sums = sums.clone()
        dist.all_reduce(global_sums)
        grad_mean, product_mean = (global_sums / _count(inputs)).view(2, *shape)
        grad = (grads[0] - grad_mean - standard * product_mean) * (scale * weight).view(shape)
        return grad, sums[1], sums[0], None


def _all_but_channels(inputs: Tensor) -> list[int]:
    return [dim for dim in range(inputs.dim()) if dim != 1]


def _count(inputs: Tensor) -> int:
    """Returns the number of values of a channel in the global batch."""
    return inputs.numel() // inputs.shape[1] * dist.get_world_size()
