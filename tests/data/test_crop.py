"""The crop around the lesion: where it is, and that a store holds it."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from raysk.data.crop import Crop, Window, window_of, windows_of
from raysk.data.manifest import make_manifest
from raysk.data.regions import Box, Region
from raysk.data.store.building import build_store
from raysk.data.store.decoding import decode
from raysk.errors import DataError

BOX = Crop(region="box", margin=0.0)


def saved(folder, pixels, name="picture.png", **options):
    Image.fromarray(np.asarray(pixels, np.uint8)).save(folder / name, **options)
    return folder / name


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(20, 90), st.integers(20, 90)),
    corner=st.tuples(st.floats(0, 0.8), st.floats(0, 0.8)),
    extent=st.tuples(st.floats(0.1, 1), st.floats(0.1, 1)),
    margin=st.sampled_from([0.0, 0.1, 0.5, 3.0]),
)
def test_a_window_lies_in_its_picture_and_holds_the_lesion(tmp_path_factory, size, corner, extent, margin):
    width, height = size
    path = saved(tmp_path_factory.mktemp("crop"), np.zeros((height, width, 3)))
    left, top = corner[0] * width, corner[1] * height
    right, bottom = left + extent[0] * (width - left), top + extent[1] * (height - top)
    window = window_of(Region(path, None, Box(left, top, right, bottom)), Crop(region="box", margin=margin))
    assert 0 <= window.left <= width - window.side and 0 <= window.top <= height - window.side
    longer = max(right - left, bottom - top)
    if longer * (1 + 2 * margin) <= min(width, height):
        assert window.side == max(1, round(longer * (1 + 2 * margin)))
        assert window.left <= left + 1 and right <= window.left + window.side + 1
        assert window.top <= top + 1 and bottom <= window.top + window.side + 1
    else:
        assert window.side == min(width, height)


def test_a_mask_gives_the_window_of_its_box(tmp_path):
    path = saved(tmp_path, np.zeros((40, 60, 3)))
    mask = np.zeros((40, 60))
    mask[10:20, 30:38] = 255
    region = Region(path, saved(tmp_path, mask, "mask.png"))
    assert window_of(region, Crop(region="mask", margin=0.0)) == Window(29, 10, 10)
    assert window_of(region, BOX) is None


@pytest.mark.parametrize(("name", "options"), [("picture.png", {}), ("picture.jpg", {"quality": 95})])
def test_a_window_is_decoded_as_if_it_were_the_picture(tmp_path, name, options):
    """Also of a large JPEG file, whose decoder skips detail."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (12, 15, 3), dtype=np.uint8)
    pixels = np.asarray(Image.fromarray(coarse).resize((1500, 1200), Image.Resampling.BICUBIC))
    path = saved(tmp_path, pixels, name, **options)
    window = Window(400, 300, 512)
    (seen,) = decode(path, [32], None, window)
    alone = saved(tmp_path, pixels[300:812, 400:912], f"part-{name}", **options)
    (expected,) = decode(alone, [32])
    assert np.abs(seen.astype(int) - expected).mean() < 4
    (whole,) = decode(path, [32])
    assert np.abs(seen.astype(int) - whole).mean() > 15


def table(folder, boxes):
    names = [f"{number}.png" for number in range(len(boxes))]
    for number, name in enumerate(names):
        pixels = np.zeros((32, 48, 3), np.uint8)
        pixels[4:12, 2:10] = 200 + number
        saved(folder, pixels, name)
    columns = {name: [box and box[place] for box in boxes] for place, name in enumerate(("x0", "y0", "x1", "y1"))}
    return make_manifest(names, ["a", "b"] * (len(names) // 2), root=folder, attributes=columns)


def test_a_store_holds_the_cropped_pictures_and_whole_ones_without_a_lesion(tmp_path):
    manifest = table(tmp_path, [(2, 4, 10, 12), None])
    store, bad = build_store(manifest, 8, tmp_path / "cache", crop=BOX)
    assert not bad
    np.testing.assert_array_equal(store.pixels[0], np.full((8, 8, 3), 200))
    plain, _ = build_store(manifest, 8, tmp_path / "cache")
    np.testing.assert_array_equal(store.pixels[1], plain.pixels[1])
    assert plain.folder != store.folder
    wider, _ = build_store(manifest, 8, tmp_path / "cache", crop=replace(BOX, margin=0.5))
    assert wider.folder != store.folder and (wider.pixels[0] == 0).any()
    moved = table(tmp_path, [(2, 4, 10, 11), None])
    assert build_store(moved, 8, tmp_path / "cache", crop=BOX)[0].folder != store.folder


def test_a_box_that_does_not_fit_is_refused_or_left_out(tmp_path):
    manifest = table(tmp_path, [(60, 4, 70, 12), (2, 4, 10, 12)])
    rule = r"every mask and box must fit its picture, but row 0 \(0.png\): a box must be in its"
    with pytest.raises(DataError, match=rule):
        windows_of(manifest, BOX)
    assert windows_of(manifest, BOX, "skip") == [None, Window(2, 4, 8)]
    assert windows_of(manifest, Crop()) == [None, None]
