"""Contact sheets: the images of a class, one of each group, and pairs that show the same picture."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont, ImageOps

from raysk.artifacts import replacing
from raysk.data.decodable import UNREADABLE, depth_of, in_eight_bits, open_image, upright, upright_size
from raysk.data.manifest import Manifest
from raysk.data.regions import Region, read_mask, regions_of

MOST_IMAGES = 24
PAIRS_PER_SHEET = 24
COLUMNS = 6
SIDE = 160  # pixels of an image on the sheet
GAP = 8
LINE = 13
PAPER, INK, FAINT, ALARM = (255, 255, 255), (25, 25, 25), (110, 110, 110), (190, 20, 20)
MASK_INK, BOX_INK, FOUND_INK = (255, 255, 255), (70, 200, 255), (255, 190, 40)

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Captioned:
    """An image file with the lines below its name.

    Attributes:
        path: The file.
        lines: The lines of the caption.
        region: Where the lesion is; its mask and its box are outlined.
        found: A predicted mask of the square in the middle, (S, S), which is outlined in another colour.
    """

    path: Path
    lines: tuple[str, ...] = ()
    region: Region | None = None
    found: np.ndarray | None = None


@dataclass(frozen=True)
class Pair:
    """Two images that show the same picture.

    Attributes:
        images: The two images.
        leaks: Whether one of them would be trained on and the other one scored.
    """

    images: tuple[Captioned, Captioned]
    leaks: bool = False


def draw_contact_sheet(manifest: Manifest, label: int, path: Path) -> list[int]:
    """Draws up to 24 images of a class, with file name and group below each, as a PNG file, whole or not at all.

    Args:
        manifest: The manifest of the images.
        label: The code of the class; `NO_LABEL` draws the unlabelled rows.
        path: The PNG file.

    Returns:
        The rows on the sheet: the first row of each group, and further rows only if there are too few groups. They are
        spread evenly over the class, so that the same dataset gives the same sheet.
    """
    rows = _chosen(manifest, label)
    images, groups, regions = manifest.paths, manifest.table.column("group"), _regions(manifest)
    count = int((manifest.labels == label).sum())
    num_groups = len(np.unique(manifest.groups[manifest.labels == label]))
    title = f"{manifest.class_name(label)}: {len(rows)} of {count} images"
    title += f" in {num_groups} groups" if manifest.grouped else ""
    captions = [(str(groups[row]),) if manifest.grouped else () for row in rows]
    _draw(
        title,
        [Captioned(images[row], lines, regions[row]) for row, lines in zip(rows, captions, strict=True)],
        path,
        bits=manifest.bits,
    )
    return rows


def _regions(manifest: Manifest) -> list[Region | None]:
    """Returns the region of each row; none if the boxes are no numbers, which only a recipe that reads them minds."""
    try:
        return [*regions_of(manifest)]
    except ValueError:
        return [None] * len(manifest)


def draw_pairs(pairs: Sequence[Pair], path: Path, bits: int | None = None) -> list[Path]:
    """Draws all pairs of images side by side, leaks first and in red, as PNG files, each whole or not at all.

    Args:
        pairs: The pairs; a sheet shows 24, three a line.
        path: The first PNG file.
        bits: The depth of pictures of 16 bits a pixel whose files state none.

    Returns:
        The files: FILE.png, FILE-2.png, FILE-3.png, ...
    """
    ordered = sorted(pairs, key=lambda pair: not pair.leaks)
    num_leaks = sum(pair.leaks for pair in ordered)
    starts = range(0, len(ordered), PAIRS_PER_SHEET)
    files = [path if not start else _numbered(path, number) for number, start in enumerate(starts, 1)]
    for number, (start, file) in enumerate(zip(starts, files, strict=True), 1):
        shown = ordered[start : start + PAIRS_PER_SHEET]
        title = f"pairs {start + 1} to {start + len(shown)} of {len(ordered)}, {num_leaks} leak (red), "
        title += f"sheet {number} of {len(files)}"
        colours = [ALARM if pair.leaks else FAINT for pair in shown for _ in pair.images]
        _draw(title, [image for pair in shown for image in pair.images], file, colours, bits)
    return files


def draw_found_masks(title: str, images: Sequence[Captioned], path: Path, bits: int | None = None) -> None:
    """Draws pictures with their masks and the predicted ones, six a line, as a PNG file, whole or not at all."""
    _draw(title, images, path, bits=bits)


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.stem}-{number}{path.suffix}")


def _draw(
    title: str, images: Sequence[Captioned], path: Path, colours: Sequence[Colour] = (), bits: int | None = None
) -> None:
    """Draws images in lines of six, with file name and caption below each; `colours` are those of the captions."""
    num_columns = max(1, min(COLUMNS, len(images)))
    num_lines = -(-len(images) // num_columns)
    caption_lines = max([1, *(len(image.lines) for image in images)])
    cell = (SIDE + GAP, SIDE + (1 + caption_lines) * LINE + GAP)
    top = 2 * LINE + GAP
    sheet = Image.new("RGB", (GAP + num_columns * cell[0], top + num_lines * cell[1] + GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(11)
    _write(draw, (GAP, GAP), title, sheet.width - 2 * GAP, INK, font)
    for column in range(2, num_columns, 2) if colours else ():  # a rule between pairs
        draw.line((GAP // 2 + column * cell[0], top, GAP // 2 + column * cell[0], sheet.height - GAP), FAINT)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        thumbnails = list(pool.map(partial(_thumbnail, bits=bits), images))
    for place, (image, thumbnail) in enumerate(zip(images, thumbnails, strict=True)):
        left, upper = GAP + place % num_columns * cell[0], top + place // num_columns * cell[1]
        write = partial(_write, draw, width=SIDE, font=font)
        if thumbnail is None:
            draw.rectangle((left, upper, left + SIDE - 1, upper + SIDE - 1), outline=FAINT)
            write((left + GAP, upper + SIDE // 2), "cannot be read", fill=INK)
        else:
            # Uncropped, and at the bottom of its square, directly above its caption.
            sheet.paste(thumbnail, (left + (SIDE - thumbnail.width) // 2, upper + SIDE - thumbnail.height))
        write((left, upper + SIDE + 1), image.path.name, fill=INK)
        for number, line in enumerate(image.lines, 1):
            write((left, upper + SIDE + 1 + number * LINE), line, fill=colours[place] if colours else FAINT)
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


def _thumbnail(captioned: Captioned, bits: int | None) -> Image.Image | None:
    if not captioned.path.is_file():  # opening a pipe would wait for ever
        return None
    try:
        with open_image(captioned.path) as image:
            depth = depth_of(image, bits)  # first, since a look at the EXIF data of a PNG file decodes it
            size = upright_size(image)
            image.draft("RGB", (SIDE, SIDE))
            turned = in_eight_bits(upright(image), depth)
            thumbnail = ImageOps.contain(turned.convert("RGB"), (SIDE, SIDE))
    except UNREADABLE:
        return None
    if captioned.region is not None:
        _outline(thumbnail, captioned.region, size)
    if captioned.found is not None:
        side = min(thumbnail.size)
        square = Image.fromarray(np.where(captioned.found, 255, 0).astype(np.uint8)).resize((side, side))
        mask = Image.new("L", thumbnail.size)
        mask.paste(square, ((thumbnail.width - side) // 2, (thumbnail.height - side) // 2))
        _outline_mask(thumbnail, mask, FOUND_INK)
    return thumbnail


def _outline(thumbnail: Image.Image, region: Region, size: tuple[int, int]) -> None:
    """Draws the border of the mask and the box of a picture of this size onto its thumbnail, where they fit it."""
    if region.mask is not None:
        with suppress(*UNREADABLE):
            _outline_mask(thumbnail, read_mask(region.mask, size).resize(thumbnail.size), MASK_INK)
    if region.box is not None:
        scale = thumbnail.width / size[0], thumbnail.height / size[1]
        left, top, right, bottom = (edge * scale[place % 2] for place, edge in enumerate(region.box))
        if left < right and top < bottom:
            ImageDraw.Draw(thumbnail).rectangle((left, top, right - 1, bottom - 1), outline=BOX_INK)


def _outline_mask(thumbnail: Image.Image, mask: Image.Image, ink: Colour) -> None:
    sharp = mask.point(lambda level: 255 if level > 127 else 0)  # a mask that was enlarged has soft edges
    thumbnail.paste(ink, mask=ImageChops.subtract(sharp, sharp.filter(ImageFilter.MinFilter(3))))


def _write(
    draw: ImageDraw.ImageDraw,
    at: tuple[int, int],
    text: str,
    width: int,
    fill: Colour,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    """Writes a line of text, shortened in the middle to fit the width: names differ at their ends."""
    shown = text = " ".join(text.split())  # a line break cannot be measured
    while draw.textlength(shown, font) > width and len(shown) > 3:
        keep = len(shown) - 2
        shown = shown[: keep // 2] + "…" + shown[-(keep - keep // 2 - 1) :]
    draw.text(at, shown, fill, font)
