"""Recall of near-duplicates by the kind of change, and false pairs, against perceptual hashes.

The pictures are drawn lesions, or those of a folder with `images/` and a `metadata.csv` that has the columns file and
group. Each kind of change makes new versions of some of them: other light (gamma, brightness, tint), a crop at a random
place, both, or a retaken photograph (turned by up to 4 degrees, 2 to 10 % nearer, shifted, in other light, with other
noise). Recall is the share of versions that are paired with their original. A false pair has pictures of two groups;
plain discs and ellipses, of which any two differ by a pixel or more as they are drawn, and smooth random colours should
not pair either. In a folder of photographs false pairs may be true, and need a look.

Peers: imagehash (`pip install imagehash`), phash and dhash of 64 bits. Pairs differ in at most 10 bits, the usual
threshold, or in at most 4. Unlike raysk's, these hashes do not find turned pictures, so that no version is turned.
"""

import argparse
import csv
import tempfile
from collections.abc import Callable
from functools import partial
from io import BytesIO
from itertools import combinations
from pathlib import Path

import cv2
import imagehash
import numpy as np
from PIL import Image, ImageDraw
from rich.console import Console
from rich.table import Table

from raysk.data.audit.near_duplicates import find_alike
from raysk.data.audit.scanning import small_picture
from raysk.data.synthetic import make_synthetic

DRAWN_PIXELS = 128
MOST_BITS = (10, 4)
NUM_SHAPES, NUM_BLOBS = 200, 60

Change = Callable[[Image.Image, np.random.Generator], Image.Image]
Pairs = set[tuple[int, int]]


def encoded(image: Image.Image, quality: int) -> Image.Image:
    content = BytesIO()
    image.save(content, "JPEG", quality=quality)
    return Image.open(content).convert("RGB")


def relit(image: Image.Image, random: np.random.Generator) -> Image.Image:
    gamma = np.exp(random.uniform(-0.3, 0.3))
    gain = np.exp(random.uniform(-0.15, 0.15)) * np.exp(random.uniform(-0.05, 0.05, 3))
    levels = (np.asarray(image) / 255.0) ** gamma * gain
    return Image.fromarray(np.clip(255 * levels, 0, 255).astype(np.uint8))


def cropped(image: Image.Image, random: np.random.Generator, share: float) -> Image.Image:
    width, height = round(image.width * share), round(image.height * share)
    left = int(random.integers(0, image.width - width + 1))
    top = int(random.integers(0, image.height - height + 1))
    return image.crop((left, top, left + width, top + height))


def retaken(image: Image.Image, random: np.random.Generator) -> Image.Image:
    turn = cv2.getRotationMatrix2D(
        (image.width / 2, image.height / 2), random.uniform(-4, 4), random.uniform(1.02, 1.1)
    )
    turn[:, 2] += random.uniform(-0.02, 0.02, 2) * image.width
    scene = cv2.warpAffine(np.asarray(image), turn, image.size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    noisy = np.clip(scene + random.normal(0, 3, scene.shape), 0, 255).astype(np.uint8)
    return relit(Image.fromarray(noisy), random)


CHANGES: dict[str, Change] = {
    "JPEG quality 30": lambda image, random: encoded(image, 30),
    "light": lambda image, random: encoded(relit(image, random), 80),
    **{
        f"cropped to {share:.0%}{' and light' * light}": lambda image, random, share=share, light=light: encoded(
            relit(cropped(image, random, share), random) if light else cropped(image, random, share), 80
        )  # type: ignore[misc]
        for light in (False, True)
        for share in (0.97, 0.95, 0.93, 0.9)
    },
    "retaken": lambda image, random: encoded(retaken(image, random), 80),
}


def shapes(random: np.random.Generator) -> list[Image.Image]:
    """Returns plain discs and ellipses; any two differ by a pixel or more in a half axis or in their place."""
    images: list[Image.Image] = []
    drawn: list[np.ndarray] = []
    while len(images) < NUM_SHAPES:
        across = random.uniform(20, 50)
        down = across if len(images) % 2 else across * random.uniform(0.6, 0.95)
        shape = np.array([*random.uniform(-10, 10, 2), across, down])
        if any(np.abs(shape - other).max() < 1 for other in drawn):
            continue
        drawn.append(shape)
        skin, ink = (tuple(random.integers(*span, 3).tolist()) for span in ((170, 255), (20, 150)))
        image = Image.new("RGB", (160, 120), skin)
        x, y = 80 + shape[0], 60 + shape[1]
        ImageDraw.Draw(image).ellipse((x - across, y - down, x + across, y + down), fill=ink)
        images.append(encoded(image, 85))
    return images


def blobs(random: np.random.Generator) -> list[Image.Image]:
    grids = random.integers(0, 255, (NUM_BLOBS, 4, 4, 3), dtype=np.uint8)
    return [encoded(Image.fromarray(grid).resize((160, 120), Image.Resampling.BICUBIC), 85) for grid in grids]


def ours(images: list[Image.Image]) -> Pairs:
    pictures = np.stack([small_picture(image) for image in images])
    return {(first, second) for first, second in find_alike(pictures, np.arange(len(images))).pairs.tolist()}


def hashed(images: list[Image.Image], hash_of: Callable[[Image.Image], imagehash.ImageHash], most: int) -> Pairs:
    bits = np.stack([hash_of(image).hash.ravel() for image in images]).astype(np.float32)
    pairs: Pairs = set()
    for start in range(0, len(bits), 500):
        block = bits[start : start + 500]
        distance = block @ (1 - bits).T + (1 - block) @ bits.T
        pairs |= {(start + row, other) for row, other in np.argwhere(distance <= most).tolist() if start + row < other}
    return pairs


def contenders() -> dict[str, Callable[[list[Image.Image]], Pairs]]:
    hashes = {"phash": imagehash.phash, "dhash": imagehash.dhash}
    return {"raysk": ours} | {
        f"{name}, {most} bits": partial(hashed, hash_of=hash_of, most=most)
        for name, hash_of in hashes.items()
        for most in MOST_BITS
    }


def read(folder: Path, most: int) -> tuple[list[Image.Image], list[str]]:
    with (folder / "metadata.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))[:most]
    return [Image.open(folder / row["file"]).convert("RGB") for row in rows], [row["group"] for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with images/ and metadata.csv; drawn lesions if not given")
    parser.add_argument("--num-images", type=int, default=2000)
    parser.add_argument("--versions", type=int, default=200, help="number of new versions of each kind")
    options = parser.parse_args()
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary:
        folder = options.data or Path(temporary) / "drawn"
        if options.data is None:
            make_synthetic(folder, options.num_images, DRAWN_PIXELS, seed=0)
        originals, groups = read(folder, options.num_images)
    chosen = {kind: random.choice(len(originals), options.versions, replace=False).tolist() for kind in CHANGES}
    versions = [CHANGES[kind](originals[row], random) for kind, rows in chosen.items() for row in rows]
    origin = [*range(len(originals)), *(row for rows in chosen.values() for row in rows)]
    found = {name: find([*originals, *versions]) for name, find in contenders().items()}
    table = Table("recall", *found, title=f"{len(originals)} pictures, {options.versions} versions of each kind")
    for number, kind in enumerate(CHANGES):
        rows = range(len(originals) + number * options.versions, len(originals) + (number + 1) * options.versions)
        table.add_row(
            kind, *(f"{np.mean([(origin[row], row) in pairs for row in rows]):.3f}" for pairs in found.values())
        )
    table.add_section()
    across = [sum(groups[origin[a]] != groups[origin[b]] for a, b in pairs) for pairs in found.values()]
    within = [sum(groups[a] == groups[b] for a, b in pairs if b < len(originals)) for pairs in found.values()]
    table.add_row("pairs of two originals in one group", *map(str, within))
    table.add_row("false pairs: two groups", *map(str, across))
    for title, images in (("plain discs and ellipses", shapes(random)), ("smooth random colours", blobs(random))):
        num_pairs = len(list(combinations(images, 2)))
        table.add_row(
            f"false pairs: {title}, of {num_pairs}", *(str(len(find(images))) for find in contenders().values())
        )
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
