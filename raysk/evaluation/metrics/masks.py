"""Metrics of masks: the mean over the pictures, whose pixels with a probability of at least one half are the lesion.

A study measures the stored masks, at the size of the recipe's images; `of_picture` measures any size. Distances are
shares of the diagonal of the picture, so that they mean the same at any size. Where only one of two masks is empty,
they are a whole diagonal apart.
"""

from abc import abstractmethod
from functools import lru_cache
from math import hypot, isqrt
from typing import ClassVar

import numpy as np

from raysk.errors import DataError
from raysk.evaluation.metrics.base import MASKS, Form, Metric, Resampler, metrics, parse_metric

# The least Jaccard index that the challenge of ISIC 2018 counts as a found lesion.
_FOUND = 0.65


class MaskMetric(Metric):
    """A mean over pictures; the probabilities are (..., N, P) of P pixels in rows of a square, the masks (N, P)."""

    form: ClassVar[Form] = MASKS

    @staticmethod
    def check(probabilities: np.ndarray, truth: np.ndarray) -> None:
        """Refuses probabilities (..., N, P) and masks (N, P) that are not of the same pixels.

        Raises:
            DataError: Their shapes do not match.
        """
        if truth.ndim != 2 or probabilities.shape[-2:] != truth.shape or not len(truth):
            raise DataError(
                "a score of masks needs probabilities (rows, pixels) and masks of the same size, but got shapes "
                f"{probabilities.shape} and {truth.shape}: pass both for the same rows"
            )

    @staticmethod
    def kinds(truth: np.ndarray) -> np.ndarray:
        """Returns one kind for all rows, (N,)."""
        return np.zeros(len(truth), dtype=np.int64)

    @staticmethod
    def log_likelihoods(probabilities: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """Returns the mean log likelihood of the pixels of each row, (..., N)."""
        shares = np.where(truth > 0, probabilities, 1 - probabilities)
        means: np.ndarray = np.log(np.maximum(shares, np.finfo(np.float32).tiny)).mean(axis=-1)
        return means

    def is_defined(self, labels: np.ndarray, num_classes: int) -> bool:
        """Returns True: every mask has a score."""
        return True

    @abstractmethod
    def values(self, found: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """Returns the value of each picture, (..., N), of masks (..., N, P) and (N, P), bool."""

    def of_picture(self, found: np.ndarray, truth: np.ndarray) -> float:
        """Returns the value of one picture of any size, of masks (H, W) and (H, W), bool."""
        return float(self.values(found.reshape(1, -1), truth.reshape(1, -1))[0])

    def scores(self, probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Averages the values of the pictures; `labels` are their masks."""
        means: np.ndarray = self.values(probabilities >= 0.5, labels > 0).mean(axis=-1)
        return means

    def resampler(self, probabilities: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> Resampler:
        """Sums each group once: the sum of a resample is that of its groups."""
        values = self.values(probabilities >= 0.5, labels > 0)
        sums, sizes = np.bincount(groups, weights=values), np.bincount(groups)
        return lambda times: (times @ sums) / (times @ sizes)


@metrics.register("dice")
class Dice(MaskMetric):
    """2 |A and B| / (|A| + |B|), of each picture; 1 if both masks are empty."""

    wording = "Dice"

    def values(self, found: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """Counts the pixels of both."""
        both, whole = (found & truth).sum(axis=-1), found.sum(axis=-1) + truth.sum(axis=-1)
        return np.where(whole > 0, 2 * both / np.maximum(whole, 1), 1.0)


@metrics.register("jaccard")
class Jaccard(MaskMetric):
    """|A and B| / |A or B|, of each picture; 1 if both masks are empty."""

    wording = "Jaccard"

    def values(self, found: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """Counts the pixels of both and of either."""
        both, either = (found & truth).sum(axis=-1), (found | truth).sum(axis=-1)
        return np.where(either > 0, both / np.maximum(either, 1), 1.0)


@metrics.register("thresholded_jaccard")
class ThresholdedJaccard(Jaccard):
    """The Jaccard index of each picture, 0 where it is below 0.65, as in the challenge of ISIC 2018."""

    wording = "thresholded Jaccard"

    def values(self, found: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """Cuts the indices off."""
        indices = super().values(found, truth)
        return np.where(indices >= _FOUND, indices, 0.0)


class _BoundaryMetric(MaskMetric):
    """A distance between the boundaries of two masks; 1 if only one mask is empty, 0 if both are."""

    larger_is_better = False
    place: ClassVar[int]
    """Its place in what `_boundary_distances` returns."""

    def values(self, found: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """Measures each picture in shares of its diagonal."""
        side = isqrt(truth.shape[1])
        distances = [
            self.of_picture(mask, true)
            for of_candidate in found.reshape(-1, len(truth), side, side)
            for mask, true in zip(of_candidate, truth.reshape(-1, side, side), strict=True)
        ]
        return np.reshape(distances, found.shape[:-1])

    def of_picture(self, found: np.ndarray, truth: np.ndarray) -> float:
        """Measures one picture in shares of its diagonal."""
        return _boundary_distances(np.packbits(found).tobytes(), np.packbits(truth).tobytes(), truth.shape)[self.place]


@metrics.register("hausdorff95")
class Hausdorff95(_BoundaryMetric):
    """The 95 % Hausdorff distance: the larger of the 95th percentiles of the distances between the boundaries."""

    wording = "95% Hausdorff distance"
    place = 0


@metrics.register("surface_distance")
class SurfaceDistance(_BoundaryMetric):
    """The mean distance from the pixels of either boundary to the other boundary."""

    wording = "mean surface distance"
    place = 1


@lru_cache(maxsize=4096)  # a row of a board asks for each pair several times
def _boundary_distances(found: bytes, truth: bytes, shape: tuple[int, int]) -> tuple[float, float]:
    """Returns both distances of two masks of this shape, of which the bits are given, in shares of the diagonal."""
    from scipy import ndimage  # here, since a bundle needs no masks and loads without scipy

    bits = (np.frombuffer(mask, np.uint8) for mask in (found, truth))
    first, second = (np.unpackbits(each, count=shape[0] * shape[1]).reshape(shape).astype(bool) for each in bits)
    if not first.any() or not second.any():
        return (float(first.any() != second.any()),) * 2
    # Outside of both nothing is a boundary, and the transform of a part of a large picture takes less time.
    rows, columns = (np.flatnonzero((first | second).any(axis=axis)) for axis in (1, 0))
    part = slice(max(rows[0] - 1, 0), rows[-1] + 2), slice(max(columns[0] - 1, 0), columns[-1] + 2)
    boundaries = [mask[part] & ~ndimage.binary_erosion(mask[part]) for mask in (first, second)]
    to_first, to_second = (ndimage.distance_transform_edt(~boundary) for boundary in boundaries)
    there, back = to_second[boundaries[0]], to_first[boundaries[1]]
    pixels = max(np.percentile(there, 95), np.percentile(back, 95)), np.concatenate([there, back]).mean()
    return min(float(pixels[0]) / hypot(*shape), 1.0), min(float(pixels[1]) / hypot(*shape), 1.0)


def scores_of_pictures(probabilities: np.ndarray, masks: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the usual scores of each picture, (N,), by name.

    Args:
        probabilities: (N, P), of the lesion at each pixel.
        masks: (N, P), above 0 on the lesion.
    """
    usual = [metric for metric in map(parse_metric, MASKS.usual) if isinstance(metric, MaskMetric)]
    return {metric.name: metric.values(probabilities >= 0.5, masks > 0) for metric in usual}
