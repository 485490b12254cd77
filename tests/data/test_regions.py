"""Masks and boxes: scaled as their pictures are, and refused where they do not fit them."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from raysk.data.manifest import make_manifest
from raysk.data.regions import Box, Region, box_of, regions_of, rows_with, scaled_region
from raysk.data.store.decoding import decode


def picture(folder, width, height, name="picture.png"):
    path = folder / name
    Image.fromarray(np.full((height, width, 3), 90, np.uint8)).save(path)
    return path


def saved(folder, mask, name="mask.png"):
    path = folder / name
    Image.fromarray(np.asarray(mask, np.uint8)).save(path)
    return path


@pytest.fixture
def region_of(tmp_path):
    def make(width, height, mask=None, box=None):
        file = None if mask is None else saved(tmp_path, mask)
        return Region(picture(tmp_path, width, height), file, None if box is None else Box(*box))

    return make


@settings(max_examples=40, deadline=None)
@given(
    width=st.integers(16, 90), height=st.integers(16, 90), size=st.sampled_from([16, 32, 48]), seed=st.integers(0, 999)
)
def test_a_mask_and_a_box_are_where_the_picture_shows_the_lesion(tmp_path_factory, width, height, size, seed):
    """A picture that is bright in a box, decoded as the image store does, is bright where its mask and box are."""
    folder, random = tmp_path_factory.mktemp("regions"), np.random.default_rng(seed)
    left, top = random.integers(0, width - 6), random.integers(0, height - 6)
    right, bottom = random.integers(left + 5, width), random.integers(top + 5, height)
    mask = np.zeros((height, width), np.uint8)
    mask[top:bottom, left:right] = 255
    path = folder / "picture.png"
    Image.fromarray(np.repeat(mask[:, :, None], 3, axis=2)).save(path)
    region = Region(path, saved(folder, mask), Box(left, top, right, bottom))
    scaled = scaled_region(region, size)
    (pixels,) = decode(path, [size])
    bright = pixels[:, :, 0] > 127
    if bright.any():
        assert scaled.mask is not None and ((scaled.mask > 0) != bright).mean() < 0.06
        assert np.abs(np.array(scaled.box) - np.array(box_of(bright.astype(np.uint8)))).max() <= 1.0
    elif scaled.mask is not None:
        assert (scaled.mask > 0).mean() < 0.02


def test_a_soft_edge_is_cut_in_the_middle_and_levels_are_relative(region_of):
    soft = np.zeros((20, 20), np.uint8)
    soft[5:15, 5:15], soft[6:14, 6:14] = 100, 255
    assert box_of(scaled_region(region_of(20, 20, soft), 20).mask) == Box(6, 6, 14, 14)
    for bright in (1, 255):
        whole = np.full((20, 20), 0, np.uint8)
        whole[3:9, 4:10] = bright
        assert box_of(scaled_region(region_of(20, 20, whole), 20).mask) == Box(4, 3, 10, 9)


def test_an_empty_mask_is_none_and_a_full_one_is_the_picture(region_of):
    assert scaled_region(region_of(20, 20, np.zeros((20, 20))), 16).mask is None
    assert (scaled_region(region_of(20, 20, np.full((20, 20), 255)), 16).mask == 255).all()


def test_a_picture_on_its_side_has_the_mask_of_its_upright_form(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "turned.jpg"
    Image.fromarray(np.full((20, 40, 3), 90, np.uint8)).save(path, exif=exif)
    mask = np.zeros((40, 20), np.uint8)
    mask[10:20, 5:15] = 255
    assert scaled_region(Region(path, saved(tmp_path, mask)), 20).mask is not None
    with pytest.raises(ValueError, match="a mask must have the size of its picture, 20 by 40, but has 40 by 20"):
        scaled_region(Region(path, saved(tmp_path, mask.T, "other.png")), 20)


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ((30, 2, 10, 8), "x0 and y0 of a box must be less than x1 and y1, but got 30 2 10 8"),
        ((0.1, 0.1, 0.5, 0.9), "a box must be in pixels, but 0.1 0.1 0.5 0.9 is in shares of the picture"),
        ((50, 2, 60, 8), "a box must be in its picture of 40 by 20 pixels, but is 50 2 60 8"),
        ((-9, 2, 0, 8), "a box must be in its picture"),
    ],
)
def test_a_box_that_does_not_fit_is_refused(region_of, box, message):
    with pytest.raises(ValueError, match=message):
        scaled_region(region_of(40, 20, box=box), 16)


def test_a_box_beyond_the_border_is_clipped_and_one_beside_the_centre_is_none(region_of):
    assert scaled_region(region_of(40, 20, box=(5, -3, 25, 10)), 20).box == Box(0, 0, 15, 10)
    assert scaled_region(region_of(40, 20, box=(0, 0, 9, 20)), 20).box is None


def test_classes_in_a_mask_are_refused(region_of):
    mask = np.zeros((20, 20), np.uint8)
    mask[5:9, 5:9], mask[10:14, 5:9] = 1, 2
    with pytest.raises(ValueError, match="a mask must be of one lesion, but has the classes 0, 1, 2"):
        scaled_region(region_of(20, 20, mask), 16)


def table(tmp_path, **attributes):
    names = [f"{number}.png" for number in range(4)]
    for name in names:
        picture(tmp_path, 20, 20, name)
    columns = {name: pa.array(values) for name, values in attributes.items()}
    return make_manifest(names, ["a", "b", "a", "b"], root=tmp_path, attributes=columns)


def test_a_manifest_may_know_the_regions_of_some_rows(tmp_path):
    manifest = table(
        tmp_path, mask=["m.png", "", None, " nan "], x0=[1, None, 3, 4], y0=[1, None, 3, 4], x1=[5, None, 9, 9.5],
        y1=[5, None, 9, 9],
    )  # fmt: skip
    regions = regions_of(manifest)
    assert [region.mask and region.mask.name for region in regions] == ["m.png", None, None, None]
    assert [region.box for region in regions] == [Box(1, 1, 5, 5), None, Box(3, 3, 9, 9), Box(4, 4, 9.5, 9)]
    assert rows_with(manifest, "mask").tolist() == [True, False, False, False]
    assert rows_with(manifest, "box").tolist() == [True, False, True, True]
    assert not rows_with(table(tmp_path), "box").any()


def test_half_a_box_and_words_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"a box must have four edges, but got 1 1 \(blank\) 5"):
        regions_of(table(tmp_path, x0=[1] * 4, y0=[1] * 4, x1=[None] * 4, y1=[5] * 4))
    with pytest.raises(ValueError, match="left"):
        regions_of(table(tmp_path, x0=["left"] * 4, y0=["1"] * 4, x1=["2"] * 4, y1=["5"] * 4))
