"""Explains predictions: what a classifier says of images, and where it looks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from raysk.artifacts import replacing
from raysk.errors import DataError
from raysk.inference.attention import AttentionMaps
from raysk.inference.images import read_ahead, stacked
from raysk.inference.overlays import draw_overlay
from raysk.inference.predictor import Predictor
from raysk.inference.tables import NamedImage


@dataclass(frozen=True, eq=False)
class Explained:
    """An image with what a classifier says of it, and where it looks.

    Attributes:
        pixels: (S, S, 3), uint8.
        attention: (S, S), in [0, 1].
        label: The code of the class that the attention is about.
        probability: The probability of this class.
    """

    pixels: npt.NDArray[np.uint8]
    attention: npt.NDArray[np.float32]
    label: int
    probability: float


class Explainer:
    """Explains images, in batches.

    Args:
        predictor: The classifier.

    Raises:
        ConfigError: An encoder has no attention maps.
    """

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor
        self.maps = AttentionMaps(predictor.bundle, predictor.device)

    def explain(self, paths: Sequence[str], labels: Sequence[int] | None = None) -> Iterator[Explained]:
        """Yields images with the attention to their most probable class, or to given ones.

        Args:
            paths: Image files.
            labels: The code of the class of each; None takes the most probable one.

        Raises:
            DataError: An image cannot be read.
        """
        sizes, length = self.predictor.sizes, self.predictor.batch_length
        pixels = read_ahead(paths, sizes, length, self.predictor.bundle.facts.bits)
        for start in range(0, len(paths), length):
            batch = list(islice(pixels, length))
            for path, content in zip(paths[start:], batch, strict=False):
                if isinstance(content, str):
                    raise DataError(f"an image must be readable, but {path} is not ({content}): leave it out")
            given = None if labels is None else labels[start : start + length]
            yield from self._of_batch([content for content in batch if not isinstance(content, str)], given)

    def _of_batch(self, pixels: list[list[npt.NDArray[np.uint8]]], given: Sequence[int] | None) -> Iterator[Explained]:
        probabilities = self.predictor.predict_pixels(pixels).probabilities
        labels = probabilities.argmax(axis=1) if given is None else np.array(given)
        device = self.predictor.device
        classes = torch.from_numpy(labels.astype(np.int64)).to(device)
        attention = self.maps.of(stacked(pixels, self.predictor.sizes, device), classes).cpu().numpy()
        for place, (content, label) in enumerate(zip(pixels, labels.tolist(), strict=True)):
            yield Explained(content[-1], attention[place], label, float(probabilities[place, label]))


def explain_images(explainer: Explainer, images: Sequence[NamedImage], folder: Path, label: int | None) -> list[str]:
    """Writes an overlay of each image into a folder; returns a line on each.

    Args:
        explainer: The classifier.
        images: The images.
        folder: The folder.
        label: The class that the attention is about; None takes each image's most probable one.
    """
    labels = None if label is None else [label] * len(images)
    lines = []
    for number, (image, found) in enumerate(
        zip(images, explainer.explain([image.path for image in images], labels), strict=True)
    ):
        name = f"{number:04d}-{Path(image.name).stem}.png"
        save_overlay(folder / name, found, None)
        lines.append(f"{name}: {explainer.predictor.classes_[found.label]} {found.probability:.3f}")
    return lines


def save_overlay(path: Path, found: Explained, lesion: npt.NDArray[np.uint8] | None) -> None:
    """Writes the picture of `draw_overlay` as a PNG file."""
    with replacing(path) as temporary:
        draw_overlay(found.pixels, found.attention, lesion).save(temporary, "PNG")
