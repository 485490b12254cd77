"""Modules that differ only in parameter and buffer values, computed as one on stacks of these values."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode


def structure(module: nn.Module) -> str:
    """Returns a description of everything in a module's computation except parameter and buffer values."""
    bare = vars(nn.Module()).keys()
    parts = []
    for name, part in module.named_modules():
        settings = sorted((key, repr(value)) for key, value in vars(part).items() if key not in bare)
        shapes = [(key, tuple(tensor.shape)) for key, tensor in part.state_dict(keep_vars=True).items()]
        parts.append((name, type(part).__qualname__, settings, shapes))
    return repr(parts)


class StackedModules:
    """M modules of one `structure`.

    Args:
        modules: Their values are copied to stacks; `unstack` copies the parameters back.
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self.modules = modules
        named = [dict(module.named_parameters()) for module in modules]
        stacks = {name: torch.stack([values[name].detach() for values in named]) for name in named[0]}
        self.parameters = {name: stack.requires_grad_() for name, stack in stacks.items()}  # each (M, …)
        self._buffers: dict[str, Tensor] = {}
        self._dims: dict[str, int | None] = dict.fromkeys(self.parameters, 0)
        buffers = [dict(module.named_buffers()) for module in modules]
        for name, first in buffers[0].items():
            # Equal buffers, such as the classifier that LWS scales, are not stacked: one computation serves all.
            is_shared = all(torch.equal(values[name], first) for values in buffers)
            self._buffers[name] = first if is_shared else torch.stack([values[name] for values in buffers])
            self._dims[name] = None if is_shared else 0

    def __call__(self, *inputs: Tensor, dims: tuple[int | None, ...], part: slice = slice(None)) -> Tensor:
        """Returns the outputs of all modules, (M, …), or of a part of them.

        Args:
            inputs: The inputs of the modules.
            dims: For each input, 0 if it is a stack, None if all modules share it.
            part: The modules.
        """

        def call(values: dict[str, Tensor], *inputs: Tensor) -> Any:
            return functional_call(self.modules[0], values, inputs)

        # Each module must draw the random numbers that it would draw alone.
        batched = torch.vmap(call, in_dims=(self._dims, *dims), randomness="same")
        stacks = self.parameters | self._buffers
        values = {name: stack if self._dims[name] is None else stack[part] for name, stack in stacks.items()}
        with _ClassesFirst():
            outputs: Tensor = batched(values, *inputs)
        return outputs

    def unstack(self, parameters: Sequence[Tensor]) -> None:
        """Copies stacks (M, …), in the order of the parameters, back to the modules."""
        with torch.no_grad():
            for name, stack in zip(self.parameters, parameters, strict=True):
                for module, value in zip(self.modules, stack, strict=True):
                    module.get_parameter(name).copy_(value)


class _ClassesFirst(TorchFunctionMode):
    """Computes two operations on transposed tensors: the same numbers, in the memory layout that is fast for a stack.

    `torch.vmap` splits F.linear, x W^T with x (B, D) shared, into M small products; they take ten times as long as the
    one product that it makes of W x^T. Logits then have the layout (M, C, B), and gather must keep it: otherwise its
    gradient would have the layout (M, B, C), and sums of the two layouts jump through memory.
    """

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is F.linear:
            return _linear(*args, **(kwargs or {}))
        if function is Tensor.gather and not kwargs:
            return _gather(*args)
        return function(*args, **(kwargs or {}))


def _linear(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    outputs = torch.mm(weight, inputs.T).T
    return outputs if bias is None else outputs + bias


def _gather(inputs: Tensor, dim: int, index: Tensor) -> Tensor:
    return inputs.T.gather(1 - dim, index.T).T
