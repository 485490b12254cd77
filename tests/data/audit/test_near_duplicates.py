import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageOps

from raysk.data.audit.near_duplicates import eight_orientations, find_alike
from raysk.data.audit.scanning import small_picture
from raysk.data.synthetic import make_synthetic


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


def relit(image: Image.Image, gamma: float, gain: float) -> Image.Image:
    return image.point(lambda value: int(min(255.0, 255 * gain * (value / 255) ** gamma)))


def disc(radius: tuple[float, float], centre: tuple[float, float] = (80, 60), ink: int = 90) -> Image.Image:
    image = Image.new("RGB", (160, 120), (222, 190, 180))
    (across, down), (x, y) = radius, centre
    ImageDraw.Draw(image).ellipse((x - across, y - down, x + across, y + down), fill=(ink, ink // 2, ink // 2))
    return image


def blob(seed: int) -> Image.Image:
    """A smooth cloud of random colours, as a careless test picture is."""
    colours = np.random.default_rng(seed).integers(0, 255, (4, 4, 3), dtype=np.uint8)
    return encoded(Image.fromarray(colours).resize((160, 120), Image.Resampling.BICUBIC))


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
    assert duplicates.pairs.tolist() == [[0, 2]]


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


def test_the_eight_orientations_are_different() -> None:
    picture = np.arange(16, dtype=np.uint8).reshape(4, 4)
    orientations = {turned.tobytes() for turned in eight_orientations(picture)}
    transposed = [turned.T.copy() for turned in eight_orientations(picture)]
    assert len(orientations) == 8 and {turned.tobytes() for turned in transposed} == orientations


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


def test_a_plain_disc_is_no_ellipse_and_no_other_disc() -> None:
    discs = [encoded(disc((30 + step, 30 + step))) for step in range(-12, 13, 3)]
    ellipses = [encoded(disc((30 + step, 27 + step), (82, 58))) for step in range(-12, 13, 3)]
    assert alike(discs + ellipses) == set()


def test_the_same_plain_disc_in_other_light_is_a_copy() -> None:
    assert alike([encoded(disc((30, 30))), encoded(disc((24, 30))), encoded(relit(disc((30, 30)), 1.2, 0.9))]) == {
        (0, 2)
    }


def test_random_colour_blobs_are_different_but_their_copies_are_found() -> None:
    blobs = [blob(seed) for seed in range(120)]
    copies = [encoded(ImageOps.mirror(relit(blobs[seed], 0.9, 0.95)), 90) for seed in range(0, 120, 12)]
    assert alike(blobs + copies) == {(12 * place, 120 + place) for place in range(10)}


def test_most_retaken_photographs_of_drawn_lesions_are_found_and_nothing_else(tmp_path: Path) -> None:
    make_synthetic(tmp_path / "drawn", num_images=300, size=96, seed=3)
    lesions = [Image.open(file).convert("RGB") for file in sorted((tmp_path / "drawn" / "images").iterdir())]
    random = np.random.default_rng(0)
    copies = []
    for lesion in lesions[:60]:
        side = round(96 * random.uniform(0.9, 0.97))
        left, top = random.integers(0, 97 - side, 2).tolist()
        crop = lesion.crop((left, top, left + side, top + side))
        copies.append(encoded(relit(crop, random.uniform(0.8, 1.25), random.uniform(0.9, 1.1)), 75))
    pairs = alike(lesions + copies)
    wanted = {(place, 300 + place) for place in range(60)}
    assert len(pairs & wanted) >= 54 and pairs <= wanted
