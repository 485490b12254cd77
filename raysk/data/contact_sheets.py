"""Contact sheets: the images of a class, one of each group, and pairs that show the same picture."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from raysk.artifacts import replacing
from raysk.data.decodable import UNREADABLE, upright
from raysk.data.manifest import Manifest

MOST_IMAGES = 24
COLUMNS = 6
SIDE = 160  # pixels of an image on the sheet
GAP = 8
LINE = 13
PAPER, INK, FAINT = (255, 255, 255), (25, 25, 25), (110, 110, 110)

Captioned = tuple[Path, str]  # an image file and its caption


def draw_contact_sheet(manifest: Manifest, label: int, path: Path) -> list[int]:
    """Draws up to 24 images of a class, with file name and group below each, as a PNG file, whole or not at all.

    Args:
        manifest: The manifest of the images.
        label: The code of the class.
        path: The PNG file.

    Returns:
        The rows on the sheet: the first row of each group, and further rows only if there are too few groups. They are
        spread evenly over the class, so that the same dataset gives the same sheet.
    """
    rows = _chosen(manifest, label)
    images, groups = manifest.paths, manifest.table.column("group")
    count = int(manifest.class_counts[label])
    num_groups = len(np.unique(manifest.groups[manifest.labels == label]))
    title = f"{manifest.class_names[label]}: {len(rows)} of {count} images"
    title += f" in {num_groups} groups" if manifest.grouped else ""
    _draw(title, [(images[row], str(groups[row]) if manifest.grouped else "") for row in rows], path)
    return rows


def draw_pairs(pairs: Sequence[tuple[Captioned, Captioned]], path: Path) -> None:
    """Draws up to 24 pairs of images side by side, three pairs a line, as a PNG file, whole or not at all.

    Args:
        pairs: The file and the caption of both images; of more than 24 pairs, 24 are drawn, evenly spread.
        path: The PNG file.
    """
    places = _spread(np.arange(len(pairs)), MOST_IMAGES)
    title = f"{len(places)} of {len(pairs)} pairs that show the same picture, side by side"
    _draw(title, [captioned for place in places for captioned in pairs[place]], path)


def _draw(title: str, images: Sequence[Captioned], path: Path) -> None:
    """Draws images in lines of six, with file name and caption below each."""
    num_columns = max(1, min(COLUMNS, len(images)))
    num_lines = -(-len(images) // num_columns)
    cell = (SIDE + GAP, SIDE + 2 * LINE + GAP)
    top = 2 * LINE + GAP
    sheet = Image.new("RGB", (GAP + num_columns * cell[0], top + num_lines * cell[1] + GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(11)
    _write(draw, (GAP, GAP), title, sheet.width, INK, font)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        thumbnails = list(pool.map(_thumbnail, [image for image, _ in images]))
    for place, ((image, caption), thumbnail) in enumerate(zip(images, thumbnails, strict=True)):
        left, upper = GAP + place % num_columns * cell[0], top + place // num_columns * cell[1]
        write = partial(_write, draw, width=SIDE, font=font)
        if thumbnail is None:
            draw.rectangle((left, upper, left + SIDE - 1, upper + SIDE - 1), outline=FAINT)
            write((left + GAP, upper + SIDE // 2), "cannot be read", fill=INK)
        else:
            # Uncropped, and at the bottom of its square, directly above its caption.
            sheet.paste(thumbnail, (left + (SIDE - thumbnail.width) // 2, upper + SIDE - thumbnail.height))
        write((left, upper + SIDE + 1), image.name, fill=INK)
        write((left, upper + SIDE + 1 + LINE), caption, fill=FAINT)
    with replacing(path) as temporary:
        sheet.save(temporary, "PNG")


def _chosen(manifest: Manifest, label: int) -> list[int]:
    rows = np.flatnonzero(manifest.labels == label)
    firsts = rows[np.sort(np.unique(manifest.groups[rows], return_index=True)[1])]
    others = np.setdiff1d(rows, firsts)
    chosen = _spread(firsts, MOST_IMAGES)
    return [*chosen, *_spread(others, MOST_IMAGES - len(chosen))]


def _spread(rows: np.ndarray, most: int) -> list[int]:
    """Returns at most `most` of the rows, evenly spaced."""
    if len(rows) <= most:
        return [int(row) for row in rows]
    return [int(rows[place]) for place in np.arange(most) * len(rows) // max(most, 1)]


def _thumbnail(path: Path) -> Image.Image | None:
    try:
        with Image.open(path) as image:
            image.draft("RGB", (SIDE, SIDE))
            turned = upright(image)
            if turned.mode.startswith("I;16"):  # 16 bits a pixel, which a plain conversion would clip to white
                turned = Image.fromarray((np.asarray(turned) >> 8).astype(np.uint8))
            return ImageOps.contain(turned.convert("RGB"), (SIDE, SIDE))
    except UNREADABLE:
        return None


def _write(
    draw: ImageDraw.ImageDraw,
    at: tuple[int, int],
    text: str,
    width: int,
    fill: tuple[int, int, int],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    """Writes a line of text, shortened in the middle to fit the width: names differ at their ends."""
    shown = text
    while draw.textlength(shown, font) > width and len(shown) > 3:
        keep = len(shown) - 2
        shown = shown[: keep // 2] + "…" + shown[-(keep - keep // 2 - 1) :]
    draw.text(at, shown, fill, font)
