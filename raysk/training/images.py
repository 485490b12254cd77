"""The images of rows, batch by batch: as they are stored, turned, or freshly drawn."""

import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from multiprocessing.context import ForkServerContext

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from raysk.data.store.image_store import ImageStore
from raysk.data.views import BatchView, TrainingView, test_time_views, view_seed
from raysk.training.world import World

# Batches of rows, each (B,), to their images, each (B, ..., H, W, 3), uint8.
Images = Callable[[Sequence[np.ndarray]], Iterable[Tensor]]


def plain_images(store: ImageStore) -> Images:
    """Returns the images of rows as they are stored."""
    return turned_images(store, "identity")


def turned_images(store: ImageStore, view: str) -> Images:
    """Returns the images of rows in a test-time view."""
    turn: BatchView = test_time_views[view]
    return lambda batches: (torch.from_numpy(np.ascontiguousarray(turn(store.pixels[rows]))) for rows in batches)


class DrawnViews:
    """Draws training views: in this process on a CPU, in processes beside it where a GPU would wait for them.

    Args:
        store: Pixels of all rows.
        views: The training view of each copy.
        seed: Of the views; with it, epoch, row and copy determine a view, whoever draws it.
        world: Says how many processes there are to be.
    """

    def __init__(self, store: ImageStore, views: tuple[str, ...], seed: int, world: World) -> None:
        self.dataset = _Views(store, views, seed)
        self.world = world
        self._asked: list[tuple[int, np.ndarray]] = []
        self._loader: DataLoader[Tensor] | None = None

    def __call__(self, epoch: int, batches: Sequence[np.ndarray]) -> Iterator[Tensor]:
        """Yields the views (B, V, H, W, 3), uint8, of every batch of rows (B,)."""
        self._asked[:] = [(epoch, rows) for rows in batches]
        if self._loader is None:
            processes = min(self.world.loader_workers, len(batches))
            self._loader = DataLoader(
                self.dataset,
                sampler=self._asked,
                batch_size=None,  # The dataset gives whole batches: to stack single images would copy them again.
                num_workers=processes,
                persistent_workers=processes > 0,
                pin_memory=self.world.device.type == "cuda",
                prefetch_factor=4 if processes else None,
                multiprocessing_context=_fork_server() if processes else None,
                # The views have seeds of their own: what a loader draws must not shift the numbers that dropout gets.
                generator=torch.Generator(),
            )
        yield from self._loader


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


@cache
def _fork_server() -> ForkServerContext:
    """Returns what starts loader processes.

    A fork of this process would inherit threads and a CUDA context; a fresh interpreter imports torch for seconds, in
    every job anew. The server imports once, as long as this process lives, and forks.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context
