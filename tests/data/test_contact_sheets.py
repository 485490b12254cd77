import os
from pathlib import Path

import numpy as np
from PIL import Image

from raysk.data.contact_sheets import (
    ALARM,
    BOX_INK,
    GAP,
    LINE,
    MASK_INK,
    MOST_IMAGES,
    PAIRS_PER_SHEET,
    SIDE,
    Captioned,
    Pair,
    draw_contact_sheet,
    draw_pairs,
)
from raysk.data.manifest import Manifest, make_manifest


def dataset(folder: Path, num_images: int, images_per_group: int) -> Manifest:
    """Images of one class, each in a different grey, and one image of another class."""
    names = [f"{number}.png" for number in range(num_images + 1)]
    for number, name in enumerate(names):
        Image.fromarray(np.full((20, 40), number, np.uint8)).save(folder / name)
    groups = [str(number // images_per_group) for number in range(num_images)]
    return make_manifest(names, ["nv"] * num_images + ["mel"], root=folder, groups=[*groups, "other"])


def test_a_sheet_shows_one_image_of_each_group_spread_over_the_class(tmp_path: Path) -> None:
    manifest = dataset(tmp_path, 120, 2)
    rows = draw_contact_sheet(manifest, 1, tmp_path / "nv.png")
    assert len(rows) == MOST_IMAGES == len({int(manifest.groups[row]) for row in rows})
    assert rows[0] == 0 and rows[-1] > 110 and rows == sorted(rows)
    assert draw_contact_sheet(manifest, 1, tmp_path / "again.png") == rows
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "nv.png").read_bytes()


def test_a_sheet_shows_more_images_of_each_group_if_groups_are_few(tmp_path: Path) -> None:
    rows = draw_contact_sheet(dataset(tmp_path, 30, 10), 1, tmp_path / "nv.png")
    assert rows[:3] == [0, 10, 20] and len(set(rows)) == MOST_IMAGES
    assert draw_contact_sheet(dataset(tmp_path, 5, 1), 0, tmp_path / "mel.png") == [5]


def test_images_are_not_cropped(tmp_path: Path) -> None:
    manifest = dataset(tmp_path, 200, 1)
    rows = draw_contact_sheet(manifest, 1, tmp_path / "nv.png")
    sheet = np.asarray(Image.open(tmp_path / "nv.png").convert("L"))
    for place, row in enumerate(rows[:6]):
        left = GAP + place * (SIDE + GAP)
        lines = np.flatnonzero((sheet[:, left : left + SIDE] == row).all(axis=1))
        assert len(lines) == SIDE // 2, "an image twice as wide as high fills half of its square"


def test_sheets_cope_with_unreadable_and_16_bit_images(tmp_path: Path) -> None:
    manifest = dataset(tmp_path, 4, 1)
    (tmp_path / "1.png").write_bytes(b"")
    Image.fromarray(np.full((20, 40), 20_000, np.uint16)).save(tmp_path / "2.png")
    assert draw_contact_sheet(manifest, 1, tmp_path / "nv.png") == [0, 1, 2, 3]
    sheet = np.asarray(Image.open(tmp_path / "nv.png").convert("L"))
    assert (sheet == 20_000 >> 8).sum() >= SIDE * SIDE // 2


def shades(sheet: Image.Image, num_images: int, num_lines: int) -> list[int]:
    """Returns the grey of each image on a sheet of one-coloured images twice as wide as high."""
    grey = np.asarray(sheet.convert("L"))
    found = []
    for place in range(num_images):
        line, column = divmod(place, 6)
        # Two thirds down: such an image fills the lower half of its square.
        upper = 2 * LINE + GAP + line * (SIDE + (1 + num_lines) * LINE + GAP) + 2 * SIDE // 3
        found.append(int(grey[upper, GAP + column * (SIDE + GAP) + SIDE // 2]))
    return found


def num_alarms(sheet: Image.Image) -> int:
    return int((np.asarray(sheet.convert("RGB")) == ALARM).all(axis=-1).sum())


def test_all_pairs_are_drawn_side_by_side_leaks_first(tmp_path: Path) -> None:
    paths = dataset(tmp_path, 120, 1).paths
    leaking = (7, 30, 50)
    pairs = [
        Pair((Captioned(paths[row], ("train nv", "group 1")), Captioned(paths[row + 60], ("test nv", "group 2"))), leak)
        for row in range(1, 55)
        for leak in [row in leaking]
    ]
    files = draw_pairs(pairs, tmp_path / "pairs.png")
    assert [file.name for file in files] == ["pairs.png", "pairs-2.png", "pairs-3.png"]
    sheets = [Image.open(file) for file in files]
    counts = (PAIRS_PER_SHEET, PAIRS_PER_SHEET, 54 - 2 * PAIRS_PER_SHEET)
    drawn = [shade for sheet, count in zip(sheets, counts, strict=True) for shade in shades(sheet, 2 * count, 2)]
    assert drawn[::2] == [*leaking, *(row for row in range(1, 55) if row not in leaking)]
    assert drawn[1::2] == [row + 60 for row in drawn[::2]]
    assert num_alarms(sheets[0]) > 0 and num_alarms(sheets[1]) == num_alarms(sheets[2]) == 0


def test_without_pairs_nothing_is_drawn(tmp_path: Path) -> None:
    assert draw_pairs([], tmp_path / "pairs.png") == [] and not list(tmp_path.iterdir())


def test_a_pipe_among_the_images_is_drawn_as_unreadable(tmp_path: Path) -> None:
    manifest = dataset(tmp_path, 3, 1)
    (tmp_path / "1.png").unlink()
    os.mkfifo(tmp_path / "1.png")
    assert draw_contact_sheet(manifest, 1, tmp_path / "nv.png") == [0, 1, 2]


def test_captions_with_line_breaks_are_drawn_in_one_line(tmp_path: Path) -> None:
    path = dataset(tmp_path, 3, 1).paths[0]
    pair = Pair((Captioned(path, ("train a\nb", "")), Captioned(path, ())), leaks=True)
    assert draw_pairs([pair], tmp_path / "pairs.png") == [tmp_path / "pairs.png"]


def test_a_sheet_outlines_masks_and_boxes(tmp_path: Path) -> None:
    names = ["0.png", "1.png", "2.png"]
    for name in names:
        Image.fromarray(np.full((40, 80), 60, np.uint8)).save(tmp_path / name)
    mask = np.zeros((40, 80), np.uint8)
    mask[10:30, 20:60] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    Image.fromarray(mask[:9, :9]).save(tmp_path / "small.png")
    columns = {"mask": ["mask.png", "", "small.png"], "x0": [None, 10, None], "y0": [None, 5, None]}
    columns |= {"x1": [None, 70, None], "y1": [None, 35, None]}
    manifest = make_manifest(names, ["nv", "nv", "mel"], root=tmp_path, attributes=columns)
    draw_contact_sheet(manifest, 1, tmp_path / "nv.png")
    draw_contact_sheet(manifest, 0, tmp_path / "mel.png")
    sheet = np.asarray(Image.open(tmp_path / "nv.png"))
    first, second = (sheet[2 * LINE + GAP :][:SIDE, GAP + place * (SIDE + GAP) :][:, :SIDE] for place in (0, 1))
    assert (first == MASK_INK).all(axis=2).sum() > 80 and not (first == BOX_INK).all(axis=2).any()
    assert (second == BOX_INK).all(axis=2).sum() > 200
    other = np.asarray(Image.open(tmp_path / "mel.png"))[2 * LINE + GAP :][:SIDE, GAP:][:, :SIDE]
    assert not (other == BOX_INK).all(axis=2).any(), "a mask of another size is left out"
