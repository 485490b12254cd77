"""A trained classifier that predicts images, in scikit-learn's manners: `raysk.load`."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from raysk.data.store.decoding import Pixels
from raysk.errors import DataError
from raysk.inference.bundle import Bundle
from raysk.inference.images import AnyImage, as_list, pixels_of, stacked
from raysk.inference.network import BundleNetwork

# Large enough to fill a GPU, small enough for the memory of a laptop.
BATCH = 256


def load(path: str | Path, device: str | torch.device | None = None) -> "Predictor":
    """Reads a bundle that `raysk bundle` wrote.

    Args:
        path: The file.
        device: Where it computes; None takes a GPU if there is one.

    Raises:
        ArtifactError: The file is missing, damaged, of another kind or of another schema.
    """
    return Predictor(Bundle.read(Path(path).expanduser()), device)


@dataclass(frozen=True, eq=False)
class Predicted:
    """The prediction of N images.

    Attributes:
        probabilities: (N, C), float64.
        disagreement: (N,) the weighted share of the members whose most probable class is another one than that of
            `probabilities`; 0 if all agree.
    """

    probabilities: np.ndarray
    disagreement: np.ndarray


class Predictor:
    """A fitted classifier. Its methods may be called from several threads at once.

    Args:
        bundle: Facts and weights.
        device: Where it computes; None takes a GPU if there is one.

    Attributes:
        bundle: Facts and weights.
        classes_: (C,) the class names, in the order of the probabilities.
    """

    def __init__(self, bundle: Bundle, device: str | torch.device | None = None) -> None:
        self.bundle = bundle
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.classes_ = np.array(bundle.facts.class_names)
        self.network = BundleNetwork(bundle).to(self.device)

    def __repr__(self) -> str:
        facts = self.bundle.facts
        return f"Predictor({facts.provenance.name!r}, {len(self.classes_)} classes, {len(facts.heads)} members)"

    @property
    def sizes(self) -> tuple[int, ...]:
        """The sizes at which it needs an image."""
        return self.bundle.facts.image_sizes

    def predict_proba(self, images: Iterable[AnyImage]) -> np.ndarray:
        """Returns the probability of each class, (N, C) float64.

        Args:
            images: N paths, contents of image files, PIL images, or arrays (H, W, 3) in uint8. They may have any size.

        Raises:
            DataError: An image cannot be read, or is of another type.
        """
        return self._of_images(images).probabilities

    def predict(self, images: Iterable[AnyImage]) -> np.ndarray:
        """Returns the most probable class of each image, (N,); arguments and errors as for `predict_proba`."""
        labels: np.ndarray = self.classes_[self.predict_proba(images).argmax(axis=1)]
        return labels

    def predict_pixels(self, pixels: list[list[Pixels]]) -> Predicted:
        """Predicts one batch of prepared images.

        Args:
            pixels: For each of B images its pixels at every size, as from `pixels_of`.
        """
        with torch.inference_mode():
            output = self.network(stacked(pixels, self.sizes, self.device))
        probabilities, votes = output.probabilities.cpu().numpy(), output.votes.cpu().numpy()
        agreeing = votes[np.arange(len(votes)), probabilities.argmax(axis=1)]
        return Predicted(probabilities, np.clip(1 - agreeing, 0, 1))

    def _of_images(self, images: Iterable[AnyImage]) -> Predicted:
        batches = [self.predict_pixels(batch) for batch in _batches(self._read(as_list(images)))]
        if not batches:
            return Predicted(np.empty((0, len(self.classes_))), np.empty(0))
        return Predicted(
            np.concatenate([batch.probabilities for batch in batches]),
            np.concatenate([batch.disagreement for batch in batches]),
        )

    def _read(self, images: list[AnyImage]) -> Iterator[list[Pixels]]:
        for place, image in enumerate(images):
            pixels = pixels_of(image, self.sizes)
            if isinstance(pixels, str):
                name = str(image) if isinstance(image, (str, Path)) else f"image {place}"
                raise DataError(f"an image must be readable, but {name} is not ({pixels}): leave it out")
            yield pixels


def _batches(pixels: Iterator[list[Pixels]]) -> Iterator[list[list[Pixels]]]:
    while batch := list(islice(pixels, BATCH)):
        yield batch
