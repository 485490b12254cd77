"""Fits hundreds of heads on the same frozen features at once, each as `Trainer` would fit it alone.

With a frozen encoder, stage two is a small head on features that never change. The heads of many settings form one
stack of weights and step together. Settings with the same batches share them: one matrix product gives the logits of
all, and another the gradients. Everything after the products runs once for all settings, whatever their batches. The
result of a setting depends on no other setting, except for rounding. `Trainer` on `FeatureBatches` is the reference.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from raysk.errors import ConfigError
from raysk.parts.heads import FrozenClassifier
from raysk.stage_two import StageTwo
from raysk.training.loop import hash_seed
from raysk.training.stage_two_search.block import Block, Fit

# Settings of one block: enough to hide the cost of starting an operation, few enough for the caches of a CPU.
_BLOCK_SETTINGS = 128
_BLOCK_SETTINGS_ON_GPU = 1024
# Weights of one block, 16 MiB: the optimizer holds several times as much.
_BLOCK_WEIGHTS = 2**22


def fit_heads(
    stages: Sequence[StageTwo],
    features: Mapping[str, Tensor],
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
        features: (P, N, D) features of each training row and pass, by view; a stage uses the first `passes` in turn.
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
    device = next(iter(features.values())).device
    fits: list[Fit] = []
    with torch.random.fork_rng(_cuda_devices(device)):
        for stage in stages:
            of_view = features[stage.view]
            if stage.passes > len(of_view):
                rule = f"passes must be at most the {len(of_view)} of the features"
                raise ConfigError(f"{rule}, but got {stage.passes}: encode more passes")
            torch.manual_seed(hash_seed(seed, fold, 2))
            head = stage.head.build(of_view.shape[-1], num_classes).to(device)
            _start(head, of_view[0], labels, start)
            fits.append(Fit(stage, head, stage.loss.build(counts).to(device)))
    trained = [fit for fit in fits if fit.num_weights > 0]
    # A GPU waits for the CPU to launch operations; threads would only take turns to launch them.
    num_threads = 1 if device.type == "cuda" else torch.get_num_threads()
    share = max(16, -(-len(trained) // num_threads))
    max_size = min(_BLOCK_SETTINGS_ON_GPU if device.type == "cuda" else _BLOCK_SETTINGS, share)
    blocks = [Block(block, features, labels, seed) for block in _blocks(trained, max_size)]
    _run_all(blocks, device, num_threads)
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


def _start(head: nn.Module, features: Tensor, labels: np.ndarray, start: tuple[Tensor, Tensor] | None) -> None:
    """Starts a frozen classifier from the features (N, D) and a linear classifier."""
    if not isinstance(head, FrozenClassifier):
        return
    if start is None:
        raise ConfigError("start must be given for heads that start from a classifier, but is not: fit one first")
    head.start_from(features, torch.from_numpy(labels).to(features.device), *start)


def _blocks(fits: list[Fit], max_size: int) -> list[list[Fit]]:
    """Cuts settings into blocks of at most `max_size` that step together."""
    paces: dict[object, list[Fit]] = defaultdict(list)
    for fit in fits:
        paces[fit.pace].append(fit)
    blocks = [block for members in paces.values() for block in _cut(members, max_size)]
    # The longest first, so that no thread ends with a long block.
    return sorted(blocks, key=lambda block: -block[0].stage.epochs * sum(fit.num_weights for fit in block))


def _cut(fits: list[Fit], max_size: int) -> list[list[Fit]]:
    """Cuts settings into blocks of about equal size."""
    fits = sorted(fits, key=lambda fit: fit.order)
    num_blocks = -(-len(fits) // min(max_size, max(1, _BLOCK_WEIGHTS // max(fit.num_weights for fit in fits))))
    ends = [len(fits) * number // num_blocks for number in range(num_blocks + 1)]
    return [fits[first:last] for first, last in pairwise(ends)]


def _run_all(blocks: list[Block], device: torch.device, num_threads: int) -> None:
    """Fits blocks in parallel, each in one thread: torch's own threads would synchronise after every operation.

    Heads that draw random numbers share the global generator, so their blocks run one by one.
    """
    with torch.random.fork_rng(_cuda_devices(device)):
        for block in blocks:
            if block.draws:
                block.fit()
    torch_threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(num_threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            # Reading the results raises the error of a thread.
            list(pool.map(Block.fit, [block for block in blocks if not block.draws]))
    finally:
        # This thread's number has not changed, but later threads would start with one.
        torch.set_num_threads(torch_threads)


def _cuda_devices(device: torch.device) -> list[torch.device]:
    """Returns the devices whose random generators are used, besides the CPU."""
    return [device] if device.type == "cuda" else []
