"""Two workers against one: the same loss and the same gradients from the same global batch.

For every registered loss on embeddings, one process computes the loss of a batch and the gradients of a network and of
the loss's own weights. Then spawned workers do the same, each with its share of the batch, as raysk trains: the network
in `DistributedDataParallel`, embeddings and labels gathered by `World.gather`, the loss of the whole batch on every
worker. The network is a real one with batch norm, from pixels through its projection head, in float64, where rounding
errors are far below the tolerance.

The peer is the gather in most code: `torch.distributed.all_gather`, which gives no gradient, with the worker's own
share put back in its place. Its loss is right and its gradients are wrong, which shows that the check can fail.

Differences are absolute, and the largest over all workers. Exits with 1 if one of raysk's exceeds the tolerance.
"""

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

from raysk.parts.losses import EmbeddingLoss, losses
from raysk.recipe import Model
from raysk.training.batch_norm import GlobalBatchNorm
from raysk.training.networks import StageOneNetwork, new_encoder
from raysk.training.world import World

TOLERANCE = 1e-6
BACKBONE = "test_resnet"
IMAGE_SIZE = 32
NUM_CLASSES = 3
CPU = torch.device("cpu")


def plain_gather(world: World, local: Tensor) -> Tensor:
    """Gathers without gradient, except for the worker's own share."""
    slices = [torch.empty_like(local) for _ in range(world.size)]
    dist.all_gather(slices, local.detach())
    slices[world.rank] = local
    return torch.cat(slices)


Gather = Callable[[World, Tensor], Tensor]
GATHERS: dict[str, Gather] = {"raysk": World.gather, "all_gather": plain_gather}


@dataclass(frozen=True)
class Parity:
    """The differences between several workers and one worker, with one loss.

    Args:
        value: The loss of one worker.
        steepest: The largest entry of its gradients.
        loss_off: Largest difference of the loss, by gather.
        gradient_off: Largest difference of an entry of a gradient, by gather.
    """

    value: float
    steepest: float
    loss_off: dict[str, float]
    gradient_off: dict[str, float]

    @property
    def holds(self) -> bool:
        """Whether raysk's workers agree with one."""
        return max(self.loss_off["raysk"], self.gradient_off["raysk"]) <= TOLERANCE


def embedding_losses() -> list[str]:
    """Returns the names of all registered losses on embeddings."""
    return [name for name in losses if issubclass(losses[name], EmbeddingLoss)]


def make_batch(batch_size: int, num_views: int) -> tuple[Tensor, Tensor]:
    """Returns noise (B, V, H, W, 3), uint8, and labels (B,); the last class has a single image, without a partner."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (batch_size, num_views, IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
    labels = generator.integers(0, NUM_CLASSES - 1, batch_size)
    labels[0] = NUM_CLASSES - 1
    return torch.from_numpy(images), torch.from_numpy(labels)


def one_step(name: str, batch_size: int, world: World, gather: Gather) -> dict[str, Tensor]:
    """Returns the loss and the gradients of the weights of network and loss, as this worker computes them."""
    settings = losses[name]()
    images, labels = make_batch(batch_size, max(2, settings.least_views))
    torch.manual_seed(0)
    model = StageOneNetwork(new_encoder(Model(backbone=BACKBONE), IMAGE_SIZE), 16).double()
    loss = settings.build(labels.bincount(minlength=NUM_CLASSES), 16).double()
    network: nn.Module = model if world.size == 1 else DistributedDataParallel(GlobalBatchNorm(model))
    share = slice(world.rank * batch_size // world.size, (world.rank + 1) * batch_size // world.size)
    value = loss(gather(world, network(images[share])), world.gather(labels[share]))
    value.backward()
    weights = [("network", model), ("loss", loss)]
    gradients = {f"{of}.{key}": p.grad for of, module in weights for key, p in module.named_parameters()}
    return {"value": value.detach()} | {key: grad.contiguous() for key, grad in gradients.items() if grad is not None}


def work(rank: int, num_workers: int, names: list[str], batch_size: int, folder: str) -> None:
    """Runs one spawned worker; every worker writes its result, since every worker takes the step."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=num_workers)
    for name in names:
        for label, gather in GATHERS.items():
            save_file(one_step(name, batch_size, World.current(CPU), gather), f"{folder}/{name}-{label}-{rank}")
    dist.destroy_process_group()


def check(names: list[str], num_workers: int, batch_size: int) -> dict[str, Parity]:
    """Compares several workers with one, for each loss."""
    if batch_size % num_workers:
        raise SystemExit(f"--batch-size must be a multiple of --workers {num_workers}, but got {batch_size}")
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        spawn(work, (num_workers, names, batch_size, folder), nprocs=num_workers)
        return {name: _compare(name, num_workers, batch_size, folder) for name in names}


def _compare(name: str, num_workers: int, batch_size: int, folder: str) -> Parity:
    alone = one_step(name, batch_size, World(0, 1, CPU), World.gather)
    value = alone.pop("value")
    loss_off, gradient_off = dict.fromkeys(GATHERS, 0.0), dict.fromkeys(GATHERS, 0.0)
    for label in GATHERS:
        for rank in range(num_workers):
            shared = load_file(f"{folder}/{name}-{label}-{rank}")
            loss_off[label] = max(loss_off[label], float((shared.pop("value") - value).abs()))
            gradient_off[label] = max(gradient_off[label], largest_difference(alone, shared))
    return Parity(float(value), max(float(g.abs().max()) for g in alone.values()), loss_off, gradient_off)


def largest_difference(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    """Returns the largest absolute difference between tensors with the same names."""
    if first.keys() != second.keys():
        names = sorted(first.keys() ^ second.keys())[:3]
        raise SystemExit(f"both must have the same gradients, but only one has {names}")
    return max(float((first[key] - second[key]).abs().max()) for key in first)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=16, help="size of the global batch")
    options = parser.parse_args()
    parities = check(embedding_losses(), options.workers, options.batch_size)
    table = Table(title=f"{options.workers} workers against 1, {BACKBONE}, float64, batch of {options.batch_size}")
    columns = ("loss", "value", "off by", "largest gradient", "off by", f"within {TOLERANCE:g}", "all_gather off by")
    for column in columns:
        table.add_column(column, justify="left" if column == "loss" else "right")
    for name, parity in parities.items():
        off = [parity.loss_off["raysk"], parity.gradient_off["raysk"], parity.gradient_off["all_gather"]]
        numbers = [f"{number:.1e}" for number in (off[0], parity.steepest, off[1])]
        table.add_row(name, f"{parity.value:.6f}", *numbers, "yes" if parity.holds else "NO", f"{off[2]:.1e}")
    Console().print(table)
    raise SystemExit(0 if all(parity.holds for parity in parities.values()) else 1)


if __name__ == "__main__":
    main()
