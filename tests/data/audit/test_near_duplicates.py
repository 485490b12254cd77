import io
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from raysk.data.audit.near_duplicates import FARTHEST, eight_orientations, find_alike, fingerprints
from raysk.data.audit.scanning import PICTURE_SIDE, small_picture


def photograph(seed: int, width: int = 120, height: int = 90) -> Image.Image:
    """Skin with a blot and texture of all sizes: all pictures look similar, but no two are the same."""
    random = np.random.default_rng(seed)
    grey = np.zeros((height, width))
    for side in (4, 9, 20, 45):
        coarse = Image.fromarray(random.normal(0, 20, (side, side)).astype(np.float32))
        grey += np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))
    down, across = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    blot = 70 * np.exp(-4 * ((down - 0.1) ** 2 + across**2))
    return Image.fromarray(np.clip(170 - blot + grey, 0, 255).astype(np.uint8)).convert("RGB")


def encoded(image: Image.Image, quality: int = 70) -> Image.Image:
    content = io.BytesIO()
    image.save(content, "JPEG", quality=quality)
    return Image.open(content)


def pictures_of(images: list[Image.Image]) -> np.ndarray:
    return np.stack([small_picture(image) for image in images])


def alike(images: list[Image.Image]) -> set[tuple[int, int]]:
    duplicates = find_alike(pictures_of(images), np.arange(len(images)))
    return {(int(row), int(other)) for row, other in duplicates.pairs}


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "same": lambda image: image,
    "re-encoded": encoded,
    "mirrored": lambda image: encoded(ImageOps.mirror(image)),
    "upside down": lambda image: encoded(ImageOps.flip(image)),
    **{
        f"turned by {turn.name}": lambda image, turn=turn: encoded(image.transpose(turn))  # type: ignore[misc]
        for turn in Image.Transpose
    },
    "smaller": lambda image: encoded(image.resize((96, 72))),
    "larger": lambda image: encoded(image.resize((144, 108))),
    "brighter": lambda image: encoded(image.point(lambda value: int(value * 0.9 + 20))),
    "cropped": lambda image: encoded(image.crop((3, 1, 117, 87))),
}


@pytest.mark.parametrize("kind", COPIES)
def test_exactly_the_copies_are_found(kind: str) -> None:
    originals = [photograph(seed) for seed in range(40)]
    copies = [COPIES[kind](photograph(seed)) for seed in range(0, 40, 4)]
    wanted = {(place * 4, 40 + place) for place in range(10)}
    assert alike(originals + copies) == wanted


def test_different_photographs_are_not_duplicates() -> None:
    assert alike([photograph(seed) for seed in range(60)]) == set()


def test_only_the_given_rows_are_compared() -> None:
    pictures = pictures_of([photograph(0), photograph(0), photograph(0), photograph(1)])
    duplicates = find_alike(pictures, np.array([0, 2, 3]))
    assert duplicates.pairs.tolist() == [[0, 2]] and duplicates.scores.tolist() == [1.0]


@pytest.mark.parametrize("num", [0, 1])
def test_fewer_than_two_pictures_have_no_duplicates(num: int) -> None:
    assert find_alike(pictures_of([photograph(0)] * 2)[:num], np.arange(num)).pairs.shape == (0, 2)


def test_more_copies_than_neighbours_are_all_connected() -> None:
    copies = [encoded(photograph(0), quality) for quality in range(50, 95)]
    pairs = alike([*copies, photograph(1)])
    reached = {0}
    for _ in copies:
        reached |= {row for pair in pairs for row in pair if reached & set(pair)}
    assert reached == set(range(45))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 7), st.integers(1, 60))
def test_a_fingerprint_ignores_orientation_brightness_and_contrast(seed: int, way: int, offset: int) -> None:
    picture = np.random.default_rng(seed).integers(0, 120, (PICTURE_SIDE, PICTURE_SIDE), dtype=np.uint8)
    turned = eight_orientations(picture)[way]
    prints = fingerprints(np.stack([picture, turned, picture + np.uint8(offset), picture * np.uint8(2)]))
    np.testing.assert_allclose(prints, np.broadcast_to(prints[0], prints.shape), atol=1e-5)


def test_the_eight_orientations_are_different() -> None:
    picture = np.arange(16, dtype=np.uint8).reshape(4, 4)
    orientations = {turned.tobytes() for turned in eight_orientations(picture)}
    transposed = [turned.T.copy() for turned in eight_orientations(picture)]
    assert len(orientations) == 8 and {turned.tobytes() for turned in transposed} == orientations


def test_fingerprints_of_different_photographs_differ() -> None:
    prints = fingerprints(pictures_of([photograph(seed) for seed in range(20)]))
    apart = np.linalg.norm(prints[:, None] - prints[None], axis=2)[~np.eye(20, dtype=bool)]
    assert np.median(apart) > FARTHEST


def test_objects_of_one_shape_are_not_duplicates_but_their_copies_are() -> None:
    def cell(seed: int) -> Image.Image:
        random = np.random.default_rng(seed)
        down, across = np.mgrid[-1:1:64j, -1:1:64j]
        turn = random.uniform(0, np.pi)
        long = across * np.cos(turn) + down * np.sin(turn)
        short = down * np.cos(turn) - across * np.sin(turn)
        inside = (long / random.uniform(0.5, 0.7)) ** 2 + (short / random.uniform(0.4, 0.5)) ** 2 < 1
        stain = Image.fromarray(random.normal(0, 9, (24, 24)).astype(np.float32)).resize((64, 64))
        grey = 215 - inside * (60 + np.asarray(stain)) + random.normal(0, 2, inside.shape)
        return Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8)).convert("RGB")

    cells = [cell(seed) for seed in range(300)]
    copies = [encoded(ImageOps.mirror(cells[seed])) for seed in range(0, 300, 30)]
    pairs = alike(cells + copies)
    assert {(30 * place, 300 + place) for place in range(10)} <= pairs and len(pairs) <= 14
