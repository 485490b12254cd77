"""Modules that differ in the values of parameters and buffers only, computed as one on stacks of those values."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode

from raysk.parts.losses.base import ScheduledLoss


def structure(module: nn.Module) -> str:
    """Returns all that a module's computation depends on besides the values of its parameters and buffers."""
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
        modules: Their values are copied to stacks, from which `unstack` brings the parameters back.
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self.modules = modules
        named = [dict(module.named_parameters()) for module in modules]
        stacks = {name: torch.stack([one[name].detach() for one in named]) for name in named[0]}
        self.parameters = {name: stack.requires_grad_() for name, stack in stacks.items()}  # each (M, …)
        self._stack_buffers()

    def __len__(self) -> int:
        return len(self.modules)

    def _stack_buffers(self) -> None:
        self._buffers: dict[str, Tensor] = {}
        self._dims: dict[str, int | None] = dict.fromkeys(self.parameters, 0)
        named = [dict(module.named_buffers()) for module in self.modules]
        for name, first in named[0].items():
            # What all have alike, such as the classifier that LWS scales, is computed with once.
            alike = all(torch.equal(one[name], first) for one in named)
            self._buffers[name] = first if alike else torch.stack([one[name] for one in named])
            self._dims[name] = None if alike else 0

    def begin_epoch(self, done: float) -> None:
        """Tells the losses that follow a schedule which share of all epochs is done."""
        scheduled = [part for one in self.modules for part in one.modules() if isinstance(part, ScheduledLoss)]
        for part in scheduled:
            part.begin_epoch(done)
        if scheduled:
            self._stack_buffers()

    def __call__(self, *inputs: Tensor, dims: tuple[int | None, ...]) -> Tensor:
        """Returns the outputs of all modules, (M, …).

        Args:
            inputs: What each module is called with.
            dims: For each input 0, where it is a stack of M, or None, where all modules see the same.
        """

        def call(values: dict[str, Tensor], *inputs: Tensor) -> Any:
            return functional_call(self.modules[0], values, inputs)

        # Each module is to draw what it would draw alone.
        batched = torch.vmap(call, in_dims=(self._dims, *dims), randomness="same")
        with _ClassesFirst():
            outputs: Tensor = batched(self.parameters | self._buffers, *inputs)
        return outputs

    def unstack(self, parameters: Sequence[Tensor]) -> None:
        """Gives each module its own of stacks (M, …) like `parameters`, in their order."""
        with torch.no_grad():
            for name, stack in zip(self.parameters, parameters, strict=True):
                for module, value in zip(self.modules, stack, strict=True):
                    module.get_parameter(name).copy_(value)


class _ClassesFirst(TorchFunctionMode):
    """Has two operations computed on transposed tensors: the same numbers, in the order that is fast for a stack.

    `torch.vmap` makes M small products of F.linear, x W^T with x (B, D) shared, and takes ten times as long as the one
    product that it makes of W x^T. Logits then lie in memory as (M, C, B), and what is gathered from them must keep to
    that: its gradient would else lie as (M, B, C), and sums of the two layouts jump through memory.
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
