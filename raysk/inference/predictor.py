"""A trained classifier that predicts images, in scikit-learn's manners: `raysk.load`."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from raysk.data.store.decoding import Pixels
from raysk.errors import ConfigError, DataError
from raysk.evaluation.operating_points import decide
from raysk.inference.bundle import Bundle
from raysk.inference.images import AnyImage, as_list, read_ahead, stacked
from raysk.inference.network import BundleNetwork
from raysk.inference.opening import open_bundle

# A batch is large enough to fill a GPU, and its pixels are few enough for the memory of a laptop.
_MOST_IMAGES = 256
_MOST_BYTES = 64 * 2**20


def load(path: str | Path, row: str | None = None, *, device: str | None = None, refitted: bool = False) -> "Predictor":
    """Opens a trained classifier.

    Args:
        path: A file that `raysk bundle` wrote, or a run directory.
        row: Place, name or key of a row of the run; None takes the greedy ensemble. A file has one classifier.
        device: Where it computes, such as "cpu" or "cuda:1"; None takes a GPU if there is one.
        refitted: Whether to take the models of `raysk refit` rather than those of the folds of the run.

    Raises:
        ArtifactError: The path is neither, the row does not match, or a file is damaged or of another schema.
        ConfigError: There is no such device.
    """
    return Predictor(open_bundle(path, row, refitted=refitted), device)


def batch_length(sizes: Sequence[int]) -> int:
    """Returns the number of images in a batch at these sizes."""
    return max(1, min(_MOST_IMAGES, _MOST_BYTES // sum(3 * size * size for size in sizes)))


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
        device: Where it computes.
        classes_: (C,) the class names, in the order of the probabilities.

    Raises:
        ConfigError: There is no such device.
        ArtifactError: The weights do not fit the networks that the facts name.
    """

    def __init__(self, bundle: Bundle, device: str | torch.device | None = None) -> None:
        self.bundle = bundle
        self.device = usable_device(device)
        self.classes_ = np.array(bundle.facts.class_names)
        self.network = BundleNetwork(bundle).to(self.device)

    def __repr__(self) -> str:
        facts = self.bundle.facts
        return f"Predictor({facts.provenance.name!r}, {len(self.classes_)} classes, {len(facts.heads)} members)"

    @property
    def sizes(self) -> tuple[int, ...]:
        """The sizes at which it needs an image."""
        return self.bundle.facts.image_sizes

    @property
    def batch_length(self) -> int:
        """The number of images that it predicts at once."""
        return batch_length(self.sizes)

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

    def decide(self, probabilities: np.ndarray) -> np.ndarray:
        """Returns the class that the operating points decide on, (N,), from probabilities (N, C).

        Without operating points it is the most probable class.
        """
        decisions: np.ndarray = self.classes_[decide(probabilities, self.bundle.facts.thresholds)]
        return decisions

    def predict_pixels(self, pixels: list[list[Pixels]]) -> Predicted:
        """Predicts one batch of prepared images.

        Args:
            pixels: For each of B images its pixels at every size, as from `pixels_of`.
        """
        if not pixels:
            return Predicted(np.empty((0, len(self.classes_))), np.empty(0))
        with torch.inference_mode():
            output = self.network(stacked(pixels, self.sizes, self.device))
        probabilities, votes = output.probabilities.cpu().numpy(), output.votes.cpu().numpy()
        agreeing = votes[np.arange(len(votes)), probabilities.argmax(axis=1)]
        return Predicted(probabilities, np.clip(1 - agreeing, 0, 1))

    def _of_images(self, images: Iterable[AnyImage]) -> Predicted:
        pixels = self._read(as_list(images))
        batches = [self.predict_pixels(list(islice(pixels, self.batch_length)))]
        while batch := list(islice(pixels, self.batch_length)):
            batches.append(self.predict_pixels(batch))
        return Predicted(
            np.concatenate([batch.probabilities for batch in batches]),
            np.concatenate([batch.disagreement for batch in batches]),
        )

    def _read(self, images: list[AnyImage]) -> Iterator[list[Pixels]]:
        for place, pixels in enumerate(read_ahead(images, self.sizes, self.batch_length, self.bundle.facts.bits)):
            if isinstance(pixels, str):
                image = images[place]
                name = str(image) if isinstance(image, (str, Path)) else f"image {place}"
                raise DataError(f"an image must be readable, but {name} is not ({pixels}): leave it out")
            yield pixels


def usable_device(name: str | torch.device | None) -> torch.device:
    """Returns the device of a name, on which a number was put to see that it works; None takes a GPU if there is one.

    Raises:
        ConfigError: There is no such device.
    """
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(
            f"device must be one of this machine, such as cpu or cuda, but got {name} ({reason:.150}): choose "
            "another, or leave it out"
        ) from error
    return device
