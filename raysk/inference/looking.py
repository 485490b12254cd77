"""What a row looks at in the locked test part: whether at the lesion, and in its most confident errors."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt

from raysk.data.regions import MASK, rows_with
from raysk.evaluation.attention_scores import scores_of_images
from raysk.inference.explaining import Explained, Explainer
from raysk.run import Run

# The most confident errors of a class that are kept.
_ERRORS = 4


@dataclass(frozen=True, eq=False)
class Error:
    """An image of the test part that the classifier takes for another class.

    Attributes:
        row: Its row in the manifest.
        explained: The image, with the attention to the class that it is taken for.
        lesion: (S, S), above 0 on the lesion; None if it is not known.
    """

    row: int
    explained: Explained
    lesion: npt.NDArray[np.uint8] | None


@dataclass(frozen=True, eq=False)
class Looks:
    """What a classifier looks at in the test part.

    Attributes:
        of_images: (N, 3), see `scores_of_images`: of the attention to the most probable class.
        errors: Of each class the images that it most confidently takes for another class, the most confident first.
    """

    of_images: npt.NDArray[np.float64]
    errors: dict[int, list[Error]]


def look_at_test_part(explainer: Explainer, run: Run, progress: Callable[[int, int], None] | None = None) -> Looks:
    """Returns what a row of a run looks at in the test part.

    Args:
        explainer: The row.
        run: The run.
        progress: Called with the number of images done and the total.

    Raises:
        DataError: An image cannot be read.
    """
    rows, labels = run.folds.test_rows, run.manifest.labels
    masks = run.regions(max(explainer.predictor.sizes)).masks if knows_masks(run) else None
    of_images: list[npt.NDArray[np.float64]] = []
    errors: dict[int, list[Error]] = {}
    explained = explainer.explain([str(run.manifest.paths[row]) for row in rows])
    images = zip(rows.tolist(), explained, strict=True)
    while batch := list(islice(images, explainer.predictor.batch_length)):
        attention = np.stack([image.attention for _, image in batch])
        lesions = np.zeros(attention.shape, bool) if masks is None else masks[[row for row, _ in batch]] > 0
        of_images.append(scores_of_images(attention, lesions))
        for (row, image), lesion in zip(batch, lesions, strict=True):
            truth = int(labels[row])
            if image.label != truth:
                error = Error(row, image, lesion.astype(np.uint8) if lesion.any() else None)
                errors[truth] = _most_confident([*errors.get(truth, []), error])
        if progress is not None:
            progress(sum(map(len, of_images)), len(rows))
    return Looks(np.concatenate(of_images), dict(sorted(errors.items())))


def knows_masks(run: Run) -> bool:
    """Returns whether an image of the test part has a mask."""
    return bool(rows_with(run.manifest, MASK)[run.folds.test_rows].any())


def _most_confident(errors: list[Error]) -> list[Error]:
    return sorted(errors, key=lambda error: -error.explained.probability)[:_ERRORS]
