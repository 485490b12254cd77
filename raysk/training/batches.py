"""The batches of an epoch: the same global batches, in the same order, for any number of workers."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from raysk.data.store.image_store import ImageStore
from raysk.errors import ConfigError
from raysk.parts.samplers import InstanceSampler
from raysk.stage import Stage
from raysk.training.guided import Guide, Guided
from raysk.training.images import DrawnViews, Draws
from raysk.training.world import World

# What the network takes: images or features, or images with their lesions.
Inputs = Tensor | Guided


class Batches(Protocol):
    """The batches that the training loop reads."""

    @property
    def num_batches(self) -> int:
        """Number of batches in an epoch."""

    def epoch(self, epoch: int) -> Iterator[tuple[Inputs, Tensor]]:
        """Yields this rank's share of each global batch: inputs (B/W, …) and labels (B/W,), on the device."""


@dataclass(frozen=True)
class Plan:
    """The rows of this rank in each batch of each epoch.

    A global batch is a slice of the epoch's order, and a rank's share is a slice of the batch, so that joining the
    shares of all ranks gives the batch of one worker. Remaining rows at the end of an epoch are dropped; the next epoch
    has another order.

    Args:
        labels: (N,) labels of the training rows.
        stage: Batch size and sampler.
        seed: Seed of the order.
        world: The workers that share a batch.
    """

    labels: np.ndarray
    stage: Stage
    seed: int
    world: World

    @property
    def batch_size(self) -> int:
        """Rows of a global batch: the recipe's number, or all rows if there are fewer.

        Raises:
            ConfigError: The workers and pieces cannot share it evenly.
        """
        shares = self.world.size * self.stage.accumulate
        if self.stage.batch_size % shares:
            workers = f"{self.world.size} workers x accumulate {self.stage.accumulate}"
            raise ConfigError(
                f"batch_size must be a multiple of {workers}, but got {self.stage.batch_size}: change one of them"
            )
        return max(shares, min(self.stage.batch_size, len(self.labels) // shares * shares))

    @property
    def num_batches(self) -> int:
        """Number of batches in an epoch."""
        return max(1, len(self.labels) // self.batch_size)

    def shares(self, epoch: int) -> list[Draws]:
        """Returns, for each batch, this rank's draws (B/W,); their rows are positions among the training rows."""
        size = self.batch_size
        is_deferred = epoch / self.stage.epochs < self.stage.defer_sampler
        sampler = InstanceSampler() if is_deferred else self.stage.sampler
        order = sampler.epoch_order(self.labels, epoch, self.stage.epochs, self.seed, self.num_batches * size)
        rows, draws = (self._share(numbers) for numbers in (order, occurrences(order)))
        return [Draws(*share) for share in zip(rows, draws, strict=True)]

    def _share(self, numbers: np.ndarray) -> list[np.ndarray]:
        return [np.split(batch, self.world.size)[self.world.rank] for batch in np.split(numbers, self.num_batches)]


def occurrences(order: np.ndarray) -> np.ndarray:
    """Returns how often the number at each place stands before it in `order`, int64 (N,)."""
    places = np.argsort(order, kind="stable")
    _, firsts, counts = np.unique(order[places], return_index=True, return_counts=True)
    result = np.empty(len(order), dtype=np.int64)
    result[places] = np.arange(len(order)) - np.repeat(firsts, counts)
    return result


class ImageBatches:
    """Batches of freshly drawn views.

    Args:
        store: Pixels of all rows.
        rows: (N,) the training rows.
        views: The training view of each copy.
        plan: The rows of each batch.
        guide: The lesions of the training rows, which then turn with the images; None without them.
    """

    def __init__(
        self, store: ImageStore, rows: np.ndarray, views: tuple[str, ...], plan: Plan, guide: Guide | None = None
    ) -> None:
        self.rows, self.plan, self.guide = rows, plan, guide
        self._draw = DrawnViews(store, views, plan.seed, plan.world, None if guide is None else guide.lesions(rows))

    @property
    def num_batches(self) -> int:
        """Number of batches in an epoch."""
        return self.plan.num_batches

    def epoch(self, epoch: int) -> Iterator[tuple[Inputs, Tensor]]:
        """Yields images (B/W, V, H, W, 3), uint8, or the first views with their lesions, and labels (B/W,)."""
        shares = self.plan.shares(epoch)
        requests = [share._replace(rows=self.rows[share.rows]) for share in shares]
        for (images, regions), share in zip(self._draw(epoch, requests), shares, strict=True):
            labels = self._moved(torch.from_numpy(self.plan.labels[share.rows]))
            if self.guide is None or regions is None:
                yield self._moved(images), labels
            else:
                targets = self._moved(torch.from_numpy(self.guide.targets[share.rows]))
                yield Guided(self._moved(images), self._moved(regions), targets), labels

    def _moved(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.plan.world.device, non_blocking=True)


class FeatureBatches:
    """Batches of the kept features of a frozen encoder.

    Args:
        features: (P, N, D) features of each row and pass; the draws of a row use the passes in turn: in epoch e the
            o-th takes pass (e + o) mod P, from 0.
        plan: The rows of each batch.
    """

    def __init__(self, features: Tensor, plan: Plan) -> None:
        self.features, self.plan = features, plan
        self._labels = torch.from_numpy(plan.labels).to(features.device)

    @property
    def num_batches(self) -> int:
        """Number of batches in an epoch."""
        return self.plan.num_batches

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields features (B/W, D) and labels (B/W,)."""
        rows, draws = (np.stack(numbers) for numbers in zip(*self.plan.shares(epoch), strict=True))
        # Moved in one copy: a copy per small batch would take longer than the step.
        numbers = torch.from_numpy(np.stack([rows, (epoch + draws) % len(self.features)])).to(self.features.device)
        for share, passes in numbers.unbind(1):
            yield self.features[passes, share], self._labels[share]
