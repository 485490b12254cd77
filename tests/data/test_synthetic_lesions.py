from dataclasses import replace

import numpy as np
import pytest

from raysk.data.synthetic_lesions import Lesion, Traits, draw_lesion, photograph

PLAIN = Traits(
    colour=(160.0, 100.0, 80.0),
    radius=0.5,
    irregularity=0.05,
    softness=0.2,
    asymmetry=0.0,
    variegation=0.0,
    veil=0.0,
    network=0.0,
    pallor=0.0,
    dots=0.0,
    milia=0.0,
    scales=0.0,
    vessels=0.0,
    nests=0.0,
    lagoons=0.0,
)


def draw(**traits: float) -> Lesion:
    return draw_lesion(replace(PLAIN, **traits), 64, np.random.default_rng(3))


def inside(lesion: Lesion) -> np.ndarray:
    return lesion.colour[:, lesion.opacity > 0.9]


def test_colours_and_opacity_are_within_their_ranges() -> None:
    lesion = draw(variegation=1.0, veil=1.5, network=1.5, dots=9, asymmetry=0.9)
    assert lesion.colour.shape == (3, 128, 128) and lesion.colour.dtype == np.float32
    assert lesion.colour.min() >= 0 and lesion.colour.max() <= 255
    assert lesion.opacity.min() >= 0 and lesion.opacity.max() <= 1


def test_the_area_grows_with_the_radius() -> None:
    areas = [float((draw(radius=radius).opacity > 0.5).mean()) for radius in (0.3, 0.5, 0.7)]
    np.testing.assert_allclose(areas, np.pi / 4 * np.array([0.3, 0.5, 0.7]) ** 2, rtol=0.25)


@pytest.mark.parametrize(
    ("trait", "amount", "channel", "sign"),
    [
        ("dots", 20, 0, -1),
        ("network", 1.0, 0, -1),
        ("lagoons", 8, 1, -1),
        ("nests", 6, 0, -1),
        ("milia", 20, 2, 1),
        ("scales", 1.0, 2, 1),
        ("pallor", 1.0, 2, 1),
        ("veil", 1.0, 2, 1),
    ],
)
def test_each_trait_shows_in_its_colour(trait: str, amount: float, channel: int, sign: int) -> None:
    # An absent structure draws no random numbers for its place, so that everything drawn before it stays the same.
    change = inside(draw(**{trait: amount}))[channel].mean() - inside(draw())[channel].mean()
    assert sign * change > 1


def test_photographs_show_one_lesion_differently() -> None:
    lesion = draw(lagoons=6)
    rng = np.random.default_rng(0)
    shots = [photograph(lesion, 64, rng) for _ in range(6)]
    assert all(image.shape == (64, 64, 3) and image.dtype == np.uint8 for image, _ in shots)
    assert all(mask.shape == (64, 64) and set(np.unique(mask).tolist()) == {0, 255} for _, mask in shots)
    assert len({image.tobytes() for image, _ in shots}) == 6
    areas = [(mask > 0).mean() for _, mask in shots]
    assert 1.05 < max(areas) / min(areas) < (1.3 / 0.85) ** 2 + 0.1  # distance changes the size
