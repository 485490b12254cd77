"""Settings of stage two that step together, with any heads, samplers, views and optimizers."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from raysk.stage_two import StageTwo
from raysk.training.loop import hash_seed
from raysk.training.stage_two_search.batched_optimizers import BatchedAverage, BatchedOptimizer, batched_optimizers
from raysk.training.stage_two_search.stacked_heads import StackedHeads, stack_heads
from raysk.training.stage_two_search.stacked_losses import DifferentiatedLosses, SoftmaxLosses, has_form
from raysk.training.stage_two_search.stacked_modules import structure
from raysk.training.stage_two_search.streams import Stream, Streams


class Fit:
    """One setting: its stage, its head before and after the fit, and its loss."""

    def __init__(self, stage: StageTwo, head: nn.Module, loss: nn.Module) -> None:
        self.stage, self.head, self.loss = stage, head, loss
        self.num_weights = sum(weight.numel() for weight in head.parameters())
        self.stream = Stream.of(stage)
        self.draws = any(isinstance(part, _DropoutNd) and part.p > 0 for part in head.modules())
        self.structure = structure(head)

    @property
    def pace(self) -> tuple[object, ...]:
        """Settings of equal pace can step together."""
        loss = None if has_form(self.loss) else structure(self.loss)
        # Each head must draw the random numbers that it would draw alone.
        alike = (self.structure, self.stream) if self.draws else None
        return self.stage.batch_size, self.stage.accumulate, self.stage.epochs, loss, alike

    @property
    def order(self) -> tuple[str, str, str, bool]:
        """The key that sorts settings with the same operations next to each other."""
        return self.structure, self.stage.optimizer.name, repr(self.stream), self.stage.ema > 0


class Block:
    """Settings that step together.

    Args:
        fits: Settings of one `pace`, in `order`.
        features: (P, N, D) of each view.
        labels: (N,).
        seed: Seed of the recipes.
    """

    def __init__(self, fits: list[Fit], features: Mapping[str, Tensor], labels: np.ndarray, seed: int) -> None:
        self.fits, self.seed = fits, seed
        self.stage, self.draws = fits[0].stage, fits[0].draws
        streams = {fit.stream: fit.stage for fit in fits}
        self.batches = Streams(list(streams.values()), features, labels, seed)
        keys = list(streams)
        self.streams = [keys.index(fit.stream) for fit in fits]  # of each setting

    def fit(self) -> None:
        """Trains all epochs, and leaves the final weights in the heads."""
        num_steps = self.stage.epochs * self.batches.num_batches
        groups = [_Group(fits, streams, num_steps) for fits, streams in self._by_structure()]
        weights = [weight for group in groups for weight in group.weights]
        modules = [fit.loss for fit in self.fits]
        losses = SoftmaxLosses(modules) if has_form(modules[0]) else DifferentiatedLosses(modules)
        for epoch in range(self.stage.epochs):
            trainer_seed = hash_seed(self.seed, 2)
            if self.draws:
                torch.manual_seed(hash_seed(trainer_seed, epoch, 0))
            losses.begin_epoch(epoch / self.stage.epochs, hash_seed(trainer_seed, epoch))
            for inputs, labels in self.batches.epoch(epoch):
                logits = _joined([self._logits(group.heads, inputs) for group in groups])
                gradients = iter(torch.autograd.grad(losses.total(logits, labels[self.streams]), weights))
                for group in groups:
                    group.step([next(gradients) for _ in group.weights])
        for group in groups:
            group.heads.unstack(group.average.values)

    def _by_structure(self) -> Iterator[tuple[list[Fit], list[int]]]:
        """Yields the settings whose heads have one structure, and their streams."""
        for _, members in groupby(zip(self.fits, self.streams, strict=True), lambda pair: pair[0].structure):
            fits, streams = zip(*members, strict=True)
            yield list(fits), list(streams)

    def _logits(self, heads: StackedHeads, inputs: Tensor) -> Tensor:
        """Returns logits (M, C, B) of inputs (S, B, D)."""
        # `Trainer` draws random numbers for each piece of the batch.
        pieces = inputs.chunk(self.stage.accumulate, dim=1) if self.draws else [inputs]
        return _joined([heads.logits(piece) for piece in pieces], dim=2)


class _Group:
    """The heads of one structure in a block, with their optimizers."""

    def __init__(self, fits: list[Fit], streams: list[int], num_steps: int) -> None:
        self.fits = fits
        self.heads = stack_heads([fit.head.train() for fit in fits], streams)
        self.weights = list(self.heads.parameters.values())  # each (M, …)
        self.average = BatchedAverage([fit.stage.ema for fit in fits], self.weights)
        self._optimizers: list[tuple[slice, BatchedOptimizer]] = []
        first = 0
        for name, members in groupby(fit.stage.optimizer.name for fit in fits):
            section = slice(first, first + len(list(members)))
            settings = [fit.stage.optimizer for fit in fits[section]]
            optimizer = batched_optimizers[name](settings, [weight[section] for weight in self.weights], num_steps)
            self._optimizers.append((section, optimizer))
            first = section.stop

    def step(self, gradients: Sequence[Tensor]) -> None:
        """Takes a step with the gradients of the weights, which are overwritten."""
        for section, optimizer in self._optimizers:
            optimizer.step([gradient[section] for gradient in gradients])
        self.average.update(self.weights)


def _joined(parts: list[Tensor], dim: int = 0) -> Tensor:
    """Returns the parts as one tensor, without a copy if there is only one."""
    return torch.cat(parts, dim) if len(parts) > 1 else parts[0]
