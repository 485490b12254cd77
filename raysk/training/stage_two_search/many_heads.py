"""Fits hundreds of heads on the same frozen features at once, each as `Trainer` would fit it alone.

With a frozen encoder, stage two is a small head on features that never change. The heads of many settings form one
stack of weights and step together. Settings with the same batches share them: one matrix product gives the logits of
all, and another the gradients. Settings that share their batches with few others are stacked with separate batches. The
result of a setting depends on no other setting, except for rounding. `Trainer` on `FeatureBatches` is the reference.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby, pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from raysk.errors import ConfigError
from raysk.parts.heads import FrozenClassifier
from raysk.recipe import StageTwo
from raysk.training.batches import FeatureBatches, Plan
from raysk.training.loop import hash_seed
from raysk.training.stage_two_search.batched_optimizers import BatchedAverage, BatchedOptimizer, batched_optimizers
from raysk.training.stage_two_search.stacked_modules import StackedModules, structure
from raysk.training.world import World

# Settings of one block: enough to hide the cost of starting an operation, few enough for the caches of a CPU.
_BLOCK_SETTINGS = 128
_BLOCK_SETTINGS_ON_GPU = 1024
# Weights of one block, 16 MiB: the optimizer holds several times as much.
_BLOCK_WEIGHTS = 2**22
# Numbers in the inputs of a block whose settings have separate batches, 64 MiB.
_BLOCK_INPUTS = 2**24
# With fewer settings, sharing a matrix product saves less than a separate block costs.
_WORTH_A_BLOCK = 16


def fit_heads(
    stages: Sequence[StageTwo],
    features: Tensor,
    labels: np.ndarray,
    num_classes: int,
    seed: int,
    fold: int,
    start: tuple[Tensor, Tensor] | None = None,
) -> list[nn.Module]:
    """Fits the head of every stage in float32; except for rounding, each is the head that `Trainer` fits alone.

    A setting that diverges raises no error, since the others must keep their results: its head returns logits that are
    not finite, and the caller must leave it out. The state of the global random generators does not change.

    Args:
        stages: The stages to fit, with a frozen encoder; their order does not matter.
        features: (P, N, D) features of each training row and pass; a stage uses the first `passes` in turn.
        labels: (N,) class of each training row.
        num_classes: C.
        seed: Seed of the recipes.
        fold: The fold of these training rows.
        start: Weight (C, D) and bias (C,) of a linear classifier on the features, for heads that start from one.

    Returns:
        The head of each stage, in evaluation mode.

    Raises:
        ConfigError: A stage has more passes than the features, or its head needs `start`, but it is None.
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
    # A GPU waits for the CPU to launch operations; threads would only take turns to launch them.
    num_threads = 1 if features.is_cuda else torch.get_num_threads()
    share = max(16, -(-len(trained) // num_threads))
    max_size = min(_BLOCK_SETTINGS_ON_GPU if features.is_cuda else _BLOCK_SETTINGS, share)
    blocks = [_Block(block, features, labels, seed) for block in _blocks(trained, max_size, features.shape[-1])]
    _run_all(blocks, features, num_threads)
    return [fit.head.eval() for fit in fits]


def many_logits(heads: Sequence[nn.Module], features: Tensor) -> Tensor:
    """Returns the logits of every head, without gradient; one matrix product computes all linear heads.

    Args:
        heads: M heads, at least one, in evaluation mode.
        features: (V, N, D). The result has M C / D times their size: split the rows if that is too much.

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
    """One setting: its stage, its head before and after the fit, and its loss."""

    def __init__(self, stage: StageTwo, head: nn.Module, loss: nn.Module) -> None:
        self.stage, self.head, self.loss = stage, head, loss
        self.num_weights = sum(weight.numel() for weight in head.parameters())
        # Settings of equal pace step together with the same arithmetic; settings of equal stream see the same batches.
        self.pace = (stage.batch_size, stage.accumulate, stage.epochs, structure(head))
        self.stream = (stage.sampler, stage.defer_sampler, stage.passes)
        self.draws = any(isinstance(part, _DropoutNd) and part.p > 0 for part in head.modules())
        self.loss_structure = structure(loss)

    @property
    def order(self) -> tuple[str, str, bool]:
        """The key that sorts settings with the same operations next to each other."""
        return self.loss_structure, self.stage.optimizer.name, self.stage.ema > 0


def _start(heads: list[nn.Module], features: Tensor, labels: np.ndarray, start: tuple[Tensor, Tensor] | None) -> None:
    """Starts the frozen classifiers from the features (N, D) and a linear classifier."""
    classes = torch.from_numpy(labels).to(features.device)
    for head in heads:
        if isinstance(head, FrozenClassifier):
            if start is None:
                raise ConfigError(
                    "start must be given for heads that start from a classifier, but is not: fit one first"
                )
            head.start_from(features, classes, *start)


def _blocks(fits: list[_Fit], max_size: int, width: int) -> list[list[_Fit]]:
    """Cuts settings into blocks of at most `max_size` that step together, on features of width D."""
    paces: dict[object, dict[object, list[_Fit]]] = defaultdict(lambda: defaultdict(list))
    for fit in fits:
        paces[fit.pace][fit.stream].append(fit)
    blocks: list[list[_Fit]] = []
    for streams in paces.values():
        few: list[_Fit] = []
        for stream in streams.values():
            # Each head must draw the random numbers that it would draw alone.
            if len(stream) >= _WORTH_A_BLOCK or len(streams) == 1 or stream[0].draws:
                blocks += _cut(stream, max_size)
            else:
                few += stream
        if few:
            blocks += _cut(few, min(max_size, max(1, _BLOCK_INPUTS // (few[0].stage.batch_size * width))))
    # The longest first, so that no thread ends with a long block.
    return sorted(blocks, key=lambda block: -len(block) * block[0].num_weights * block[0].stage.epochs)


def _cut(fits: list[_Fit], max_size: int) -> list[list[_Fit]]:
    """Cuts settings into blocks of about equal size."""
    fits = sorted(fits, key=lambda fit: fit.order)
    num_blocks = -(-len(fits) // min(max_size, max(1, _BLOCK_WEIGHTS // fits[0].num_weights)))
    ends = [len(fits) * number // num_blocks for number in range(num_blocks + 1)]
    return [fits[first:last] for first, last in pairwise(ends)]


class _Block:
    """Settings that step together, with heads that differ only in values.

    Args:
        fits: The settings, in `order`.
        features: (P, N, D).
        labels: (N,).
        seed: Seed of the recipes.
    """

    def __init__(self, fits: list[_Fit], features: Tensor, labels: np.ndarray, seed: int) -> None:
        self.fits, self.seed = fits, seed
        self.stage, self.draws = fits[0].stage, fits[0].draws
        streams = {fit.stream: fit.stage for fit in fits}
        self.streams = [
            FeatureBatches(features[: stage.passes], Plan(labels, stage, seed, World(0, 1, features.device)))
            for stage in streams.values()
        ]
        keys = list(streams)
        self.stream_of = torch.tensor([keys.index(fit.stream) for fit in fits], device=features.device)  # (M,)

    def fit(self) -> None:
        """Trains all epochs, and leaves the final weights in the heads."""
        heads = StackedModules([fit.head.train() for fit in self.fits])
        weights = list(heads.parameters.values())  # each (M, …)
        sections = _sections(self.fits, lambda fit: fit.loss_structure)
        losses = [StackedModules([fit.loss for fit in section]) for section in sections]
        sizes = [len(loss) for loss in losses]
        optimizers = self._optimizers(weights)
        average = BatchedAverage([fit.stage.ema for fit in self.fits], weights)
        stack_dim = 0 if len(self.streams) > 1 else None  # of the batches, if they are separate
        for epoch in range(self.stage.epochs):
            trainer_seed = hash_seed(self.seed, 2)
            if self.draws:
                torch.manual_seed(hash_seed(trainer_seed, epoch, 0))
            for loss in losses:
                loss.begin_epoch(epoch / self.stage.epochs, hash_seed(trainer_seed, epoch))
            for inputs, labels in self._batches(epoch):
                logits = self._logits(heads, inputs, stack_dim).split(sizes)
                targets = [labels] * len(losses) if stack_dim is None else labels.split(sizes)
                values = [
                    loss(part, target, dims=(0, stack_dim))
                    for loss, part, target in zip(losses, logits, targets, strict=True)
                ]
                # A weight affects the loss of its own setting only.
                total = torch.cat(values).sum()
                gradients = torch.autograd.grad(total, weights)
                for section, optimizer in optimizers:
                    optimizer.step([gradient[section] for gradient in gradients])
                average.update(weights)
        heads.unstack(average.values)

    def _batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields inputs (B, D) and labels (B,) for all settings, or separate ones, (M, B, D) and (M, B)."""
        if len(self.streams) == 1:
            yield from self.streams[0].epoch(epoch)
            return
        for batches in zip(*(stream.epoch(epoch) for stream in self.streams), strict=True):
            inputs, labels = (torch.stack(parts) for parts in zip(*batches, strict=True))
            yield inputs[self.stream_of], labels[self.stream_of]

    def _logits(self, heads: StackedModules, inputs: Tensor, stack_dim: int | None) -> Tensor:
        """Returns (M, B, C) of inputs (B, D), or of (M, B, D)."""
        if self.draws and self.stage.accumulate > 1:
            # `Trainer` draws random numbers for each piece of the batch.
            return torch.cat([heads(piece, dims=(stack_dim,)) for piece in inputs.chunk(self.stage.accumulate)], dim=1)
        return heads(inputs, dims=(stack_dim,))

    def _optimizers(self, weights: list[Tensor]) -> list[tuple[slice, BatchedOptimizer]]:
        """Returns an optimizer for each section of settings with the same optimizer name."""
        num_steps = self.stage.epochs * self.streams[0].num_batches
        optimizers, first = [], 0
        for fits in _sections(self.fits, lambda fit: fit.stage.optimizer.name):
            section = slice(first, first + len(fits))
            settings = [fit.stage.optimizer for fit in fits]
            rule = batched_optimizers[settings[0].name]
            optimizers.append((section, rule(settings, [weight[section] for weight in weights], num_steps)))
            first += len(fits)
        return optimizers


def _sections(fits: list[_Fit], key: Callable[[_Fit], str]) -> list[list[_Fit]]:
    """Cuts settings where the key changes."""
    return [list(section) for _, section in groupby(fits, key)]


def _run_all(blocks: list[_Block], features: Tensor, num_threads: int) -> None:
    """Fits blocks in parallel, each in one thread: torch's own threads would synchronise after every operation.

    Heads that draw random numbers share the global generator, so their blocks run one by one.
    """
    with torch.random.fork_rng(_cuda_devices(features)):
        for block in blocks:
            if block.draws:
                block.fit()
    torch_threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(num_threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            # Reading the results raises the error of a thread.
            list(pool.map(_Block.fit, [block for block in blocks if not block.draws]))
    finally:
        # This thread's number has not changed, but later threads would start with one.
        torch.set_num_threads(torch_threads)


def _cuda_devices(features: Tensor) -> list[torch.device]:
    """Returns the devices whose random generators are used, besides the CPU."""
    return [features.device] if features.device.type == "cuda" else []
