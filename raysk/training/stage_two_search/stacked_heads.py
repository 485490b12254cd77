"""The logits of many heads at once, on the batches of several streams, in the layout (settings, classes, rows)."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from raysk.parts.heads import AlignedClassifier, CosineClassifier, ScaledClassifier, unit_length
from raysk.training.stage_two_search.stacked_modules import StackedModules

Slices = list[tuple[slice, int]]


class StackedHeads(StackedModules):
    """M heads of one `structure`, by `torch.vmap` over the heads that see the same batches.

    Args:
        modules: The heads.
        streams: For each head, the number of its stream, in ascending runs.
    """

    def __init__(self, modules: Sequence[nn.Module], streams: Sequence[int]) -> None:
        super().__init__(modules)
        self.slices: Slices = []
        for stream, run in groupby(streams):
            first = self.slices[-1][0].stop if self.slices else 0
            self.slices.append((slice(first, first + len(list(run))), stream))
        self.streams = torch.tensor(streams, device=next(iter(self.parameters.values())).device)

    def logits(self, inputs: Tensor) -> Tensor:
        """Returns logits (M, C, B) of the inputs (S, B, D) of all streams."""
        parts = [self(inputs[stream], dims=(None,), part=part) for part, stream in self.slices]
        return torch.cat(parts).transpose(1, 2)

    def products(self, rows: Tensor, inputs: Tensor) -> Tensor:
        """Returns the products (M, K, B) of rows (M, K, D) with the inputs of each head's stream."""
        products: Tensor = _Products.apply(rows, inputs, self.slices)
        return products


class _Linear(StackedHeads):
    """Linear layers."""

    def logits(self, inputs: Tensor) -> Tensor:
        return self.products(self.parameters["weight"], inputs) + self.parameters["bias"][..., None]


class _Cosine(StackedHeads):
    """Cosine classifiers."""

    def logits(self, inputs: Tensor) -> Tensor:
        products = self.products(unit_length(self.parameters["weight"]), unit_length(inputs))
        return products * cast(CosineClassifier, self.modules[0]).scale


class _Frozen(StackedHeads):
    """Classifiers that rescale the logits of one linear classifier, from which all of them start."""

    def frozen_logits(self, inputs: Tensor) -> Tensor:
        """Returns the logits (M, C, B) of the linear classifier."""
        weight, bias = (self.modules[0].get_buffer(name) for name in ("weight", "bias"))
        return (weight @ inputs.mT + bias[:, None])[self.streams]


class _Scaled(_Frozen):
    """Learnable weight scaling."""

    def logits(self, inputs: Tensor) -> Tensor:
        return self.frozen_logits(inputs) * self.parameters["scale"][..., None]


class _Aligned(_Frozen):
    """DisAlign."""

    def logits(self, inputs: Tensor) -> Tensor:
        values = {name: stack[..., None] for name, stack in self.parameters.items() if name != "confidence.weight"}
        frozen = self.frozen_logits(inputs)
        confidence = self.products(self.parameters["confidence.weight"], inputs) + values["confidence.bias"]
        calibration = (values["magnitude"] - 1) * frozen + values["margin"]
        return torch.addcmul(frozen, confidence.sigmoid(), calibration)


_STACKS: dict[type[nn.Module], type[StackedHeads]] = {
    nn.Linear: _Linear,
    CosineClassifier: _Cosine,
    ScaledClassifier: _Scaled,
    AlignedClassifier: _Aligned,
}


def stack_heads(modules: Sequence[nn.Module], streams: Sequence[int]) -> StackedHeads:
    """Returns heads of one structure as a stack; see `StackedHeads`."""
    return _STACKS.get(type(modules[0]), StackedHeads)(modules, streams)


class _Products(torch.autograd.Function):
    """One matrix product for all rows that see the same inputs, written in place."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, inputs: Tensor, slices: Slices) -> Tensor:
        ctx.inputs, ctx.slices = inputs, slices
        products = rows.new_empty(*rows.shape[:2], inputs.shape[1])
        for part, stream in slices:
            torch.mm(rows[part].flatten(0, 1), inputs[stream].T, out=products[part].flatten(0, 1))
        return products

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slopes: Tensor) -> tuple[Tensor, None, None]:
        slopes = slopes.contiguous()
        gradients = slopes.new_empty(*slopes.shape[:2], ctx.inputs.shape[2])
        for part, stream in ctx.slices:
            torch.mm(slopes[part].flatten(0, 1), ctx.inputs[stream], out=gradients[part].flatten(0, 1))
        return gradients, None, None
