"""The batches of an epoch: the same global batches, in the same order, for any number of workers."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from raysk.data.store.image_store import ImageStore
from raysk.errors import ConfigError
from raysk.stage import Stage
from raysk.training.images import DrawnViews
from raysk.training.world import World


class Batches(Protocol):
    """The batches that the training loop reads."""

    @property
    def num_batches(self) -> int:
        """Number of batches in an epoch."""

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
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

    def shares(self, epoch: int) -> list[np.ndarray]:
        """Returns, for each batch, this rank's positions (B/W,) among the training rows."""
        size = self.batch_size
        order = self.stage.sampler.epoch_order(
            self.labels, epoch, self.stage.epochs, self.seed, length=self.num_batches * size
        )
        return [np.split(batch, self.world.size)[self.world.rank] for batch in np.split(order, self.num_batches)]


class ImageBatches:
    """Batches of freshly drawn views.

    Args:
        store: Pixels of all rows.
        rows: (N,) the training rows.
        views: The training view of each copy.
        plan: The rows of each batch.
    """

    def __init__(self, store: ImageStore, rows: np.ndarray, views: tuple[str, ...], plan: Plan) -> None:
        self.rows, self.plan = rows, plan
        self._draw = DrawnViews(store, views, plan.seed, plan.world)

    @property
    def num_batches(self) -> int:
        """Number of batches in an epoch."""
        return self.plan.num_batches

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields images (B/W, V, H, W, 3), uint8, and labels (B/W,)."""
        device = self.plan.world.device
        shares = self.plan.shares(epoch)
        for images, share in zip(self._draw(epoch, [self.rows[share] for share in shares]), shares, strict=True):
            labels = torch.from_numpy(self.plan.labels[share])
            yield images.to(device, non_blocking=True), labels.to(device, non_blocking=True)


class FeatureBatches:
    """Batches of the kept features of a frozen encoder.

    Args:
        features: (P, N, D) features of each row and pass; epochs use the passes in turn.
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
        features = self.features[epoch % len(self.features)]
        # Moved in one copy: a copy per small batch would take longer than the step.
        shares = torch.from_numpy(np.stack(self.plan.shares(epoch))).to(features.device)
        for share in shares:
            yield features[share], self._labels[share]
