"""Whether a classifier looks at the lesion: the energy of its attention inside it, and the pointing game."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


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


def attention_scores(attention: npt.NDArray[np.floating], lesions: npt.NDArray[np.bool_]) -> AttentionScores:
    """Scores attention maps; an image whose attention is 0 everywhere has energy 0 and does not point.

    Args:
        attention: (N, S, S), at least 0.
        lesions: (N, S, S); an image without a lesion is left out.
    """
    known = lesions.any(axis=(1, 2))
    maps, inside = attention[known].astype(np.float64), lesions[known]
    if not len(maps):
        return AttentionScores(0, float("nan"), float("nan"), float("nan"))
    flat, within = maps.reshape(len(maps), -1), inside.reshape(len(inside), -1)
    total = flat.sum(axis=1)
    energy = np.divide((flat * within).sum(axis=1), total, out=np.zeros_like(total), where=total > 0)
    points = within[np.arange(len(flat)), flat.argmax(axis=1)] & (total > 0)
    return AttentionScores(len(maps), float(energy.mean()), float(points.mean()), float(within.mean()))
