"""Whether a classifier looks at the lesion: the energy of its attention inside it, and the pointing game."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from raysk.evaluation.resampling import mean_interval

FloatArray = npt.NDArray[np.float64]

# The scores of all images, and the beginnings of those of a class.
ENERGY, POINTING = "attention_energy", "attention_pointing"
ENERGY_OF_CLASS, POINTING_OF_CLASS = "energy", "pointing"


@dataclass(frozen=True)
class AttentionScores:
    """The scores of the images of one class, or of all.

    Attributes:
        count: Number of images with a known lesion.
        energy: Mean share of the attention that lies inside the lesion (Wang et al. 2020, energy-based pointing game).
        pointing: Share of the images whose greatest attention lies inside it (Zhang et al. 2018, pointing game).
        area: Mean share of the image that the lesion covers: both scores of an attention that is the same everywhere.
    """

    count: int
    energy: float
    pointing: float
    area: float


def scores_of_images(attention: npt.NDArray[np.floating], lesions: npt.NDArray[np.bool_]) -> FloatArray:
    """Returns energy, pointing (0 or 1) and area of each image, (N, 3); NaN for one without a lesion.

    An image whose attention is 0 everywhere has energy 0 and does not point.

    Args:
        attention: (N, S, S), at least 0.
        lesions: (N, S, S).
    """
    flat = attention.reshape(len(attention), -1).astype(np.float64)
    inside = lesions.reshape(len(lesions), -1)
    total = flat.sum(axis=1)
    energy = np.divide((flat * inside).sum(axis=1), total, out=np.zeros_like(total), where=total > 0)
    points = inside[np.arange(len(flat)), flat.argmax(axis=1)] & (total > 0)
    scores = np.stack([energy, points, inside.mean(axis=1)], axis=1)
    scores[~inside.any(axis=1)] = np.nan
    return scores


def mean_scores(of_images: FloatArray) -> AttentionScores:
    """Returns the scores of some images together; all but the count are NaN if no lesion is known.

    Args:
        of_images: (N, 3), of `scores_of_images`.
    """
    known = of_images[~np.isnan(of_images[:, 0])]
    energy, pointing, area = known.mean(axis=0).tolist() if len(known) else [float("nan")] * 3
    return AttentionScores(len(known), energy, pointing, area)


def attention_columns(
    of_images: FloatArray, labels: npt.NDArray[np.int64], groups: np.ndarray, class_names: Sequence[str]
) -> dict[str, float]:
    """Returns the scores of a row of the leaderboard by name: of all images with their intervals, and of each class.

    The intervals are over whole groups; see `mean_interval`. A class without a known lesion is left out.

    Args:
        of_images: (N, 3), of `scores_of_images`, for the images of the test part.
        labels: (N,) classes.
        groups: (N,) the group of each image.
        class_names: The names of the classes.
    """
    known = ~np.isnan(of_images[:, 0])
    columns: dict[str, float] = {}
    for place, name in enumerate((ENERGY, POINTING) if known.any() else ()):
        low, high = mean_interval(of_images[known, place], groups[known])
        columns |= {name: float(of_images[known, place].mean()), f"{name}_low": low, f"{name}_high": high}
    for label, class_name in enumerate(class_names):
        scores = mean_scores(of_images[labels == label])
        if scores.count:
            columns[f"{ENERGY_OF_CLASS}_{class_name}"] = scores.energy
            columns[f"{POINTING_OF_CLASS}_{class_name}"] = scores.pointing
    return {f"test_{name}": value for name, value in columns.items()}
