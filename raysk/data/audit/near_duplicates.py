"""Finding pictures that are the same but for their encoding, orientation, size or a narrow crop.

The low frequencies of a picture's cosine transform only change sign when it is mirrored, and change places when it is
transposed. So their absolute values, each pair (u, v) and (v, u) in order of size, are the same in all eight
orientations: a fingerprint that needs no search over them. Neighbours among fingerprints, found with a k-d tree, are
candidates; a candidate is confirmed on the fine detail of the two pictures, which differs between any two
photographs, whereas large shapes, such as a dark blot on bright skin, do not. The fingerprint is our choice.
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

NUM_FREQUENCIES = 8  # fingerprints hold those with u + v below
FARTHEST = 0.35  # between the fingerprints of candidates; one cropped by 5 % is about 0.15 away
COPY = 0.075  # copies that are not cropped are at most 0.03 away, of photographs of 64 pixels at most 0.07
NUM_NEIGHBOURS = 16  # candidates of a picture
NUM_CROPPED = 4  # of them, those which are also tried at other scales and places
# Correlations of detail. On HAM10000 copies reach at least 0.85, and pictures of different lesions at most 0.55, or
# 0.6 at the best of many scales and places.
SAME = 0.6
SAME_CROPPED = 0.65
ENOUGH = 500  # candidates, of which few are copies, to tell how alike the others are
# Where they are much alike, a pair must reach so many times what three in four candidates do (0.17 on HAM10000, 0.32
# on photographs of blood cells), up to a bound: fewer times when its fingerprints are near, too.
ABOVE_OTHERS, ABOVE_OTHERS_NEAR = 2.6, 1.9
SURE, SURE_NEAR = 0.95, 0.85
SAME_SHAPE = 0.7  # of the grey pictures, before other scales and places are tried
_SCALES = (0.9, 0.95, 1.0, 1.05, 1.11)
_BLUR = 1.5  # pixels; what is coarser is no detail
_MARGIN = 7  # pixels; the corners, where the dark rim of a dermatoscope looks alike in all pictures, are left out
_PATCH = 30  # pixels of the patch that is looked for


@dataclass(frozen=True, eq=False)
class NearDuplicates:
    """Pairs of pictures that are the same.

    Attributes:
        pairs: Rows, the lower first, each pair once, (M, 2).
        scores: The correlation of their detail, (M,).
        num_candidates: How many pairs were compared.
    """

    pairs: IntArray
    scores: Floats
    num_candidates: int


def fingerprints(pictures: Pictures) -> Floats:
    """Returns what is the same of a picture in its eight orientations, and at any brightness and contrast.

    Args:
        pictures: (N, S, S).

    Returns:
        (N, F); a picture of one colour has zeros.
    """
    found = []
    for start in range(0, len(pictures), 1024):
        spectrum = np.abs(dctn(pictures[start : start + 1024].astype(np.float32), axes=(1, 2), norm="ortho"))
        spectrum[:, 0, 0] = 0  # the brightness
        contrast = np.sqrt((spectrum**2).sum(axis=(1, 2)))[:, None]
        across, down = np.triu_indices(NUM_FREQUENCIES)
        low = across + down < NUM_FREQUENCIES
        one, other = spectrum[:, across[low], down[low]], spectrum[:, down[low], across[low]]
        both = np.concatenate(
            [np.maximum(one, other), np.where(across[low] == down[low], 0, np.minimum(one, other))], 1
        )
        found.append(both / np.maximum(contrast, PICTURE_SIDE))  # a contrast below one grey level is noise
    return np.concatenate(found).astype(np.float32) if found else np.zeros((0, 1), np.float32)


def find_alike(
    pictures: Pictures, rows: IntArray, progress: Callable[[int, int], None] | None = None
) -> NearDuplicates:
    """Finds the pairs among `rows` that show the same.

    A picture is compared with its 16 nearest only, so that the work grows with N log N; of a picture with more copies,
    the pairs still connect all of them as a rule.

    Args:
        pictures: Small grey pictures, (N, 48, 48).
        rows: Which of them to compare: not those that show nothing.
        progress: Called with the numbers of pictures done and in all.
    """
    # Of equal pictures one is compared, lest they crowd out its other neighbours.
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
    apart = np.linalg.norm(prints[candidates[:, 0]] - prints[candidates[:, 1]], axis=1)
    detail = _detail(shown)
    found = _compare(shown, detail, candidates, ranks, apart <= COPY, progress)
    pairs += [(int(kept[one]), int(kept[other])) for one, other in candidates[found > 0]]
    scores += found[found > 0].tolist()
    ordered = np.sort(np.array(pairs, dtype=np.int64).reshape(-1, 2), axis=1)
    return NearDuplicates(ordered, np.array(scores, np.float32), len(candidates) + len(equal))


def _candidates(prints: Floats) -> tuple[IntArray, IntArray]:
    """Returns pairs of neighbours, the lower row first and in order of rows, and how near in rank they are."""
    if len(prints) < 2:
        return np.zeros((0, 2), np.int64), np.zeros(0, np.int64)
    num = min(NUM_NEIGHBOURS + 1, len(prints))
    _, near = cKDTree(prints).query(prints, k=num, distance_upper_bound=FARTHEST, workers=-1)
    one = np.repeat(np.arange(len(prints)), num)
    rank = np.tile(np.arange(num), len(prints))  # rank 0 is the row itself, unless another lies at no distance
    other = near.ravel()
    real = (other < len(prints)) & (other != one)
    ends = np.sort(np.stack([one[real], other[real]], axis=1), axis=1)
    order = np.lexsort((rank[real], ends[:, 1], ends[:, 0]))
    pairs, first = np.unique(ends[order], axis=0, return_index=True)
    return pairs.astype(np.int64), rank[real][order][first].astype(np.int64)


def _detail(pictures: Pictures) -> npt.NDArray[np.int8]:
    """Returns what remains without the coarse shapes, scaled so that faint texture counts as much as strong."""
    found = np.empty(pictures.shape, dtype=np.int8)  # a quarter of the memory, and precise enough
    for row, picture in enumerate(pictures):
        grey = picture.astype(np.float32)
        mean = cv2.GaussianBlur(grey, (0, 0), _BLUR)
        deviation = np.sqrt(np.maximum(cv2.GaussianBlur(grey * grey, (0, 0), _BLUR) - mean * mean, 0))
        found[row] = np.clip(np.rint(32 * (grey - mean) / (deviation + 2)), -127, 127)  # 2: about the noise of JPEG
    return found


def eight_orientations(picture: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
    """Returns a square picture turned and mirrored in all eight ways, (8, S, S)."""
    turned = [np.rot90(picture, times) for times in range(4)]
    return np.stack(turned + [np.fliplr(one) for one in turned])


def _unit(pictures: npt.NDArray[np.generic]) -> Floats:
    """Returns flat pictures of mean 0 and length 1, (N, pixels), whose products are correlations."""
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
    """Returns the correlation of detail of each pair of candidates that show the same, 0 for the others.

    Args:
        pictures: (N, 48, 48).
        detail: (N, 48, 48).
        candidates: Pairs of places in these, in order, (M, 2).
        ranks: How near of each pair one is among the neighbours of the other, from 1, (M,).
        near: Whether the fingerprints of each pair are as near as those of plain copies, (M,).
        progress: As in `find_alike`.
    """
    scores = np.zeros(len(candidates), dtype=np.float32)
    inner = slice(_MARGIN, -_MARGIN)
    starts = np.searchsorted(candidates[:, 0], np.arange(len(pictures) + 1))
    for row in range(len(pictures)):
        own = slice(starts[row], starts[row + 1])
        others = candidates[own, 1]
        if len(others):
            oriented = _unit(eight_orientations(detail[row])[:, inner, inner])
            scores[own] = (oriented @ _unit(detail[others, inner, inner]).T).max(axis=0)
    # Things of one shape, such as blood cells, have alike detail too: then the shape must agree as in a plain copy.
    usual = float(np.quantile(scores, 0.75)) if len(scores) >= ENOUGH else 0.0
    least = np.clip(usual * np.where(near, ABOVE_OTHERS_NEAR, ABOVE_OTHERS), SAME, np.where(near, SURE_NEAR, SURE))
    tried = np.flatnonzero((scores < least) & (ranks <= NUM_CROPPED))
    scores[scores < least] = 0
    rows, first = np.unique(candidates[tried, 0], return_index=True)
    for row, own_tried in zip(rows.tolist(), np.split(tried, first)[1:], strict=True):
        shapes = _unit(eight_orientations(pictures[row])) @ _unit(pictures[candidates[own_tried, 1]]).T
        oriented = eight_orientations(detail[row])
        for pair, shape in zip(own_tried.tolist(), shapes.T, strict=True):
            if shape.max() >= SAME_SHAPE:
                score = _best_place(oriented[shape.argmax()], detail[candidates[pair, 1]])
                scores[pair] = score if score >= max(least[pair], SAME_CROPPED) else 0
        if progress is not None:
            progress(row + 1, len(pictures))
    if progress is not None:
        progress(len(pictures), len(pictures))
    return scores


def _best_place(one: npt.NDArray[np.int8], other: npt.NDArray[np.int8]) -> float:
    """Returns the best correlation of the middle of one detail with any place of the other, at several scales."""
    middle, place = one.astype(np.float32), other[4:-4, 4:-4].astype(np.float32)
    best = -1.0
    for scale in _SCALES:
        side = round(PICTURE_SIDE * scale)
        start = (side - _PATCH) // 2
        patch = cv2.resize(middle, (side, side))[start : start + _PATCH, start : start + _PATCH]
        best = max(best, float(cv2.matchTemplate(place, np.ascontiguousarray(patch), cv2.TM_CCOEFF_NORMED).max()))
    return best
