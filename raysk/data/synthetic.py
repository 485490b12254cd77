"""The embedded dataset: drawn lesions of HAM10000's seven classes, equally unbalanced, with masks and boxes."""

import csv
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from raysk.artifacts import replacing
from raysk.data.synthetic_lesions import Lesion, Traits, draw_lesion, photograph
from raysk.errors import ConfigError

DRAWING_VERSION = 1
CLASS_NAMES = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
HAM10000_COUNTS = (327, 514, 1099, 115, 1113, 6705, 142)
LEAST_IMAGES, LEAST_LESIONS = 12, 8  # of each class
IMAGES_PER_LESION = 1.35
MOST_IMAGES_PER_LESION = 3
LEAST_SIZE = 16
COLUMNS = ("image_id", "file", "label", "group", "mask", "x0", "y0", "x1", "y1")

# The mean and the standard deviation of each trait in each class. Typical traits of a class also occur in others.
TYPICAL: Mapping[str, Mapping[str, tuple[float, float]]] = {
    "akiec": {"light": (1.0, 0.08), "red": (0.7, 0.2), "irregularity": (0.16, 0.05), "softness": (0.6, 0.2),
              "variegation": (0.15, 0.12), "scales": (0.85, 0.25), "vessels": (0.6, 0.8), "radius": (0.6, 0.1)},
    "bcc": {"light": (1.05, 0.08), "red": (0.6, 0.2), "irregularity": (0.11, 0.05), "softness": (0.5, 0.2),
            "variegation": (0.12, 0.1), "vessels": (3.6, 1.3), "nests": (3, 1.4)},
    "bkl": {"light": (0.86, 0.12), "red": (0.06, 0.15), "irregularity": (0.14, 0.05), "softness": (0.1, 0.08),
            "variegation": (0.3, 0.16), "milia": (6, 3.5), "network": (0.1, 0.2), "radius": (0.6, 0.11)},
    "df": {"light": (0.95, 0.08), "red": (0.35, 0.2), "irregularity": (0.07, 0.03), "softness": (0.55, 0.2),
           "pallor": (0.95, 0.2), "network": (0.5, 0.25), "radius": (0.45, 0.08)},
    "mel": {"light": (0.61, 0.12), "red": (0.12, 0.15), "irregularity": (0.17, 0.06), "softness": (0.3, 0.18),
            "asymmetry": (0.25, 0.15), "variegation": (0.5, 0.22), "veil": (0.45, 0.35), "network": (0.4, 0.35),
            "dots": (6, 4), "radius": (0.63, 0.1)},
    "nv": {"light": (0.75, 0.12), "red": (0.2, 0.17), "irregularity": (0.085, 0.04), "softness": (0.4, 0.16),
           "asymmetry": (0.1, 0.08), "variegation": (0.17, 0.15), "network": (0.6, 0.3), "dots": (4, 3)},
    "vasc": {"light": (0.82, 0.12), "red": (1.25, 0.25), "irregularity": (0.08, 0.04), "softness": (0.25, 0.12),
             "lagoons": (5, 2.5), "radius": (0.48, 0.09)},
}  # fmt: skip
RARE: Mapping[str, tuple[float, float]] = {
    "radius": (0.53, 0.1), "asymmetry": (0.08, 0.08), "variegation": (0.05, 0.08), "veil": (-0.3, 0.2),
    "network": (-0.1, 0.25), "pallor": (-0.6, 0.3), "dots": (-0.5, 2), "milia": (-3, 2), "scales": (-0.5, 0.3),
    "vessels": (-2, 1.3), "nests": (-3, 1.6), "lagoons": (-4, 2),
}  # fmt: skip
BROWN, CRIMSON = np.array([192.0, 124.0, 94.0]), np.array([190.0, 84.0, 98.0])


def make_synthetic(folder: Path, num_images: int, size: int, seed: int) -> None:
    """Draws the dataset into a new folder: images/, masks/ and metadata.csv.

    The table has the columns image_id, file, label, group (the lesion), mask, and the box of the lesion x0, y0, x1,
    y1 in pixels, half-open. A lesion has one to three photographs, which differ as real ones do.

    Args:
        folder: The folder to make; it appears only when it is complete.
        num_images: The number of images.
        size: Height and width of an image in pixels.
        seed: The same seed gives the same dataset.

    Raises:
        ConfigError: There are too few images for the classes, or they are too small.
        ArtifactError: The folder cannot be written, or already exists.
    """
    if size < LEAST_SIZE:
        raise ConfigError(
            f"drawn images must be at least {LEAST_SIZE} pixels wide, but got {size}: choose a larger size"
        )
    rng = np.random.default_rng(seed)
    shots = _plan(num_images, rng)
    with replacing(folder) as temporary:
        (temporary / "images").mkdir(parents=True)
        (temporary / "masks").mkdir()
        rows = []
        names = iter(rng.permutation(num_images))  # so that neighbouring names do not share a lesion or class
        for number, (class_name, num_shots) in enumerate(shots):
            lesion_rng = np.random.default_rng([seed, number])
            lesion = draw_lesion(_draw_traits(class_name, lesion_rng), size, lesion_rng)
            for _ in range(num_shots):
                row = _write_images(temporary, f"drawn_{next(names):05d}", lesion, size, lesion_rng)
                rows.append({**row, "label": class_name, "group": f"lesion_{number:05d}"})
        with (temporary / "metadata.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(sorted(rows, key=lambda row: str(row["image_id"])))


def _plan(num_images: int, rng: np.random.Generator) -> list[tuple[str, int]]:
    """Returns the class and the number of photographs of each lesion."""
    least = LEAST_IMAGES * len(CLASS_NAMES)
    if num_images < least:
        raise ConfigError(f"data.size must be at least {least}, but got {num_images}: raise data.size")
    shares = np.array(HAM10000_COUNTS) / sum(HAM10000_COUNTS)
    counts = np.maximum(LEAST_IMAGES, np.round(shares * num_images).astype(int))
    counts[counts.argmax()] -= counts.sum() - num_images
    plan = []
    for class_name, count in zip(CLASS_NAMES, counts, strict=True):
        num_lesions = max(LEAST_LESIONS, round(count / IMAGES_PER_LESION))
        extra = rng.permutation(np.repeat(np.arange(num_lesions), MOST_IMAGES_PER_LESION - 1))[: count - num_lesions]
        shots = 1 + np.bincount(extra, minlength=num_lesions)
        plan += [(class_name, int(number)) for number in shots]
    return plan


def _draw_traits(class_name: str, rng: np.random.Generator) -> Traits:
    values = {name: float(rng.normal(*range_)) for name, range_ in {**RARE, **TYPICAL[class_name]}.items()}
    light, red = values.pop("light"), values.pop("red")
    colour = light * (BROWN + np.clip(red, -0.1, 1.5) * (CRIMSON - BROWN)) + rng.normal(0, 4, 3)
    radius = float(np.clip(values.pop("radius"), 0.3, 0.75))
    amounts = {name: max(0.0, value) for name, value in values.items()}
    return Traits(colour=np.clip(colour, 20, 245).tolist(), radius=radius, **amounts)


def _write_images(folder: Path, name: str, lesion: Lesion, size: int, rng: np.random.Generator) -> dict[str, str | int]:
    """Writes a photograph and its mask; returns their columns of the table: id, files and box."""
    image, mask = photograph(lesion, size, rng)
    file, mask_file = f"images/{name}.png", f"masks/{name}.png"
    Image.fromarray(image).save(folder / file, compress_level=1)
    Image.fromarray(mask).convert("1").save(folder / mask_file)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = {"x0": columns[0], "y0": rows[0], "x1": columns[-1] + 1, "y1": rows[-1] + 1}
    return {"image_id": name, "file": file, "mask": mask_file, **{key: int(value) for key, value in box.items()}}
