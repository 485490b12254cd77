"""The images of rows in batches: as stored, in a test-time view, or in drawn training views."""

import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
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
    """

    def __init__(self, store: ImageStore, views: tuple[str, ...], seed: int, world: World) -> None:
        self.dataset = _Views(store, views, seed)
        self.world = world
        self._requests: list[tuple[int, Draws]] = []
        self._loader: DataLoader[Tensor] | None = None

    def __call__(self, epoch: int, batches: Sequence[Draws]) -> Iterator[Tensor]:
        """Yields the views (B, V, H, W, 3), uint8, of every batch of draws."""
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


class _Views(Dataset[Tensor]):
    """Draws the views of a batch, indexed by (epoch, draws), so that loader processes keep no state."""

    def __init__(self, store: ImageStore, views: tuple[str, ...], seed: int) -> None:
        self.store = store
        size = store.pixels.shape[1]
        # A stored image already has the size, so its plain view is the image itself: None skips the pipeline.
        self.views = [None if name == "none" else TrainingView(name, size) for name in views]
        self.seed = seed

    def __getitem__(self, item: tuple[int, Draws]) -> Tensor:
        epoch, (rows, occurrences) = item
        batch = np.empty((len(rows), len(self.views), *self.store.pixels.shape[1:]), np.uint8)
        for place, (row, occurrence) in enumerate(zip(rows.tolist(), occurrences.tolist(), strict=True)):
            image = self.store.pixels[row]
            for number, view in enumerate(self.views):
                if view is None:
                    batch[place, number] = image
                else:
                    batch[place, number] = view(image, view_seed(self.seed, epoch, row, number, occurrence))
        return torch.from_numpy(batch)


@cache
def _fork_server() -> ForkServerContext:
    """Returns the context that starts loader processes.

    A fork of this process would inherit threads and a CUDA context; a fresh interpreter would import torch for seconds
    in every job. The server imports once in the life of this process, and forks.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context
