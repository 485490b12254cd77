"""Fingerprints of pictures, whose neighbours are the candidates for near-duplicates.

The size of a frequency in a Fourier spectrum does not depend on where things are; the window lets the border fade, so
that a narrow crop changes little. Turning or mirroring a picture only exchanges (u, v), (-u, v), (v, u) and (-v, u):
the four, sorted by size, are the same in all eight orientations. A k-d tree finds neighbouring fingerprints, also those
of the picture's middle, which a cropped copy shows enlarged. The fingerprint is our choice.
"""

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from raysk.data.audit.scanning import PICTURE_SIDE, Pictures
from raysk.data.manifest import IntArray

Floats = npt.NDArray[np.float32]

NUM_FREQUENCIES = 6  # a fingerprint holds the frequencies with u + v below this
FARTHEST = 0.2  # largest distance between candidates; 1 of 100 crops of 5 to 10 % is farther away
MIDDLE = 0.93  # side of the middle, as a share of the picture's
NUM_NEIGHBOURS = 16  # candidates per picture
NUM_OF_MIDDLE = 4  # candidates per middle
_WINDOW = np.outer(*2 * [np.sin(np.pi * (np.arange(PICTURE_SIDE) + 0.5) / PICTURE_SIDE) ** 2]).astype(np.float32)


class Candidates(NamedTuple):
    """Pairs of pictures with neighbouring fingerprints.

    Attributes:
        pairs: Rows, the lower first, each pair once, sorted, (M, 2).
        distances: The distance of each pair's fingerprints, the smallest of those with a middle, (M,).
        ranks: The smallest rank of each pair among the neighbours of a picture, from 1, (M,).
    """

    pairs: IntArray
    distances: Floats
    ranks: IntArray


def fingerprints(pictures: Pictures) -> Floats:
    """Returns fingerprints that do not depend on orientation, brightness and contrast.

    Args:
        pictures: (N, S, S).

    Returns:
        (N, F); zeros for a picture of one colour.
    """
    frequencies = [(u, v) for u in range(NUM_FREQUENCIES) for v in range(u, NUM_FREQUENCIES - u) if v]
    u, v = np.array(frequencies).T
    prints = []
    for start in range(0, len(pictures), 1024):
        grey = pictures[start : start + 1024].astype(np.float32)
        brightness = (grey * _WINDOW).sum(axis=(1, 2), keepdims=True) / _WINDOW.sum()
        shown = (grey - brightness) * _WINDOW
        spectrum = np.abs(np.fft.fft2(shown, norm="ortho"))
        sizes = np.sort(np.stack([spectrum[:, u, v], spectrum[:, -u, v], spectrum[:, v, u], spectrum[:, -v, u]], -1))
        contrast = np.sqrt((shown**2).sum(axis=(1, 2)))[:, None]
        # A contrast below one grey level is noise. The root lets weak frequencies count beside strong ones.
        prints.append(np.sqrt(sizes.reshape(len(grey), -1) / np.maximum(contrast, PICTURE_SIDE / 2)))
    return np.concatenate(prints).astype(np.float32) if prints else np.zeros((0, 1), np.float32)


def find_candidates(pictures: Pictures) -> Candidates:
    """Returns the pairs of neighbours among pictures, (N, S, S); the work grows with N log N."""
    prints, middles = fingerprints(pictures), fingerprints(_middles(pictures))
    tree = cKDTree(prints)
    found = [_neighbours(tree, prints, NUM_NEIGHBOURS), _neighbours(tree, middles, NUM_OF_MIDDLE)]
    ends = np.concatenate([candidates.pairs for candidates in found])
    distances = np.concatenate([candidates.distances for candidates in found])
    ranks = np.concatenate([candidates.ranks for candidates in found])
    pairs, pair = np.unique(ends, axis=0, return_inverse=True)
    nearest, first = np.full(len(pairs), np.inf, np.float32), np.full(len(pairs), len(prints))
    np.minimum.at(nearest, pair.ravel(), distances)
    np.minimum.at(first, pair.ravel(), ranks)
    return Candidates(pairs, nearest, first)


def _neighbours(tree: cKDTree, prints: Floats, most: int) -> Candidates:
    """Returns the neighbours of each fingerprint in the tree of all pictures; a pair may be there twice."""
    num = min(most + 1, tree.n)  # the nearest fingerprint is that of the picture itself
    distances, neighbours = tree.query(prints, k=np.arange(1, num + 1), distance_upper_bound=FARTHEST, workers=-1)
    row, rank = np.repeat(np.arange(tree.n), num), np.tile(np.arange(num), tree.n)
    other = neighbours.ravel()
    real = (other < tree.n) & (other != row)  # without a neighbour, the tree answers n
    ends = np.sort(np.stack([row[real], other[real]], axis=1), axis=1)
    return Candidates(ends, distances.ravel()[real].astype(np.float32), np.maximum(rank[real], 1))


def _middles(pictures: Pictures) -> Pictures:
    """Returns the middle of each picture, enlarged to the size of the picture."""
    corner = (PICTURE_SIDE - 1) / 2 * (1 - MIDDLE)
    enlarge = np.array([[MIDDLE, 0, corner], [0, MIDDLE, corner]])
    middles = np.empty_like(pictures)
    for row, picture in enumerate(pictures):
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        middles[row] = cv2.warpAffine(picture, enlarge, (PICTURE_SIDE, PICTURE_SIDE), flags=flags)
    return middles
