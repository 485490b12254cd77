"""Masks of new pictures by a row of a run that predicts masks, at the size of each picture."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from math import ceil
from os import cpu_count
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from raysk.data.crop import Window
from raysk.data.folds.assignment import WHOLE
from raysk.data.store.decoding import Pixels, decode_windows
from raysk.data.views import TURNING_BACK, view_names
from raysk.errors import ConfigError, DataError, in_one_line
from raysk.evaluation.ensemble import GREEDY
from raysk.inference.packing import check_refitted, recipe_weights, row_of
from raysk.inference.predictor import usable_device
from raysk.inference.turning import TURNS
from raysk.recipe import Job
from raysk.run import Run
from raysk.training.segmenting import Segmenter, load_segmenter

# Pictures that are decoded together, and squares that go through the network together.
_BATCH = 16

Shares = npt.NDArray[np.float32]


class Masker:
    """Predicts the lesion in pictures of any size.

    A picture that is no square is seen in as many overlapping squares as cover it, and their probabilities are averaged
    where they overlap.

    Args:
        run: A finished run whose task is segmentation.
        wanted: Place, name or key of the row.
        device: Where it computes; None takes a GPU if there is one.
        refitted: Whether to take the models of `raysk refit` rather than those of the folds.

    Attributes:
        row: The row.
        device: Where it computes.
        size: Side of the squares that the network sees, in pixels.

    Raises:
        ArtifactError: No row matches, several do, or a file of the run is missing or damaged.
        ConfigError: The run predicts classes, or there is no such device.
    """

    def __init__(self, run: Run, wanted: str = GREEDY, device: str | None = None, *, refitted: bool = False) -> None:
        if run.class_names:
            raise ConfigError(
                f"masks must come from a run with task.name=segmentation, but {run.folder} predicts classes: choose "
                "another run"
            )
        row = row_of(run, wanted)
        self.row, self.device = row, usable_device(device)
        self._bits = run.manifest.bits
        folds = [WHOLE] if refitted else list(range(len(run.folds)))
        self._members: list[tuple[Segmenter, tuple[str, ...], float]] = []
        for key, by_view in recipe_weights(run, row).items():
            recipe = run.recipe(key)
            if refitted:
                check_refitted(run, recipe)
            self.size, weight = recipe.image_size, sum(by_view.values()) / len(folds)
            for fold in folds:
                segmenter = load_segmenter(Job(recipe, fold), run).to(self.device)
                self._members.append((segmenter, view_names(recipe.test_views), weight))

    def of(self, paths: Sequence[Path]) -> Iterator[Shares | str]:
        """Yields the probability of the lesion at each pixel of each picture, (H, W), or why it cannot be read."""
        starts = range(0, len(paths), _BATCH)
        with ThreadPoolExecutor(cpu_count()) as pool:
            ahead: list[Future[_Picture | str]] = [pool.submit(self._read, path) for path in paths[:_BATCH]]
            for start in starts:
                pictures = [future.result() for future in ahead]
                ahead = [pool.submit(self._read, path) for path in paths[start + _BATCH : start + 2 * _BATCH]]
                yield from self._of_batch(pictures)

    def _read(self, path: Path) -> "_Picture | str":
        """Returns a picture with the squares that cover it, or why it cannot be read."""
        try:
            decoded = decode_windows(path, self.size, self._bits, squares_of)
        except (DataError, ValueError) as error:  # reading is not permitted, or no file can have this name
            return in_one_line(error)
        return decoded if isinstance(decoded, str) else _Picture(*decoded[0], decoded[1])

    def _of_batch(self, pictures: Sequence["_Picture | str"]) -> Iterator[Shares | str]:
        squares = [pixels for picture in pictures if not isinstance(picture, str) for pixels in picture.squares]
        batches = (squares[start : start + _BATCH] for start in range(0, len(squares), _BATCH))
        shares = (of_square for batch in batches for of_square in self._shares(np.stack(batch)))
        for picture in pictures:
            yield picture if isinstance(picture, str) else picture.joined([next(shares) for _ in picture.squares])

    def _shares(self, squares: Pixels) -> Shares:
        """Returns the probabilities of squares (B, S, S, 3), as (B, S, S)."""
        images = torch.from_numpy(squares).to(self.device)
        total = torch.zeros(images.shape[:3], device=self.device)
        with torch.inference_mode():
            for segmenter, views, weight in self._members:
                for view in views:
                    found = torch.sigmoid(segmenter(TURNS[view](images).contiguous().unsqueeze(1)))
                    total += weight / len(views) * _turned_back(found, view)
        return total.cpu().numpy()


class _Picture:
    """A picture of any size, and the squares that cover it at the size of the network."""

    def __init__(self, width: int, height: int, squares: Sequence[Pixels]) -> None:
        self.width, self.height, self.squares = width, height, squares

    def joined(self, shares: Sequence[Shares]) -> Shares:
        """Returns the mean of the probabilities (S, S) of the squares, as (H, W)."""
        total, count = (np.zeros((self.height, self.width), np.float32) for _ in range(2))
        for window, of_square in zip(squares_of(self.width, self.height), shares, strict=True):
            place = slice(window.top, window.top + window.side), slice(window.left, window.left + window.side)
            total[place] += cv2.resize(of_square, (window.side, window.side), interpolation=cv2.INTER_LINEAR)
            count[place] += 1
        return total / count


def squares_of(width: int, height: int) -> list[Window]:
    """Returns the fewest squares that cover a picture, evenly spaced."""
    side, longer = min(width, height), max(width, height)
    starts = np.linspace(0, longer - side, ceil(longer / side)).round().astype(int).tolist()
    return [Window(start, 0, side) if width > height else Window(0, start, side) for start in starts]


def _turned_back(masks: Tensor, view: str) -> Tensor:
    return TURNS[TURNING_BACK[view]](masks.unsqueeze(-1)).squeeze(-1)
