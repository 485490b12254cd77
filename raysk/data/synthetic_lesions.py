"""Draws one skin lesion and photographs of it, as a dermatoscope would see them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating[Any]]  # single precision throughout, for speed
Pixels = npt.NDArray[np.uint8]

OVERSAMPLING = 2  # drawn at twice the size and then averaged, so that hairs and dots have smooth edges
BLACK_BROWN = (58, 34, 30)
TAN = (196, 146, 108)
RED = (182, 82, 78)
BLUE_GREY = (92, 92, 112)
BLUE_WHITE = (142, 144, 164)
WHITE = (236, 220, 214)
CREAM = (236, 214, 180)
DARK_RED = (112, 30, 54)
HAIR = (52, 38, 32)
GLARE = (250, 246, 242)


@dataclass(frozen=True)
class Traits:
    """The appearance of a lesion; amounts range from 0 to about 1, except for numbers of structures.

    Attributes:
        colour: Its base colour, RGB from 0 to 255.
        radius: Half its width, as a share of half the drawing.
        irregularity: How far its border departs from an ellipse.
        softness: The width of its border, as a share of half the drawing.
        asymmetry: How much darker one side is than the other.
        variegation: How much of it has other colours.
        veil: The strength of a blue-white veil.
        network: The strength of the pigment network, inside or, with a pale centre, around it.
        pallor: The strength of a pale centre.
        dots: The number of dark dots.
        milia: The number of small bright cysts.
        scales: The amount of whitish scale.
        vessels: The number of branching vessels.
        nests: The number of blue-grey ovoid nests.
        lagoons: The number of dark red lagoons.
    """

    colour: Sequence[float]
    radius: float
    irregularity: float
    softness: float
    asymmetry: float
    variegation: float
    veil: float
    network: float
    pallor: float
    dots: float
    milia: float
    scales: float
    vessels: float
    nests: float
    lagoons: float


@dataclass(frozen=True)
class Lesion:
    """A drawn lesion on a transparent background.

    Attributes:
        colour: RGB from 0 to 255, (3, S, S).
        opacity: How far it covers the skin, from 0 to 1, (S, S).
        skin: The colour of the skin around it, RGB from 0 to 255, (3, 1, 1).
    """

    colour: FloatArray
    opacity: FloatArray
    skin: FloatArray


def draw_lesion(traits: Traits, size: int, rng: np.random.Generator) -> Lesion:
    """Draws a lesion with these traits.

    Args:
        traits: Its appearance.
        size: Height and width of its photographs, in pixels.
        rng: Places its structures.
    """
    side = size * OVERSAMPLING
    axis = np.linspace(-1, 1, side, dtype=np.float32)
    x, y = np.meshgrid(axis, axis)
    opacity, depth = _outline(traits, x, y, rng)
    direction = rng.uniform(0, 2 * math.pi)
    shade = 1.06 + 0.07 * _clouds(side, 9, rng) + 0.09 * _clouds(side, 30, rng) - 0.22 * depth
    shade -= traits.asymmetry * (math.cos(direction) * x + math.sin(direction) * y)
    canvas = np.array(traits.colour, np.float32)[:, None, None] * shade
    for colour in (BLACK_BROWN, TAN, RED):
        patch = _sigmoid(3.5 * (_clouds(side, 6, rng) + 0.3 * _clouds(side, 24, rng) - 1.2 + 0.6 * traits.variegation))
        _paint(canvas, patch, colour, 0.8 * traits.variegation)
    _paint_network(canvas, traits, depth, x, y, rng)
    _paint(canvas, np.exp(-3 * (1 - depth) ** 2), WHITE, 0.75 * traits.pallor)
    spread = traits.radius * side / 2
    _paint(canvas, _spots(side, traits.dots, 0.9 * spread, (0.9, 2.2), rng), BLACK_BROWN, 0.7)
    _paint(canvas, _spots(side, traits.nests, 0.7 * spread, (3.5, 7.5), rng), BLUE_GREY, 0.75)
    _paint(canvas, _spots(side, traits.lagoons, 0.75 * spread, (4.0, 8.0), rng), DARK_RED, 0.7)
    _paint(canvas, _spots(side, traits.milia, 0.8 * spread, (1.0, 2.0), rng), CREAM, 0.7)
    _paint(canvas, _vessels(side, traits.vessels, spread, rng), RED, 0.75)
    _paint(canvas, _sigmoid(6 * (_clouds(side, 26, rng) - 0.9)), CREAM, 0.65 * traits.scales)
    _paint(canvas, _sigmoid(4 * (_clouds(side, 4, rng) - 0.2)) * depth, BLUE_WHITE, 0.8 * traits.veil)
    return Lesion(np.clip(canvas, 0, 255), opacity, _skin_tone(rng))


def photograph(lesion: Lesion, size: int, rng: np.random.Generator) -> tuple[Pixels, Pixels]:
    """Takes one photograph; rotation, distance, light, hair, bubbles and noise differ each time.

    Args:
        lesion: The lesion, drawn for this size.
        size: Height and width in pixels.
        rng: Draws the differences between photographs.

    Returns:
        The photograph, (size, size, 3), and the mask of the lesion, (size, size), 255 inside and 0 outside.
    """
    side = size * OVERSAMPLING
    angle, zoom, shift = rng.uniform(0, 360), rng.uniform(0.85, 1.3), rng.uniform(-0.09, 0.09, 2) * side
    turn = np.asarray(cv2.getRotationMatrix2D((side / 2, side / 2), angle, zoom), dtype=np.float64)
    turn[:, 2] += shift
    opacity = cv2.warpAffine(lesion.opacity, turn, (side, side))
    scene = lesion.skin * (1 + 0.03 * _clouds(side, 6, rng) + 0.02 * _clouds(side, 40, rng))
    for plane, drawn in zip(scene, lesion.colour, strict=True):
        plane += opacity * (cv2.warpAffine(drawn, turn, (side, side), borderMode=cv2.BORDER_REPLICATE) - plane)
    _paint(scene, _hairs(side, rng), HAIR, 0.85)
    _paint(scene, _bubbles(side, rng), GLARE, 0.5)
    scene *= _light(side, rng)
    image = np.stack([cv2.resize(plane, (size, size), interpolation=cv2.INTER_AREA) for plane in scene], axis=-1)
    if rng.random() < 0.3:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 0.9))
    image += rng.uniform(1.5, 6) * rng.standard_normal(image.shape, dtype=np.float32)
    mask = cv2.resize(opacity, (size, size), interpolation=cv2.INTER_AREA) > 0.5
    return np.clip(image, 0, 255).astype(np.uint8), np.where(mask, 255, 0).astype(np.uint8)


def _outline(traits: Traits, x: FloatArray, y: FloatArray, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Returns the opacity, and the depth below the border: 0 at the border, 1 in the middle."""
    angle, distance = np.arctan2(y, x), np.hypot(x, y)
    border = 1 + rng.normal(0, 0.1) * np.cos(2 * angle + rng.uniform(0, 2 * math.pi))
    for wave in range(2, 6):
        height = rng.normal(0, 1.1 * traits.irregularity / wave)
        border += height * np.cos(wave * angle + rng.uniform(0, 2 * math.pi))
    border += traits.irregularity * (0.6 * _clouds(len(x), 10, rng) + 0.35 * _clouds(len(x), 24, rng))
    border = traits.radius * np.clip(border, 0.6, 1.5)
    opacity = _sigmoid((border - distance) / (0.2 * traits.softness + 0.01))
    return opacity, np.clip(1 - distance / border, 0, 1)


def _clouds(side: int, cells: int, rng: np.random.Generator) -> FloatArray:
    """Returns smooth noise of about unit variance with `cells` bumps to a side, (side, side)."""
    grid = 1.25 * rng.standard_normal((cells, cells), dtype=np.float32)
    return np.asarray(cv2.resize(grid, (side, side), interpolation=cv2.INTER_CUBIC), dtype=np.float32)


def _sigmoid(values: FloatArray) -> FloatArray:
    return 1 / (1 + np.exp(-np.clip(values, -30, 30)))


def _paint(canvas: FloatArray, mask: FloatArray, colour: Sequence[int], strength: float) -> None:
    """Blends a colour into the canvas, weighted by a mask from 0 to 1."""
    weight = min(1.0, strength) * mask
    for plane, level in zip(canvas, colour, strict=True):
        plane += weight * (level - plane)


def _paint_network(
    canvas: FloatArray, traits: Traits, depth: FloatArray, x: FloatArray, y: FloatArray, rng: np.random.Generator
) -> None:
    """Darkens the lines of an uneven honeycomb, except over a pale centre."""
    side = len(x)
    bent_x, bent_y = x + 0.05 * _clouds(side, 7, rng), y + 0.05 * _clouds(side, 7, rng)
    pitch, turn = rng.uniform(44, 60), rng.uniform(0, math.pi)
    cells = np.zeros_like(x)
    for direction in (turn, turn + 2 * math.pi / 3, turn + 4 * math.pi / 3):
        cells += np.cos(pitch * (math.cos(direction) * bent_x + math.sin(direction) * bent_y))
    lines = _sigmoid(-2.5 * (cells - 0.2)) * np.clip(0.8 + 0.5 * _clouds(side, 6, rng), 0, 1)
    ring = 1 - min(1.0, traits.pallor) * np.exp(-6 * (1 - depth) ** 4)
    _paint(canvas, lines * ring, BLACK_BROWN, 0.5 * traits.network)


def _spots(side: int, number: float, spread: float, radii: tuple[float, float], rng: np.random.Generator) -> FloatArray:
    """Returns a mask of soft ellipses about the middle; radii are in 128ths of the drawing."""
    mask = np.zeros((side, side), dtype=np.uint8)
    for _ in range(round(number)):
        angle, distance = rng.uniform(0, 2 * math.pi), spread * math.sqrt(rng.random())
        centre = (round(side / 2 + distance * math.cos(angle)), round(side / 2 + distance * math.sin(angle)))
        axes = np.maximum(1, rng.uniform(*radii, 2) * side / 128).round().astype(int).tolist()
        cv2.ellipse(mask, centre, axes, rng.uniform(0, 180), 0, 360, 255, -1, cv2.LINE_AA)
    return _soften(mask, 0.25 * radii[1])


def _vessels(side: int, number: float, spread: float, rng: np.random.Generator) -> FloatArray:
    """Returns a mask of vessels that wind inwards and branch once."""
    mask = np.zeros((side, side), dtype=np.uint8)
    for _ in range(round(number)):
        angle = rng.uniform(0, 2 * math.pi)
        start = side / 2 + spread * np.array([math.cos(angle), math.sin(angle)])
        heading = angle + math.pi + rng.normal(0, 0.4)
        trunk = _winding(start, heading, 1.1 * spread, 0.4, rng)
        _trace(mask, trunk)
        fork = trunk[len(trunk) // 2]
        _trace(mask, _winding(fork, heading + rng.choice([-0.8, 0.8]), 0.6 * spread, 0.4, rng))
    return _soften(mask, 0.5)


def _hairs(side: int, rng: np.random.Generator) -> FloatArray:
    mask = np.zeros((side, side), dtype=np.uint8)
    heading = rng.uniform(0, 2 * math.pi)
    for _ in range(rng.poisson(2.5) if rng.random() < 0.5 else 0):
        start = rng.uniform(0, side, 2)
        _trace(mask, _winding(start, heading + rng.normal(0, 0.5), rng.uniform(0.4, 1.2) * side, 0.1, rng))
    return mask.astype(np.float32) / 255


def _bubbles(side: int, rng: np.random.Generator) -> FloatArray:
    mask = np.zeros((side, side), dtype=np.uint8)
    for _ in range(rng.poisson(3) if rng.random() < 0.15 else 0):
        centre = rng.integers(0, side, 2).tolist()
        cv2.circle(mask, centre, round(rng.uniform(2, 7) * side / 128), 255, 1, cv2.LINE_AA)
    return mask.astype(np.float32) / 255


def _winding(start: FloatArray, heading: float, length: float, bend: float, rng: np.random.Generator) -> FloatArray:
    """Returns ten points of a line whose heading changes a little at each point, (10, 2)."""
    headings = heading + np.cumsum(rng.normal(0, bend, 9))
    steps = length / 9 * np.stack([np.cos(headings), np.sin(headings)], axis=1)
    return np.vstack([start, start + np.cumsum(steps, axis=0)])


def _trace(mask: Pixels, points: FloatArray) -> None:
    fixed_point = np.round(points * 16).astype(np.int32)
    cv2.polylines(mask, [fixed_point], False, 255, max(1, round(len(mask) / 128)), cv2.LINE_AA, 4)


def _soften(mask: Pixels, radius: float) -> FloatArray:
    """Returns a mask from 0 to 1 with blurred edges; the radius is in 128ths of the drawing."""
    return cv2.GaussianBlur(mask, (0, 0), radius * len(mask) / 128).astype(np.float32) / 255


def _skin_tone(rng: np.random.Generator) -> FloatArray:
    """Returns a tone between fair and tanned, rosy or pale."""
    fair, tanned, rosy = np.array([230, 188, 174]), np.array([186, 134, 112]), np.array([224, 140, 138])
    tone = fair + rng.beta(1.2, 2.5) * (tanned - fair) + rng.beta(1, 2.5) * (rosy - fair) + rng.normal(0, 3, 3)
    return tone.astype(np.float32)[:, None, None]


def _light(side: int, rng: np.random.Generator) -> FloatArray:
    """Returns uneven, slightly tinted light with dark corners and, in some photographs, a round aperture, (3, S, S)."""
    axis = np.linspace(-1, 1, side, dtype=np.float32)
    x, y = axis[None, :], axis[:, None]
    light = 1 + rng.normal(0, 0.06) * x + rng.normal(0, 0.06) * y - rng.uniform(0.02, 0.16) * (x**2 + y**2)
    if rng.random() < 0.12:
        light = light * _sigmoid(25 * (rng.uniform(1.05, 1.3) - np.hypot(x, y)))
    tint = rng.normal(1, 0.06) * rng.normal(1, 0.025, 3)
    return light * tint.astype(np.float32)[:, None, None]
