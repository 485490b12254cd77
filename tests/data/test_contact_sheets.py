from pathlib import Path

import numpy as np
from PIL import Image

from raysk.data.contact_sheets import GAP, MOST_IMAGES, SIDE, draw_contact_sheet, draw_pairs
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


def test_pairs_are_drawn_side_by_side(tmp_path: Path) -> None:
    manifest = dataset(tmp_path, 100, 1)
    paths = manifest.paths
    pairs = [((paths[row], "train nv"), (paths[row + 50], "test nv")) for row in range(1, 49)]
    draw_pairs(pairs, tmp_path / "pairs.png")
    sheet = np.asarray(Image.open(tmp_path / "pairs.png").convert("L"))
    shown = []
    for place in range(2 * MOST_IMAGES):
        line, column = divmod(place, 6)
        # Two thirds down: an image twice as wide as high fills the lower half of its square.
        upper = 2 * 13 + GAP + line * (SIDE + 2 * 13 + GAP) + 2 * SIDE // 3
        shown.append(int(sheet[upper, GAP + column * (SIDE + GAP) + SIDE // 2]))
    assert shown[::2] == list(range(1, 49, 2)), "of many pairs every second is drawn"
    assert shown[1::2] == [row + 50 for row in shown[::2]]
