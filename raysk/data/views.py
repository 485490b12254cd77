"""Views of an image: drawn at random in training, and a fixed set of symmetries at test time."""

import os
import random
from collections.abc import Callable
from typing import Any

# On import, albumentations queries a server for its newest version; training must not depend on the network.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations as A
import cv2
import numpy as np
import numpy.typing as npt

from raysk.registry import Registry, unknown_name

MASK_64 = 2**64 - 1
PCG64_INCREMENT = 0x5851F42D4C957F2D14057B7EF767814F  # any odd number works

MID_GREY = 128  # near zero after normalisation, the value with which DeVries and Taylor 2017 fill holes

Pixels = npt.NDArray[np.uint8]
Pipeline = Callable[[int], list[A.BasicTransform]]
BatchView = Callable[[Pixels], Pixels]

training_views: Registry[Pipeline] = Registry("training view")
test_time_views: Registry[BatchView] = Registry("test-time view")


@training_views.register("none")
def no_change(size: int) -> list[A.BasicTransform]:
    """The plain image."""
    return [A.Resize(size, size)]


@training_views.register("light")
def light(size: int) -> list[A.BasicTransform]:
    """Flips, and a small rotation, zoom and shift: for few images or short training."""
    return [
        A.Resize(size, size),
        A.HorizontalFlip(p=0.5),
        A.VerticalFlip(p=0.5),
        A.Affine(
            rotate=(-15, 15),
            scale=(0.9, 1.1),
            translate_percent=(-0.05, 0.05),
            border_mode=cv2.BORDER_REFLECT_101,
            p=0.5,
        ),
    ]


@training_views.register("medium")
def medium(size: int) -> list[A.BasicTransform]:
    """Crops of at least half the image, all eight symmetries of the square, and mild colour jitter."""
    return [
        A.RandomResizedCrop((size, size), scale=(0.5, 1.0)),
        A.D4(p=1.0),
        A.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2, hue=0.03, p=0.5),
    ]


@training_views.register("supercon")
def supercon(size: int) -> list[A.BasicTransform]:
    """The augmented view of SuperCon (Chen, Zhuang, Chang 2022), with the crops and blur of the released code."""
    return [
        A.RandomResizedCrop((size, size), scale=(0.08, 1.0)),
        A.ColorJitter(brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2, p=0.3),
        A.ToGray(p=0.2),
        A.HorizontalFlip(p=0.5),
        A.GaussianBlur(blur_limit=(3, 3), sigma_limit=(1.0, 2.0), p=0.2),
    ]


@training_views.register("focal")
def focal(size: int) -> list[A.BasicTransform]:
    """Rotation, flips, crop and cutout, as in Le et al. 2020; the paper gives no ranges: these are ours."""
    return [
        A.Rotate((-180, 180), border_mode=cv2.BORDER_REFLECT_101, p=1.0),
        A.HorizontalFlip(p=0.5),
        A.VerticalFlip(p=0.5),
        A.RandomResizedCrop((size, size), scale=(0.6, 1.0)),
        A.CoarseDropout(
            num_holes_range=(1, 1), hole_height_range=(0.1, 0.3), hole_width_range=(0.1, 0.3), fill=MID_GREY, p=0.5
        ),
    ]


@training_views.register("gravis")
def gravis(size: int) -> list[A.BasicTransform]:
    """The view of GraVIS (Zhou et al. 2023), as released for 224 pixels; blur and holes scale with the image.

    Ours: the holes are whole, where the released code cuts them off at the border.
    """
    scale = size / 224
    side = max(1, round(32 * scale))
    return [
        A.RandomResizedCrop((size, size), scale=(0.2, 1.0)),
        A.Rotate((-10, 10), border_mode=cv2.BORDER_CONSTANT, fill=0, p=1.0),
        A.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, p=1.0),
        A.ToGray(p=0.2),
        A.GaussianBlur(blur_limit=0, sigma_limit=(0.1 * scale, 2.0 * scale), p=0.5),
        A.HorizontalFlip(p=0.5),
        A.CoarseDropout(
            num_holes_range=(3, 3), hole_height_range=(side, side), hole_width_range=(side, side), fill=MID_GREY, p=1.0
        ),
    ]


@training_views.register("heavy")
def heavy(size: int) -> list[A.BasicTransform]:
    """Strong changes of geometry, colour and sharpness, with holes: about as strong as RandAugment; our own choice."""
    return [
        A.RandomResizedCrop((size, size), scale=(0.3, 1.0)),
        A.D4(p=1.0),
        A.Affine(rotate=(-30, 30), shear=(-10, 10), border_mode=cv2.BORDER_REFLECT_101, p=0.5),
        A.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.08, p=0.8),
        A.RandomGamma(gamma_limit=(70, 140), p=0.3),
        A.ToGray(p=0.1),
        A.GaussianBlur(blur_limit=(3, 5), p=0.3),
        A.CoarseDropout(
            num_holes_range=(1, 4), hole_height_range=(0.05, 0.2), hole_width_range=(0.05, 0.2), fill=MID_GREY, p=0.5
        ),
    ]


class TrainingView:
    """A random view that depends on its seed alone, not on the process or the order of the images.

    Args:
        name: The name of a pipeline.
        size: Height and width of the view, in pixels.

    Raises:
        ConfigError: No pipeline has that name.
    """

    def __init__(self, name: str, size: int) -> None:
        self.name = name
        self.size = size
        self._pipeline = A.Compose(training_views[name](size))
        # All steps of the pipeline share these two generators, which only get a new state for each view: seeding
        # through the pipeline's own method would make two generators a step, and cost as much as the view.
        self._random = random.Random(0)
        self._bits = np.random.PCG64(0)
        self._pipeline.set_random_state(np.random.Generator(self._bits), self._random)

    def __call__(self, image: Pixels, seed: int) -> Pixels:
        """Returns the view, (size, size, 3) uint8.

        Args:
            image: (H, W, 3) uint8; it is not changed.
            seed: See `view_seed`.
        """
        self._seed(seed)
        view: Pixels = self._pipeline(image=image)["image"]
        return view

    def with_region(self, image: Pixels, region: Pixels, seed: int) -> tuple[Pixels, Pixels]:
        """Returns the same view with a region of the image, which turns with it: (size, size, 3) and (size, size).

        Holes that the view cuts hide the image and not the region: the lesion is where it was.

        Args:
            image: (H, W, 3) uint8; it is not changed.
            region: (H, W) uint8, 255 inside and 0 outside; it is not changed.
            seed: See `view_seed`.
        """
        self._seed(seed)
        view = self._pipeline(image=image, mask=region)
        return view["image"], view["mask"]

    def _seed(self, seed: int) -> None:
        self._random.seed(seed)
        self._bits.state = {
            "bit_generator": "PCG64",
            "state": {"state": self._random.getrandbits(128), "inc": PCG64_INCREMENT},
            "has_uint32": 0,
            "uinteger": 0,
        }

    def __reduce__(self) -> tuple[Any, ...]:
        return TrainingView, (self.name, self.size)


def view_seed(seed: int, epoch: int, row: int, view: int, occurrence: int = 0) -> int:
    """Returns the 64-bit seed of one view of a row that an epoch draws; neighbouring seeds are unrelated.

    Args:
        seed: Seed of the recipe.
        epoch: The epoch, from 0.
        row: The row.
        view: Number of the view among those of one draw, below 2^32.
        occurrence: How often the epoch has drawn the row before.
    """
    mixed = 0
    for number in (seed, epoch, row, view | occurrence << 32):
        # One round of SplitMix64 (Steele, Lea, Flood 2014) for each number.
        mixed = ((mixed ^ number) + 0x9E3779B97F4A7C15) & MASK_64
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & MASK_64
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & MASK_64
        mixed ^= mixed >> 31
    return mixed


@test_time_views.register("identity")
def identity(images: Pixels) -> Pixels:
    """The images unchanged; every view maps (B, H, W, 3) and returns a view of the same memory where it can."""
    return images


@test_time_views.register("rot90")
def rot90(images: Pixels) -> Pixels:
    """A quarter turn to the left."""
    return np.rot90(images, 1, axes=(1, 2))


@test_time_views.register("rot180")
def rot180(images: Pixels) -> Pixels:
    """A half turn."""
    return np.rot90(images, 2, axes=(1, 2))


@test_time_views.register("rot270")
def rot270(images: Pixels) -> Pixels:
    """A quarter turn to the right."""
    return np.rot90(images, 3, axes=(1, 2))


@test_time_views.register("hflip")
def hflip(images: Pixels) -> Pixels:
    """Left and right exchanged."""
    return images[:, :, ::-1]


@test_time_views.register("vflip")
def vflip(images: Pixels) -> Pixels:
    """Top and bottom exchanged."""
    return images[:, ::-1]


@test_time_views.register("transpose")
def transpose(images: Pixels) -> Pixels:
    """Rows and columns exchanged."""
    return images.transpose(0, 2, 1, 3)


@test_time_views.register("transverse")
def transverse(images: Pixels) -> Pixels:
    """Rows and columns exchanged along the other diagonal."""
    return images[:, ::-1, ::-1].transpose(0, 2, 1, 3)


# The mean over the views of a set, each turned back.
MEAN = "mean"
# The view that turns each one back.
TURNING_BACK = {name: name for name in test_time_views} | {"rot90": "rot270", "rot270": "rot90"}

DIHEDRAL = ("identity", "rot90", "rot180", "rot270", "hflip", "vflip", "transpose", "transverse")
VIEW_SETS: dict[str, tuple[str, ...]] = {"none": ("identity",), "dihedral": DIHEDRAL}


def view_names(view_set: str) -> tuple[str, ...]:
    """Returns the names of the test-time views of a set: "none" is the plain image, "dihedral" all eight.

    Raises:
        ConfigError: No set has that name.
    """
    if view_set not in VIEW_SETS:
        raise unknown_name("set of test-time views", view_set, list(VIEW_SETS))
    return VIEW_SETS[view_set]
