"""Which images have their attention guided, to which class, and by which lesion."""

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
from torch import Tensor

from raysk.data.regions import Box, box_of
from raysk.data.saliency import salient_box
from raysk.parts.attention import Care
from raysk.recipe import Job, Recipe
from raysk.run import Run
from raysk.run_checks import rare_classes


@dataclass(frozen=True, eq=False)
class Guided:
    """A share of a batch with the lesion of each image.

    Attributes:
        images: (B, 1, H, W, 3), uint8.
        regions: (B, H, W), uint8, above 0 on the lesion.
        targets: (B,) the class whose attention the lesion guides; -1 for an image that is not guided.
    """

    images: Tensor
    regions: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def chunk(self, number: int) -> tuple["Guided", ...]:
        """Returns the batch in pieces, as torch divides a tensor."""
        parts = [getattr(self, field.name).chunk(number) for field in fields(self)]
        return tuple(Guided(*piece) for piece in zip(*parts, strict=True))


@dataclass(frozen=True, eq=False)
class Guide:
    """The lesion of each training row.

    Attributes:
        boxes: (N, 4) left, top, right and bottom in pixels of the stored image, whole numbers.
        targets: (N,) the class that the row guides; -1 for a row that guides none.
    """

    boxes: npt.NDArray[np.int64]
    targets: npt.NDArray[np.int64]

    @classmethod
    def of(cls, job: Job, run: Run, care: Care) -> "Guide":
        """Returns the guide of the training rows of a job: its rows of rare classes, where a lesion is known."""
        rows = run.train_rows(job)
        labels = run.manifest.labels[rows]
        rare = rare_classes(care, run.class_counts(job), run.manifest.class_names)
        targets = np.where(np.isin(labels, rare), labels, -1)
        boxes = np.zeros((len(rows), 4), dtype=np.int64)
        box_of_row = _boxes(care, run, job.recipe)
        for place in np.flatnonzero(targets >= 0):
            box = box_of_row(int(rows[place]))
            if box is None:
                targets[place] = -1
            else:
                boxes[place] = _widened(box, care.margin, job.recipe.image_size)
        return cls(boxes, targets)

    def lesions(self, rows: npt.NDArray[np.int64]) -> dict[int, npt.NDArray[np.int64]]:
        """Returns the box of each row (N,) that is guided."""
        return {int(rows[place]): self.boxes[place] for place in np.flatnonzero(self.targets >= 0)}


def _boxes(care: Care, run: Run, recipe: Recipe) -> Callable[[int], Box | None]:
    """Returns a function that gives the box around the lesion of a row of the manifest; None where none is known."""
    if care.region == "spectral_residual" or care.region == "fine_grained":
        pixels, saliency = run.images(recipe).pixels, care.region
        return lambda row: salient_box(pixels[row], saliency)
    regions = run.regions(recipe.image_size)
    if care.region == "mask":
        return lambda row: box_of(regions.masks[row])
    return lambda row: None if np.isnan(regions.boxes[row]).any() else Box(*regions.boxes[row].tolist())


def _widened(box: Box, margin: float, size: int) -> tuple[int, int, int, int]:
    """Returns a box in whole pixels, wider by a share of its sides, within the image."""
    left, top, right, bottom = box
    across, down = margin * (right - left), margin * (bottom - top)
    low = (np.floor(max(left - across, 0)), np.floor(max(top - down, 0)))
    high = (np.ceil(min(right + across, size)), np.ceil(min(bottom + down, size)))
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])
