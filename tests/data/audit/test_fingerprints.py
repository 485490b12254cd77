import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from raysk.data.audit.fingerprints import FARTHEST, find_candidates, fingerprints
from raysk.data.audit.near_duplicates import eight_orientations
from raysk.data.audit.scanning import PICTURE_SIDE


def texture(seed: int, side: int = PICTURE_SIDE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (side, side), dtype=np.uint8)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 7), st.integers(1, 60))
def test_a_fingerprint_ignores_orientation_brightness_and_contrast(seed: int, way: int, offset: int) -> None:
    picture = np.random.default_rng(seed).integers(0, 120, (PICTURE_SIDE, PICTURE_SIDE), dtype=np.uint8)
    turned = eight_orientations(picture)[way]
    prints = fingerprints(np.stack([picture, turned, picture + np.uint8(offset), picture * np.uint8(2)]))
    np.testing.assert_allclose(prints, np.broadcast_to(prints[0], prints.shape), atol=1e-5)


def test_fingerprints_of_different_pictures_differ() -> None:
    prints = fingerprints(np.stack([texture(seed) for seed in range(20)]))
    apart = np.linalg.norm(prints[:, None] - prints[None], axis=2)[~np.eye(20, dtype=bool)]
    assert np.median(apart) > FARTHEST


def test_no_pictures_have_no_fingerprints() -> None:
    assert len(fingerprints(np.zeros((0, PICTURE_SIDE, PICTURE_SIDE), np.uint8))) == 0


def test_candidates_are_each_there_once_with_their_nearest_distance_and_first_rank() -> None:
    pictures = np.stack([texture(seed) for seed in range(8)] + [np.fliplr(texture(3)), texture(5) // 2])
    candidates = find_candidates(pictures)
    pairs = [tuple(pair) for pair in candidates.pairs.tolist()]
    assert pairs == sorted(set(pairs)) and {(3, 8), (5, 9)} <= set(pairs)
    assert all(row < other for row, other in pairs)
    prints = fingerprints(pictures)
    for pair in ((3, 8), (5, 9)):
        place = pairs.index(pair)
        assert candidates.ranks[place] == 1
        np.testing.assert_allclose(
            candidates.distances[place], np.linalg.norm(prints[pair[0]] - prints[pair[1]]), atol=1e-5
        )
