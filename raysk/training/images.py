"""The images of rows in batches: as stored, in a test-time view, or in drawn training views."""

import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from multiprocessing.context import ForkServerContext
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from raysk.data.store.image_store import ImageStore
from raysk.data.views import BatchView, TrainingView, test_time_views, view_seed
from raysk.training.world import World

# Maps batches of rows, each (B,), to their images, each (B, ..., H, W, 3), uint8.
Images = Callable[[Sequence[np.ndarray]], Iterable[Tensor]]


class Draws(NamedTuple):
    """The rows of a batch; a row that an epoch draws again shows another view.

    Attributes:
        rows: (B,).
        occurrences: How often the epoch has drawn each row before, over all workers, (B,).
    """

    rows: np.ndarray
    occurrences: np.ndarray


class DrawnBatch(NamedTuple):
    """The views of a batch.

    Attributes:
        images: (B, V, H, W, 3), uint8.
        regions: (B, H, W), uint8: the lesion in the first view of each image, 255 inside its mask or its box; None
            unless asked.
    """

    images: Tensor
    regions: Tensor | None


def plain_images(store: ImageStore) -> Images:
    """Returns the function from rows to their stored images."""
    return turned_images(store, "identity")


def turned_images(store: ImageStore, view: str) -> Images:
    """Returns the function from rows to their images in a test-time view."""
    turn: BatchView = test_time_views[view]
    return lambda batches: (torch.from_numpy(np.ascontiguousarray(turn(store.pixels[rows]))) for rows in batches)


class DrawnViews:
    """Draws training views: in this process on a CPU, in loader processes if a GPU would wait for them.

    Args:
        store: Pixels of all rows.
        views: The training view of each copy.
        seed: Seed of the views; seed, epoch, row, occurrence and copy determine a view in any process.
        world: Sets the number of loader processes.
        lesions: The lesion of some rows: its mask (H, W), or the box around it, (4,) left, top, right, bottom in
            pixels; None draws no regions.
    """

    def __init__(
        self,
        store: ImageStore,
        views: tuple[str, ...],
        seed: int,
        world: World,
        lesions: Mapping[int, np.ndarray] | None = None,
    ) -> None:
        self.dataset = _Views(store, views, seed, lesions)
        self.world = world
        self._requests: list[tuple[int, Draws]] = []
        self._loader: DataLoader[DrawnBatch] | None = None

    def __call__(self, epoch: int, batches: Sequence[Draws]) -> Iterator[DrawnBatch]:
        """Yields the views of every batch of draws."""
        self._requests[:] = [(epoch, draws) for draws in batches]
        if self._loader is None:
            processes = min(self.world.loader_workers, len(batches))
            self._loader = DataLoader(
                self.dataset,
                sampler=self._requests,
                batch_size=None,  # The dataset returns whole batches: stacking single images would copy them again.
                num_workers=processes,
                persistent_workers=processes > 0,
                pin_memory=self.world.device.type == "cuda",
                prefetch_factor=4 if processes else None,
                multiprocessing_context=_fork_server() if processes else None,
                # The views have their own seeds: the loader must not consume the random numbers of dropout.
                generator=torch.Generator(),
            )
        yield from self._loader


class _Views(Dataset[DrawnBatch]):
    """Draws the views of a batch, indexed by (epoch, draws), so that loader processes keep no state."""

    def __init__(
        self, store: ImageStore, views: tuple[str, ...], seed: int, lesions: Mapping[int, np.ndarray] | None
    ) -> None:
        self.store, self.lesions, self.draws_regions = store, lesions or {}, lesions is not None
        size = store.pixels.shape[1]
        # A stored image already has the size, so its plain view is the image itself: None skips the pipeline.
        self.views = [None if name == "none" else TrainingView(name, size) for name in views]
        self.seed = seed

    def __getitem__(self, item: tuple[int, Draws]) -> DrawnBatch:
        epoch, (rows, occurrences) = item
        size = self.store.pixels.shape[1]
        images = np.empty((len(rows), len(self.views), size, size, 3), np.uint8)
        regions = np.zeros((len(rows), size, size), np.uint8) if self.draws_regions else None
        for place, (row, occurrence) in enumerate(zip(rows.tolist(), occurrences.tolist(), strict=True)):
            for number, view in enumerate(self.views):
                if view is None:
                    images[place, number] = self.store.pixels[row]
                else:
                    seed = view_seed(self.seed, epoch, row, number, occurrence)
                    images[place, number] = view(self.store.pixels[row], seed)
            if regions is not None and row in self.lesions:
                regions[place] = self._region(row, view_seed(self.seed, epoch, row, 0, occurrence))
        return DrawnBatch(torch.from_numpy(images), None if regions is None else torch.from_numpy(regions))

    def _region(self, row: int, seed: int) -> np.ndarray:
        """Returns the lesion of a row in its first view."""
        region = self.lesions[row]
        if region.ndim == 1:
            left, top, right, bottom = region
            region = np.zeros(self.store.pixels.shape[1:3], np.uint8)
            region[top:bottom, left:right] = 255
        view = self.views[0]
        return region if view is None else view.with_region(self.store.pixels[row], region, seed)[1]


@cache
def _fork_server() -> ForkServerContext:
    """Returns the context that starts loader processes.

    A fork of this process would inherit threads and a CUDA context; a fresh interpreter would import torch for seconds
    in every job. The server imports once in the life of this process, and forks.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context
