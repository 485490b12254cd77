"""Losses on embeddings: time and memory of a forward and a backward pass, against pytorch-metric-learning.

Embeddings of width 128 in random directions, two views of each image, seven classes in HAM10000's shares; one thread.
Contenders take turns, and the medians of the repeats are compared. Memory is the peak that torch's allocator hands out
during both passes, beyond the embeddings, as its profiler reports each allocation: exact, and the same in each run.

The peer is the library's loss of the same formula, if there is one, and both must then give the same value:

- supcon: `SupConLoss`. simclr: `NTXentLoss` with the numbers of the images as labels.
- batch_hard: `TripletMarginLoss` on the triplets of `BatchHardMiner`, with Euclidean distances and their plain mean.
- pairs: `ContrastiveLoss`, whose distances are not squared, so that values differ.
- npair: `NTXentLoss` with classes as labels, whose mean weighs an anchor by its positives, so that values differ.
  (`NPairsLoss` has only one pair of each class: seven in all.)
- gravis: `SmoothAPLoss`, which is right only if there are as many images as views of each: 16, near the published 16
  images of 20 views. Its memory grows with the cube of their product.

The other losses have no peer there. "Too much" is more memory than `--memory` allows a contender. Exits with 1 if
values that should be equal are not.
"""

import argparse
import resource
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from time import perf_counter

import torch
import torch.nn.functional as F
from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.losses import (
    ContrastiveLoss,
    NTXentLoss,
    SmoothAPLoss,
    SupConLoss,
    TripletMarginLoss,
)
from pytorch_metric_learning.miners import BatchHardMiner
from pytorch_metric_learning.reducers import MeanReducer
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from raysk.parts.losses import EmbeddingLoss, losses

WIDTH = 128
HAM10000 = torch.tensor([1113, 6705, 514, 327, 1099, 115, 142])
GROUPS = 16  # of gravis: number of images, and of views of each

Step = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Peer:
    """A loss of pytorch-metric-learning.

    Args:
        name: Its class.
        loss: Views (N, D) and their labels (N,) to a scalar.
        is_equal: Whether raysk's loss has the same value.
        of_images: Whether its labels are the numbers of the images.
    """

    name: str
    loss: Step
    is_equal: bool = True
    of_images: bool = False

    def __call__(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        keys = torch.arange(len(labels)) if self.of_images else labels
        return self.loss(embeddings.flatten(0, 1), keys.repeat_interleave(embeddings.shape[1]))


def batch_hard_peer() -> Step:
    miner = BatchHardMiner(distance=LpDistance())
    loss = TripletMarginLoss(margin=0.3, distance=LpDistance(), reducer=MeanReducer())
    return lambda views, labels: loss(views, labels, miner(views, labels))


PEERS = {
    "supcon": Peer("SupConLoss", SupConLoss(0.07)),
    "simclr": Peer("NTXentLoss", NTXentLoss(0.5), of_images=True),
    "batch_hard": Peer("TripletMarginLoss", batch_hard_peer()),
    "pairs": Peer("ContrastiveLoss", ContrastiveLoss(0.0, 1.0, distance=LpDistance()), is_equal=False),
    "npair": Peer("NTXentLoss", NTXentLoss(0.1), is_equal=False),
    "gravis": Peer("SmoothAPLoss", SmoothAPLoss(0.2), of_images=True),
}


def make_batch(num_images: int, num_views: int) -> tuple[Tensor, Tensor]:
    """Returns unit vectors (B, V, D) and labels (B,)."""
    random = torch.Generator().manual_seed(0)
    embeddings = F.normalize(torch.randn((num_images, num_views, WIDTH), generator=random), dim=2)
    return embeddings, torch.multinomial(HAM10000.float(), num_images, replacement=True, generator=random)


def value_and_seconds(step: Step, embeddings: Tensor, labels: Tensor) -> tuple[float, float]:
    leaf = embeddings.clone().requires_grad_()
    began = perf_counter()
    value = step(leaf, labels)
    value.backward()
    return value.item(), perf_counter() - began


def peak_memory(step: Step, embeddings: Tensor, labels: Tensor) -> int:
    """Returns the peak of allocated bytes beyond the embeddings."""
    leaf = embeddings.clone().requires_grad_()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step(leaf, labels).backward()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


@dataclass(frozen=True)
class Cost:
    """The cost of one contender for both passes.

    Args:
        value: Value of the loss.
        seconds: Median over the repeats.
        peak: Peak memory in bytes.
    """

    value: float
    seconds: float
    peak: int


def compare(steps: dict[str, Step], embeddings: Tensor, labels: Tensor, repeats: int) -> dict[str, Cost | None]:
    """Returns the cost of each contender, or None for a contender that needs more memory than there is."""
    values, seconds, peaks = {}, {name: [] for name in steps}, {}
    for name in steps:
        try:  # This is also the first, slow call.
            peaks[name] = peak_memory(steps[name], embeddings, labels)
        except RuntimeError as error:
            if "allocate memory" not in str(error):
                raise
    for _ in range(repeats):
        for name in peaks:
            values[name], passed = value_and_seconds(steps[name], embeddings, labels)
            seconds[name].append(passed)
    return {name: Cost(values[name], median(seconds[name]), peaks[name]) if name in peaks else None for name in steps}


def limit_memory(gib: float) -> None:
    """Makes larger allocations fail before the machine does."""
    with open("/proc/self/statm", encoding="ascii") as file:
        mapped = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + int(gib * 2**30), resource.RLIM_INFINITY))


def row_of(name: str, num_images: int, num_views: int, repeats: int) -> tuple[tuple[str, ...], bool]:
    """Returns a row of the table, and whether values that should be equal are equal."""
    embeddings, labels = make_batch(num_images, num_views)
    peer = PEERS.get(name)
    if name == "gravis" and num_images != num_views:
        peer = None
    steps: dict[str, Step] = {"raysk": losses[name]().build(HAM10000, WIDTH)}
    if peer is not None:
        steps["peer"] = peer
    costs = compare(steps, embeddings, labels, repeats)
    cost, peer_cost = costs["raysk"], costs.get("peer")
    if cost is None:
        raise SystemExit(f"--memory must be enough for {name} on {num_images} images, but is not: raise it")
    cells = [name, f"{num_images}", f"{num_views}", f"{cost.seconds * 1e3:,.1f}", f"{cost.peak / 2**20:,.1f}"]
    if peer is None:
        return (*cells, "", "", "", "", ""), True
    if peer_cost is None:
        return (*cells, peer.name, "", "too much", "", ""), True
    cells += [peer.name, f"{peer_cost.seconds * 1e3:,.1f}", f"{peer_cost.peak / 2**20:,.1f}"]
    cells += [f"**{peer_cost.seconds / cost.seconds:.1f}**", f"**{peer_cost.peak / cost.peak:.1f}**"]
    return tuple(cells), not peer.is_equal or abs(cost.value - peer_cost.value) <= 1e-4 * abs(peer_cost.value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--losses", nargs="+", help="names; all losses on embeddings if not given")
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 512, 2048], help="images in a batch")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--memory", type=float, default=8.0, help="GiB that one contender may use")
    options = parser.parse_args()
    torch.set_num_threads(1)
    limit_memory(options.memory)
    names = options.losses or [name for name in losses if issubclass(losses[name], EmbeddingLoss)]
    table = Table(title=f"forward and backward, median of {options.repeats}", box=MARKDOWN)
    columns = ("loss", "images", "views", "ms", "MiB", "peer", "its ms", "its MiB", "times faster", "times smaller")
    for column in columns:
        table.add_column(column, justify="left" if column in ("loss", "peer") else "right")
    unequal = []
    for name in names:
        sizes = [(size, 2) for size in options.sizes] + ([(GROUPS, GROUPS)] if name == "gravis" else [])
        for num_images, num_views in sizes:
            cells, agrees = row_of(name, num_images, num_views, options.repeats)
            table.add_row(*cells)
            unequal += [] if agrees else [f"{name} on {num_images} images"]
    Console(width=140).print(table)
    if unequal:
        raise SystemExit(f"values differ from those of the peers: {', '.join(unequal)}")


if __name__ == "__main__":
    main()
