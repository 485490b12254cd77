"""Finds near-duplicates: pictures that differ only in encoding, light, orientation, size or a narrow crop.

Neighbouring fingerprints are the candidates. The fine detail of the two pictures then confirms a candidate: fine detail
differs between any two photographs, but large shapes, such as a dark blot on bright skin, do not. How much a
correlation of detail proves depends on how much detail there is: two smooth pictures correlate by chance. So the proof
is counted in standard deviations of the correlation between independent pictures of this texture. A picture that is
mostly flat proves nothing but its outline; such a pair must have the same grey levels at the same places.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from raysk.data.audit.fingerprints import Candidates, Floats, find_candidates
from raysk.data.audit.scanning import PICTURE_SIDE, Pictures
from raysk.data.manifest import IntArray

Scalar = TypeVar("Scalar", bound=np.generic)

# Least correlation of detail, and least proof, in standard deviations. On HAM10000 all copies with a crop of 3 % reach
# both. Of 16,628 neighbouring pairs of different lesions two do, and these two may be one lesion.
SAME = 0.65
PROOF = 5.0
# Objects of one shape, such as blood cells, have similar detail too. There a pair needs this many times the median
# proof of pairs that are too far apart for most copies (2.4 on HAM10000, 4.8 on photographs of blood cells).
ABOVE_OTHERS = 1.85
OTHERS = 0.13  # least distance between the fingerprints of such pairs
ENOUGH, MOST = 100, 1000  # pairs for this median
FLAT = 1 / 3  # share of flat pixels from which on a picture proves only its outline; 99 of 100 photographs have 0.23
# Without that proof, a pair must have this correlation of detail at the same places, and the same grey levels there:
# they may differ in this share of their variance.
SAME_DETAIL = 0.8
LEVELS = 5e-3
NUM_TRIED = 3  # nearest candidates of a picture that are also compared at other scales and places
SAME_SHAPE = 0.7  # least correlation of the grey pictures for that
_SCALES = (0.9, 0.95, 1.0, 1.05, 1.11)
_BLUR = 1.5  # pixels; coarser structure is not detail
_MARGIN = 4  # pixels; excludes the rim, where the dark corners of a dermatoscope look alike in all pictures
_PATCH = 30  # pixels; side of the patch to compare, and to locate in the other picture
_INNER = slice((PICTURE_SIDE - _PATCH) // 2, (PICTURE_SIDE + _PATCH) // 2)


@dataclass(frozen=True, eq=False)
class NearDuplicates:
    """Pairs of near-duplicates.

    Attributes:
        pairs: Rows, the lower first, each pair once, (M, 2).
        num_candidates: Number of pairs compared.
    """

    pairs: IntArray
    num_candidates: int


class _Detail(NamedTuple):
    """The fine detail of N pictures.

    Attributes:
        detail: The pictures without coarse shapes, scaled so that faint and strong texture count alike, (N, S, S).
        flat: Whether each picture is mostly flat, (N,).
    """

    detail: npt.NDArray[np.int8]
    flat: npt.NDArray[np.bool_]


def find_alike(
    pictures: Pictures, rows: IntArray, progress: Callable[[int, int], None] | None = None
) -> NearDuplicates:
    """Finds the near-duplicates among `rows`.

    Each picture is compared with its nearest neighbours only, so the work grows with N log N. If a picture has more
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
    kept = np.sort(rows[first])
    num_candidates = len(equal)
    if len(kept) > 1:
        candidates = find_candidates(pictures[kept])
        num_candidates += len(candidates.pairs)
        pairs += [(int(kept[row]), int(kept[other])) for row, other in _confirmed(pictures[kept], candidates, progress)]
    return NearDuplicates(np.sort(np.array(pairs, dtype=np.int64).reshape(-1, 2), axis=1), num_candidates)


def _confirmed(
    pictures: Pictures, candidates: Candidates, progress: Callable[[int, int], None] | None
) -> list[tuple[int, int]]:
    """Returns the candidates that are near-duplicates.

    Args:
        pictures: (N, 48, 48).
        candidates: Pairs of indices into these.
        progress: As in `find_alike`.
    """
    detail, flat = _detail(pictures)
    least = max(PROOF, ABOVE_OTHERS * _usual_proof(pictures, detail, candidates))
    pairs = []
    starts = np.searchsorted(candidates.pairs[:, 0], np.arange(len(pictures) + 1))
    for row in range(len(pictures)):
        of_row = slice(starts[row], starts[row + 1])
        others, tried = candidates.pairs[of_row, 1], candidates.ranks[of_row] <= NUM_TRIED
        if len(others):
            grey, oriented = eight_orientations(pictures[row]), eight_orientations(detail[row])
            shapes = _unit(grey) @ _unit(pictures[others]).T
            correlations = _unit(oriented[:, _INNER, _INNER]) @ _unit(detail[others, _INNER, _INNER]).T
            for place, other in enumerate(others.tolist()):
                turn, shape = shapes[:, place].argmax(), shapes[:, place].max()
                in_place, correlation = correlations[:, place].argmax(), correlations[:, place].max()
                alike = correlation >= SAME_DETAIL and _same_levels(grey[in_place], pictures[other])
                if not alike and not flat[row] and not flat[other]:
                    if correlation >= SAME:
                        alike = _proof(oriented[in_place, _INNER, _INNER], detail[other, _INNER, _INNER]) >= least
                    if not alike and tried[place] and shape >= SAME_SHAPE:
                        alike = _proof(*_best_place(oriented[turn], detail[other])) >= least
                if alike:
                    pairs.append((row, other))
        if progress is not None:
            progress(row + 1, len(pictures))
    return pairs


def _usual_proof(pictures: Pictures, detail: npt.NDArray[np.int8], candidates: Candidates) -> float:
    """Returns the median proof of candidates of which most are no copies, 0 if there are only few of them."""
    others = candidates.pairs[candidates.distances > OTHERS]
    if len(others) < ENOUGH:
        return 0.0
    proofs = []
    for row, other in others[:: -(-len(others) // MOST)].tolist():
        turn = (_unit(eight_orientations(pictures[row])) @ _unit(pictures[other][None]).T).argmax()
        patches = _best_place(eight_orientations(detail[row])[turn], detail[other])
        proofs.append(_proof(*patches, least=0.0))
    return float(np.median(proofs))


def _detail(pictures: Pictures) -> _Detail:
    detail = np.empty(pictures.shape, dtype=np.int8)  # a quarter of the memory, and precise enough
    flat = np.empty(len(pictures), dtype=np.bool_)
    inner = slice(_MARGIN, -_MARGIN)
    for row, picture in enumerate(pictures):
        grey = picture.astype(np.float32)
        mean = cv2.GaussianBlur(grey, (0, 0), _BLUR)
        deviation = np.sqrt(np.maximum(cv2.GaussianBlur(grey * grey, (0, 0), _BLUR) - mean * mean, 0))
        detail[row] = np.clip(np.rint(32 * (grey - mean) / (deviation + 2)), -127, 127)  # 2: about the noise of JPEG
        flat[row] = (deviation[inner, inner] < 1).mean() >= FLAT  # grey levels
    return _Detail(detail, flat)


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


def _same_levels(picture: Pictures, other: Pictures) -> bool:
    """Returns whether two pictures have the same grey levels at the same places, up to a change of light.

    The change of light is a parabola, which gamma, brightness and contrast fit.
    """
    levels, target = picture.ravel() / 255.0, other.ravel() / 255.0
    curve = np.stack([np.ones_like(levels), levels, levels**2], axis=1)
    fitted = curve @ np.linalg.lstsq(curve, target, rcond=None)[0]
    return bool(((target - fitted) ** 2).mean() <= LEVELS * target.var())


def _proof(detail: npt.NDArray[np.generic], other: npt.NDArray[np.generic], least: float = SAME) -> float:
    """Returns how many standard deviations of chance the correlation of two patches is; 0 if it is below `least`.

    The correlation of independent patches has the variance 1 / n. For white noise, n is the number of pixels; for
    smooth texture it is the inverse of the product of the two normalised power spectra (Dutilleul, Biometrics 1993),
    and it is smaller again by the share of the patch in which both have their detail. Fisher's transform makes the
    correlation normal.
    """
    first, second = (patch.astype(np.float32) - np.float32(patch.mean()) for patch in (detail, other))
    correlation = float((first * second).sum() / max(np.sqrt((first**2).sum() * (second**2).sum()), 1e-6))
    if correlation < least:
        return 0.0
    spectra = [np.abs(np.fft.rfft2(patch)) ** 2 for patch in (first, second)]
    places = [cv2.GaussianBlur(patch * patch, (0, 0), 2) for patch in (first, second)]
    freedom = _overlap(spectra) * _overlap(places) / first.size
    return float(np.arctanh(min(correlation, 0.999)) * np.sqrt(freedom))


def _overlap(densities: list[npt.NDArray[Any]]) -> float:
    """Returns the effective number of bins that two densities share; all, if both are uniform."""
    first, second = densities
    return float(first.sum() * second.sum() / max((first * second).sum(), 1e-6))


def _best_place(detail: npt.NDArray[np.int8], other: npt.NDArray[np.int8]) -> tuple[Floats, Floats]:
    """Returns the middle of `detail` and the place in `other` with the best correlation, at the best of some scales."""
    middle = detail.astype(np.float32)
    searched = other[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN].astype(np.float32)
    best: tuple[float, Floats, Floats] = (-2.0, middle, middle)
    for scale in _SCALES:
        side = round(PICTURE_SIDE * scale)
        start = (side - _PATCH) // 2
        scaled = cv2.resize(middle, (side, side))[start : start + _PATCH, start : start + _PATCH]
        patch = np.ascontiguousarray(scaled, np.float32)
        _, score, _, (x, y) = cv2.minMaxLoc(cv2.matchTemplate(searched, patch, cv2.TM_CCOEFF_NORMED))
        if score > best[0]:
            best = (score, patch, searched[y : y + _PATCH, x : x + _PATCH])
    return best[1], best[2]
