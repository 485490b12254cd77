"""Finds near-duplicates: pictures that differ only in encoding, orientation, size or a narrow crop.

Mirroring a picture changes only signs among the low frequencies of its cosine transform; transposing it swaps u and v.
So their absolute values, with each pair (u, v) and (v, u) sorted by size, are the same in all eight orientations: a
fingerprint that needs no search over orientations. A k-d tree finds neighbouring fingerprints, the candidates. The
fine detail of the two pictures then confirms a candidate: fine detail differs between any two photographs, but large
shapes, such as a dark blot on bright skin, do not. The fingerprint is our choice.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
import numpy.typing as npt
from scipy.fft import dctn
from scipy.spatial import cKDTree

from raysk.data.audit.scanning import PICTURE_SIDE, Pictures
from raysk.data.manifest import IntArray

Floats = npt.NDArray[np.float32]
Scalar = TypeVar("Scalar", bound=np.generic)

NUM_FREQUENCIES = 8  # a fingerprint holds the frequencies with u + v below this
FARTHEST = 0.35  # largest distance between candidates' fingerprints; a crop of 5 % is about 0.15 away
COPY = 0.075  # uncropped copies are at most 0.03 away; at most 0.07 for photographs of 64 pixels
NUM_NEIGHBOURS = 16  # candidates per picture
NUM_CROPPED = 4  # nearest candidates that are also compared at other scales and places
# Correlations of detail. On HAM10000 copies reach at least 0.85. Pictures of different lesions reach at most 0.55, or
# 0.6 at the best of many scales and places.
SAME = 0.6
SAME_CROPPED = 0.65
ENOUGH = 500  # candidates; few of so many are copies, so they show how similar different pictures are
# Where different pictures are similar, a pair must exceed the upper quartile of all candidates (0.17 on HAM10000, 0.32
# on photographs of blood cells) by a factor, up to a bound. Both are lower for a pair with near fingerprints.
ABOVE_OTHERS, ABOVE_OTHERS_NEAR = 2.6, 1.9
SURE, SURE_NEAR = 0.95, 0.85
SAME_SHAPE = 0.7  # least correlation of the grey pictures for a comparison at other scales and places
_SCALES = (0.9, 0.95, 1.0, 1.05, 1.11)
_BLUR = 1.5  # pixels; coarser structure is not detail
_MARGIN = 7  # pixels; excludes the corners, where the dark rim of a dermatoscope looks alike in all pictures
_PATCH = 30  # pixels; side of the patch to locate


@dataclass(frozen=True, eq=False)
class NearDuplicates:
    """Pairs of near-duplicates.

    Attributes:
        pairs: Rows, the lower first, each pair once, (M, 2).
        scores: The correlation of their detail, (M,).
        num_candidates: Number of pairs compared.
    """

    pairs: IntArray
    scores: Floats
    num_candidates: int


def fingerprints(pictures: Pictures) -> Floats:
    """Returns fingerprints that do not depend on orientation, brightness and contrast.

    Args:
        pictures: (N, S, S).

    Returns:
        (N, F); zeros for a picture of one colour.
    """
    prints = []
    for start in range(0, len(pictures), 1024):
        spectrum = np.abs(dctn(pictures[start : start + 1024].astype(np.float32), axes=(1, 2), norm="ortho"))
        spectrum[:, 0, 0] = 0  # the brightness
        contrast = np.sqrt((spectrum**2).sum(axis=(1, 2)))[:, None]
        across, down = np.triu_indices(NUM_FREQUENCIES)
        low = across + down < NUM_FREQUENCIES
        upper, lower = spectrum[:, across[low], down[low]], spectrum[:, down[low], across[low]]
        both = np.concatenate(
            [np.maximum(upper, lower), np.where(across[low] == down[low], 0, np.minimum(upper, lower))], 1
        )
        prints.append(both / np.maximum(contrast, PICTURE_SIDE))  # a contrast below one grey level is noise
    return np.concatenate(prints).astype(np.float32) if prints else np.zeros((0, 1), np.float32)


def find_alike(
    pictures: Pictures, rows: IntArray, progress: Callable[[int, int], None] | None = None
) -> NearDuplicates:
    """Finds the near-duplicates among `rows`.

    Each picture is compared with its 16 nearest neighbours only, so the work grows with N log N. If a picture has more
    copies, the pairs usually still connect all of them.

    Args:
        pictures: Small grey pictures, (N, 48, 48).
        rows: The pictures to compare, without the blank ones.
        progress: Called with the number of pictures done and the total.
    """
    # Only one of several equal pictures is compared, so that the others do not crowd out its further neighbours.
    flat = pictures[rows].reshape(len(rows), PICTURE_SIDE**2)
    _, first, member = np.unique(
        flat.view(np.dtype((np.void, PICTURE_SIDE**2))).ravel(), return_index=True, return_inverse=True
    )
    equal = np.flatnonzero(first[member] != np.arange(len(rows)))
    pairs = [(int(rows[first[member[row]]]), int(rows[row])) for row in equal]
    scores = [1.0] * len(pairs)
    kept = np.sort(rows[first])
    shown = pictures[kept]
    prints = fingerprints(shown)
    candidates, ranks = _candidates(prints)
    distances = np.linalg.norm(prints[candidates[:, 0]] - prints[candidates[:, 1]], axis=1)
    detail = _detail(shown)
    correlations = _compare(shown, detail, candidates, ranks, distances <= COPY, progress)
    pairs += [(int(kept[row]), int(kept[other])) for row, other in candidates[correlations > 0]]
    scores += correlations[correlations > 0].tolist()
    ordered = np.sort(np.array(pairs, dtype=np.int64).reshape(-1, 2), axis=1)
    return NearDuplicates(ordered, np.array(scores, np.float32), len(candidates) + len(equal))


def _candidates(prints: Floats) -> tuple[IntArray, IntArray]:
    """Returns sorted pairs of neighbours, the lower row first, and the rank of each pair among the neighbours."""
    if len(prints) < 2:
        return np.zeros((0, 2), np.int64), np.zeros(0, np.int64)
    num = min(NUM_NEIGHBOURS + 1, len(prints))
    _, neighbours = cKDTree(prints).query(prints, k=num, distance_upper_bound=FARTHEST, workers=-1)
    row = np.repeat(np.arange(len(prints)), num)
    rank = np.tile(np.arange(num), len(prints))  # rank 0 is the row itself, unless another row has distance zero
    other = neighbours.ravel()
    real = (other < len(prints)) & (other != row)
    ends = np.sort(np.stack([row[real], other[real]], axis=1), axis=1)
    order = np.lexsort((rank[real], ends[:, 1], ends[:, 0]))
    pairs, first = np.unique(ends[order], axis=0, return_index=True)
    return pairs.astype(np.int64), rank[real][order][first].astype(np.int64)


def _detail(pictures: Pictures) -> npt.NDArray[np.int8]:
    """Returns the pictures without coarse shapes, scaled so that faint and strong texture count alike."""
    detail = np.empty(pictures.shape, dtype=np.int8)  # a quarter of the memory, and precise enough
    for row, picture in enumerate(pictures):
        grey = picture.astype(np.float32)
        mean = cv2.GaussianBlur(grey, (0, 0), _BLUR)
        deviation = np.sqrt(np.maximum(cv2.GaussianBlur(grey * grey, (0, 0), _BLUR) - mean * mean, 0))
        detail[row] = np.clip(np.rint(32 * (grey - mean) / (deviation + 2)), -127, 127)  # 2: about the noise of JPEG
    return detail


def eight_orientations(picture: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
    """Returns the eight rotations and reflections of a square picture, (8, S, S)."""
    rotated = [np.rot90(picture, times) for times in range(4)]
    return np.stack(rotated + [np.fliplr(rotation) for rotation in rotated])


def _unit(pictures: npt.NDArray[np.generic]) -> Floats:
    """Returns flat pictures with mean 0 and length 1, (N, pixels). Their products are correlations."""
    flat = pictures.reshape(len(pictures), -1).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    flat /= np.maximum(np.sqrt((flat**2).sum(axis=1, keepdims=True)), 1e-6)
    return flat


def _compare(
    pictures: Pictures,
    detail: npt.NDArray[np.int8],
    candidates: IntArray,
    ranks: IntArray,
    near: npt.NDArray[np.bool_],
    progress: Callable[[int, int], None] | None,
) -> Floats:
    """Returns the correlation of detail of each near-duplicate candidate, 0 for all other candidates.

    Args:
        pictures: (N, 48, 48).
        detail: (N, 48, 48).
        candidates: Sorted pairs of indices into these, (M, 2).
        ranks: The rank of each pair among the neighbours, from 1, (M,).
        near: Whether the fingerprints of each pair are as near as those of uncropped copies, (M,).
        progress: As in `find_alike`.
    """
    scores = np.zeros(len(candidates), dtype=np.float32)
    inner = slice(_MARGIN, -_MARGIN)
    starts = np.searchsorted(candidates[:, 0], np.arange(len(pictures) + 1))
    for row in range(len(pictures)):
        pairs = slice(starts[row], starts[row + 1])
        others = candidates[pairs, 1]
        if len(others):
            oriented = _unit(eight_orientations(detail[row])[:, inner, inner])
            scores[pairs] = (oriented @ _unit(detail[others, inner, inner]).T).max(axis=0)
    # Different objects of one shape, such as blood cells, have similar detail too. So the threshold rises, and most for
    # pairs whose shapes agree less than those of uncropped copies.
    usual = float(np.quantile(scores, 0.75)) if len(scores) >= ENOUGH else 0.0
    least = np.clip(usual * np.where(near, ABOVE_OTHERS_NEAR, ABOVE_OTHERS), SAME, np.where(near, SURE_NEAR, SURE))
    tried = np.flatnonzero((scores < least) & (ranks <= NUM_CROPPED))
    scores[scores < least] = 0
    rows, first = np.unique(candidates[tried, 0], return_index=True)
    for row, tried_of_row in zip(rows.tolist(), np.split(tried, first)[1:], strict=True):
        shapes = _unit(eight_orientations(pictures[row])) @ _unit(pictures[candidates[tried_of_row, 1]]).T
        oriented = eight_orientations(detail[row])
        for pair, shape in zip(tried_of_row.tolist(), shapes.T, strict=True):
            if shape.max() >= SAME_SHAPE:
                score = _best_place(oriented[shape.argmax()], detail[candidates[pair, 1]])
                scores[pair] = score if score >= max(least[pair], SAME_CROPPED) else 0
        if progress is not None:
            progress(row + 1, len(pictures))
    if progress is not None:
        progress(len(pictures), len(pictures))
    return scores


def _best_place(detail: npt.NDArray[np.int8], other: npt.NDArray[np.int8]) -> float:
    """Returns the best correlation of the middle of `detail` with any place in `other`, at several scales."""
    middle, place = detail.astype(np.float32), other[4:-4, 4:-4].astype(np.float32)
    best = -1.0
    for scale in _SCALES:
        side = round(PICTURE_SIDE * scale)
        start = (side - _PATCH) // 2
        patch = cv2.resize(middle, (side, side))[start : start + _PATCH, start : start + _PATCH]
        best = max(best, float(cv2.matchTemplate(place, np.ascontiguousarray(patch), cv2.TM_CCOEFF_NORMED).max()))
    return best
