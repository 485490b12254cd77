"""Fits hundreds of heads on the same frozen features at once, each as `Trainer` would fit it alone.

With a frozen encoder, stage two is a small head on features that never change. Settings that see the same batches share
them: the heads of all are one stack of weights, the logits of all one matrix product, and so is the gradient. The
result of a setting depends on no other setting, but for rounding. `Trainer` on `FeatureBatches` is the reference.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby, pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from raysk.errors import ConfigError
from raysk.parts.heads import FrozenClassifier
from raysk.recipe import StageTwo
from raysk.training.batched_optimizers import BatchedAverage, BatchedOptimizer, batched_optimizers
from raysk.training.batches import FeatureBatches, Plan
from raysk.training.loop import hash_seed
from raysk.training.stacked_modules import StackedModules, structure
from raysk.training.world import World

# Settings of one block: enough to drown the cost of starting an operation, few enough for the caches of a CPU.
_BLOCK_SETTINGS = 128
_BLOCK_SETTINGS_ON_GPU = 1024
# Weights of one block, 16 MiB: the optimizer holds a few times as much.
_BLOCK_WEIGHTS = 2**22


def fit_heads(
    stages: Sequence[StageTwo],
    features: Tensor,
    labels: np.ndarray,
    num_classes: int,
    seed: int,
    fold: int,
    start: tuple[Tensor, Tensor] | None = None,
) -> list[nn.Module]:
    """Fits the head of every stage, in float32, to what `Trainer` makes of each alone, but for rounding.

    A setting that diverges is no error, since it must not cost the others their results: its head gives logits that
    are not finite, and it is for the caller to leave it out. The global random generators are left as they were.

    Args:
        stages: What to fit, with a frozen encoder; their order does not matter.
        features: (P, N, D) one feature of each training row and pass; a stage takes its first `passes` in turn.
        labels: (N,) class of each training row.
        num_classes: C.
        seed: Of the recipes.
        fold: Which fold the rows are the training rows of.
        start: Weight (C, D) and bias (C,) of a linear classifier on the features, for heads that start from one.

    Returns:
        The head of each stage, in evaluation mode.

    Raises:
        ConfigError: A stage has more passes than there are features of, or its head lacks `start`.
    """
    counts = torch.from_numpy(labels).bincount(minlength=num_classes)
    fits: list[_Fit] = []
    with torch.random.fork_rng(_cuda_devices(features)):
        for stage in stages:
            if stage.passes > len(features):
                rule = f"passes must be at most the {len(features)} of the features"
                raise ConfigError(f"{rule}, but got {stage.passes}: encode more passes")
            torch.manual_seed(hash_seed(seed, fold, 2))
            head = stage.head.build(features.shape[-1], num_classes).to(features.device)
            fits.append(_Fit(stage, head, stage.loss.build(counts).to(features.device)))
    _start([fit.head for fit in fits], features[0], labels, start)
    trained = [fit for fit in fits if fit.num_weights > 0]
    # A GPU waits for whoever asks for operations, and threads would only take turns in asking.
    num_threads = 1 if features.is_cuda else torch.get_num_threads()
    for_each = max(16, -(-len(trained) // num_threads))
    most = min(_BLOCK_SETTINGS_ON_GPU if features.is_cuda else _BLOCK_SETTINGS, for_each)
    blocks = [_Block(block, features, labels, seed) for block in _blocks(trained, most)]
    _run_all(blocks, features, num_threads)
    return [fit.head.eval() for fit in fits]


def many_logits(heads: Sequence[nn.Module], features: Tensor) -> Tensor:
    """Returns the logits of every head, without gradient; those of linear heads are one matrix product.

    Args:
        heads: M of them, at least one, in evaluation mode.
        features: (V, N, D). The result has M C / D times their size: cut the rows where that is too much.

    Returns:
        (M, V, N, C), laid out in memory as (M, C, V, N).
    """
    rows = features.flatten(0, 1)
    linear = [head for head in heads if type(head) is nn.Linear]
    with torch.no_grad():
        if linear:
            weight, bias = torch.cat([head.weight for head in linear]), torch.cat([head.bias for head in linear])
            products = iter(torch.addmm(bias[:, None], weight, rows.T).unflatten(0, (len(linear), -1)))
        logits = torch.stack([next(products) if type(head) is nn.Linear else head(rows).T for head in heads])
    return logits.unflatten(2, features.shape[:2]).permute(0, 2, 3, 1)


class _Fit:
    """One setting: what it asks for, its head before and after the fit, and its loss."""

    def __init__(self, stage: StageTwo, head: nn.Module, loss: nn.Module) -> None:
        self.stage, self.head, self.loss = stage, head, loss
        self.num_weights = sum(weight.numel() for weight in head.parameters())
        # Settings that agree in these see the same batches with the same arithmetic.
        self.stream = (stage.sampler, stage.batch_size, stage.accumulate, stage.epochs, stage.passes, structure(head))
        self.loss_structure = structure(loss)

    @property
    def order(self) -> tuple[str, str, bool]:
        """Sorts settings so that those with the same operations are neighbours."""
        return self.loss_structure, self.stage.optimizer.name, self.stage.ema > 0


def _start(heads: list[nn.Module], features: Tensor, labels: np.ndarray, start: tuple[Tensor, Tensor] | None) -> None:
    """Starts the heads that start from the features (N, D) and a linear classifier."""
    classes = torch.from_numpy(labels).to(features.device)
    for head in heads:
        if isinstance(head, FrozenClassifier):
            if start is None:
                raise ConfigError(
                    "start must be given for heads that start from a classifier, but is not: fit one first"
                )
            head.start_from(features, classes, *start)


def _blocks(fits: list[_Fit], most: int) -> list[list[_Fit]]:
    """Cuts settings into blocks of at most so many that see the same batches."""
    streams = defaultdict(list)
    for fit in fits:
        streams[fit.stream].append(fit)
    blocks = []
    for stream in streams.values():
        stream.sort(key=lambda fit: fit.order)
        num_blocks = -(-len(stream) // min(most, max(1, _BLOCK_WEIGHTS // stream[0].num_weights)))
        ends = [len(stream) * number // num_blocks for number in range(num_blocks + 1)]
        blocks += [stream[first:last] for first, last in pairwise(ends)]
    # The longest first, so that at the end no thread is left with one.
    return sorted(blocks, key=lambda block: -len(block) * block[0].num_weights * block[0].stage.epochs)


class _Block:
    """Settings that are fitted in step: the same batches, and heads that differ in values only.

    Args:
        fits: The settings, in `order`.
        features: (P, N, D).
        labels: (N,).
        seed: Of the recipes.
    """

    def __init__(self, fits: list[_Fit], features: Tensor, labels: np.ndarray, seed: int) -> None:
        self.fits, self.seed = fits, seed
        self.stage = fits[0].stage
        plan = Plan(labels, self.stage, seed, World(0, 1, features.device))
        self.batches = FeatureBatches(features[: self.stage.passes], plan)
        self.draws = any(isinstance(part, _DropoutNd) and part.p > 0 for part in fits[0].head.modules())

    def fit(self) -> None:
        """Trains all epochs, and leaves the heads with the weights to keep."""
        heads = StackedModules([fit.head.train() for fit in self.fits])
        weights = list(heads.parameters.values())  # each (M, …)
        losses = [StackedModules([fit.loss for fit in run]) for run in _runs(self.fits, lambda fit: fit.loss_structure)]
        optimizers = self._optimizers(weights)
        average = BatchedAverage([fit.stage.ema for fit in self.fits], weights)
        for epoch in range(self.stage.epochs):
            if self.draws:
                torch.manual_seed(hash_seed(hash_seed(self.seed, 2), epoch, 0))
            for loss in losses:
                loss.begin_epoch(epoch / self.stage.epochs)
            for inputs, labels in self.batches.epoch(epoch):
                logits = self._logits(heads, inputs).split([len(loss) for loss in losses])
                each = [loss(part, labels, dims=(0, None)) for loss, part in zip(losses, logits, strict=True)]
                # A weight has a part in the loss of its own setting only.
                total = torch.cat(each).sum()
                gradients = torch.autograd.grad(total, weights)
                for where, optimizer in optimizers:
                    optimizer.step([gradient[where] for gradient in gradients])
                average.update(weights)
        heads.unstack(average.values)

    def _logits(self, heads: StackedModules, inputs: Tensor) -> Tensor:
        """Returns (M, B, C) of inputs (B, D)."""
        if self.draws and self.stage.accumulate > 1:
            # `Trainer` draws for each piece of the batch.
            return torch.cat([heads(piece, dims=(None,)) for piece in inputs.chunk(self.stage.accumulate)], dim=1)
        return heads(inputs, dims=(None,))

    def _optimizers(self, weights: list[Tensor]) -> list[tuple[slice, BatchedOptimizer]]:
        """Returns an optimizer for each run of settings whose optimizers have one name."""
        num_steps = self.stage.epochs * self.batches.num_batches
        optimizers, first = [], 0
        for run in _runs(self.fits, lambda fit: fit.stage.optimizer.name):
            where = slice(first, first + len(run))
            settings = [fit.stage.optimizer for fit in run]
            rule = batched_optimizers[settings[0].name]
            optimizers.append((where, rule(settings, [weight[where] for weight in weights], num_steps)))
            first += len(run)
        return optimizers


def _runs(fits: list[_Fit], key: Callable[[_Fit], str]) -> list[list[_Fit]]:
    """Cuts settings where the key changes."""
    return [list(run) for _, run in groupby(fits, key)]


def _run_all(blocks: list[_Block], features: Tensor, num_threads: int) -> None:
    """Fits blocks side by side, each in one thread: torch's own threads would have to meet after every operation.

    Heads that draw random numbers all draw from the global generator, and therefore come one by one.
    """
    with torch.random.fork_rng(_cuda_devices(features)):
        for block in blocks:
            if block.draws:
                block.fit()
    before = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(num_threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            # Reading the results raises what a thread has raised.
            list(pool.map(_Block.fit, [block for block in blocks if not block.draws]))
    finally:
        # Of this thread nothing has changed, but threads yet to come would start with one.
        torch.set_num_threads(before)


def _cuda_devices(features: Tensor) -> list[torch.device]:
    """Returns the devices whose generators are used besides the CPU's."""
    return [features.device] if features.device.type == "cuda" else []
