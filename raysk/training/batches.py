"""The batches of an epoch: the same global batches, in the same order, for any number of workers."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from raysk.data.store import ImageStore
from raysk.data.views import TrainingView, view_seed
from raysk.errors import ConfigError
from raysk.recipe import Stage
from raysk.training.world import World


class Batches(Protocol):
    """What the training loop reads."""

    @property
    def num_batches(self) -> int:
        """Batches of one epoch."""

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields this rank's share of each global batch: inputs (B/W, …) and labels (B/W,), on the device."""


@dataclass(frozen=True)
class Plan:
    """Which rows this rank shows in each batch of each epoch.

    A global batch is a run of the epoch's order, and a rank's share a run of the batch, so that joining the shares of
    all ranks gives the batch of one worker. What is left over at the end of an epoch is dropped; the next epoch's order
    is another one.

    Args:
        labels: (N,) labels of the training rows.
        stage: Batch size and sampler.
        seed: Of the order.
        world: Who shares a batch.
    """

    labels: np.ndarray
    stage: Stage
    seed: int
    world: World

    @property
    def batch_size(self) -> int:
        """Rows of a global batch: the recipe's, or all rows when there are fewer.

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
        """Batches of one epoch."""
        return max(1, len(self.labels) // self.batch_size)

    def shares(self, epoch: int) -> list[np.ndarray]:
        """Returns, for each batch, the positions (B/W,) among the training rows that this rank shows."""
        size = self.batch_size
        order = self.stage.sampler.epoch_order(
            self.labels, epoch, self.stage.epochs, self.seed, length=self.num_batches * size
        )
        return [np.split(batch, self.world.size)[self.world.rank] for batch in np.split(order, self.num_batches)]


class _Views(Dataset[Tensor]):
    """Draws the views of a batch, which is asked for as (epoch, rows), so that loader processes keep no state."""

    def __init__(self, store: ImageStore, views: tuple[str, ...], seed: int) -> None:
        self.store = store
        size = store.pixels.shape[1]
        # The plain view of a stored image, which has the size already, is the image: None skips the pipeline.
        self.views = [None if name == "none" else TrainingView(name, size) for name in views]
        self.seed = seed

    def __getitem__(self, item: tuple[int, np.ndarray]) -> Tensor:
        epoch, rows = item
        batch = np.empty((len(rows), len(self.views), *self.store.pixels.shape[1:]), np.uint8)
        for place, row in enumerate(rows.tolist()):
            image = self.store.pixels[row]
            for number, view in enumerate(self.views):
                batch[place, number] = image if view is None else view(image, view_seed(self.seed, epoch, row, number))
        return torch.from_numpy(batch)


class ImageBatches:
    """Batches of freshly drawn views.

    Args:
        store: Pixels of all rows.
        rows: (N,) the training rows.
        views: The training view of each copy.
        plan: Which of them when.
    """

    def __init__(self, store: ImageStore, rows: np.ndarray, views: tuple[str, ...], plan: Plan) -> None:
        self.rows, self.plan = rows, plan
        self.dataset = _Views(store, views, plan.seed)
        self._order: list[tuple[int, np.ndarray]] = []
        workers = plan.world.loader_workers
        self._loader = DataLoader(
            self.dataset,
            sampler=self._order,
            batch_size=None,  # The dataset gives whole batches: to stack single images would copy all of them again.
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=plan.world.device.type == "cuda",
            prefetch_factor=4 if workers else None,
            multiprocessing_context="spawn" if workers else None,
        )

    @property
    def num_batches(self) -> int:
        """Batches of one epoch."""
        return self.plan.num_batches

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields images (B/W, V, H, W, 3), uint8, and labels (B/W,)."""
        device = self.plan.world.device
        shares = self.plan.shares(epoch)
        self._order[:] = [(epoch, self.rows[share]) for share in shares]
        for images, share in zip(self._loader, shares, strict=True):
            labels = torch.from_numpy(self.plan.labels[share])
            yield images.to(device, non_blocking=True), labels.to(device, non_blocking=True)


class FeatureBatches:
    """Batches of features that a frozen encoder gave once.

    Args:
        features: (P, N, D) one feature of each row and pass; epochs take the passes in turn.
        plan: Which of them when.
    """

    def __init__(self, features: Tensor, plan: Plan) -> None:
        self.features, self.plan = features, plan
        self._labels = torch.from_numpy(plan.labels).to(features.device)

    @property
    def num_batches(self) -> int:
        """Batches of one epoch."""
        return self.plan.num_batches

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields features (B/W, D) and labels (B/W,)."""
        features = self.features[epoch % len(self.features)]
        for share in self.plan.shares(epoch):
            picked = torch.from_numpy(share).to(features.device)
            yield features[picked], self._labels[picked]
