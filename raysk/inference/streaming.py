"""Predicts any number of images in bounded memory: threads decode ahead, finished batches are kept in parts."""

from collections.abc import Callable, Sequence
from contextlib import closing
from itertools import islice

from raysk.data.store.decoding import Pixels
from raysk.inference.images import read_ahead
from raysk.inference.parts import Parts
from raysk.inference.predictor import Predicted, Predictor

# Batches whose pixels are held besides the one that is being predicted.
_AHEAD = 2

ProgressCallback = Callable[[int, int], None]


def predict_missing(predictor: Predictor, parts: Parts, progress: ProgressCallback) -> None:
    """Predicts all parts that are not finished; each image is read once.

    Args:
        predictor: The classifier.
        parts: Keeps what is finished.
        progress: Called with the number of images done and of all images, at the start and after each part.
    """
    missing = parts.missing()
    total = len(parts.images)
    done = total - sum(len(parts.images_of(number)) for number in missing)
    progress(done, total)
    paths = (image.path for number in missing for image in parts.images_of(number))
    ahead, bits = _AHEAD * predictor.batch_length, predictor.bundle.facts.bits
    with closing(read_ahead(paths, predictor.sizes, ahead, bits)) as decoded:
        for number in missing:
            length = len(parts.images_of(number))
            parts.write(number, *predict_part(predictor, list(islice(decoded, length))))
            done += length
            progress(done, total)


def predicted_images(predictor: Predictor, paths: Sequence[str]) -> tuple[Predicted, list[str | None]]:
    """Predicts the images of one part; returns as `predict_part`."""
    decoded = read_ahead(paths, predictor.sizes, len(paths), predictor.bundle.facts.bits)
    return predict_part(predictor, list(decoded))


def predict_part(predictor: Predictor, decoded: Sequence[list[Pixels] | str]) -> tuple[Predicted, list[str | None]]:
    """Returns the prediction of the readable images of one part, and for each image why it cannot be read, or None.

    Args:
        predictor: The classifier.
        decoded: The pixels of the images, or why they cannot be read.
    """
    reasons = [outcome if isinstance(outcome, str) else None for outcome in decoded]
    return predictor.predict_pixels([outcome for outcome in decoded if not isinstance(outcome, str)]), reasons
