"""The region store: complete, found again, shared, and refused where a region does not fit."""

import numpy as np
import pytest
from PIL import Image

from raysk.data.regions import box_of
from raysk.data.store.region_store import RegionStore, build_regions, find_regions
from raysk.errors import ArtifactError, DataError


def test_the_drawn_lesions_have_a_mask_and_a_box_each(manifest, tmp_path):
    store = build_regions(manifest, 32, tmp_path)
    assert len(store) == len(manifest) and store.masks.shape == (len(manifest), 32, 32)
    assert set(np.unique(store.masks)) == {0, 255} and np.isfinite(store.boxes).all()
    for mask, box in zip(store.masks, store.boxes, strict=True):
        np.testing.assert_allclose(box_of(mask), box, atol=1.01)


def test_a_store_is_found_again_and_travels_as_its_path(manifest, tmp_path):
    built = build_regions(manifest, 32, tmp_path)
    changed = (built.folder / "masks.npy").stat().st_mtime_ns
    again = build_regions(manifest, 32, tmp_path)
    assert again.folder == built.folder and (again.folder / "masks.npy").stat().st_mtime_ns == changed
    opener, arguments = built.__reduce__()
    np.testing.assert_array_equal(opener(*arguments).masks, built.masks)
    assert build_regions(manifest, 16, tmp_path).folder != built.folder


def test_another_machine_copies_it(manifest, tmp_path, s3):
    built = build_regions(manifest, 32, tmp_path / "here", shared=s3)
    copied = find_regions(built.key, tmp_path / "there", s3)
    assert copied is not None and copied.digest == built.digest
    np.testing.assert_array_equal(copied.masks, built.masks)
    assert find_regions("0" * 16, tmp_path / "there", s3) is None


def test_a_damaged_store_is_refused(manifest, tmp_path):
    store = build_regions(manifest, 32, tmp_path)
    (store.folder / "boxes.npy").write_bytes(b"")
    with pytest.raises(ArtifactError, match=r"must be a region store, but .*: remove the folder"):
        RegionStore.open(store.folder)


@pytest.fixture
def wrong_mask(manifest, tmp_path):
    """The manifest with a mask of another size in its first row."""
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "small.png")
    column = manifest.table.column_names.index("mask")
    masks = [str(tmp_path / "small.png"), *manifest.table.column("mask").to_pylist()[1:]]
    table = manifest.table.set_column(column, "mask", [masks])
    return type(manifest)(table, manifest.root, manifest.class_names, manifest.grouped)


def test_a_mask_that_does_not_fit_is_refused_or_left_out(wrong_mask, tmp_path, caplog):
    rule = r"every mask and box must fit its picture, but row 0 .* 9 by 9 \(1 in all\): correct them, blank"
    with pytest.raises(DataError, match=rule):
        build_regions(wrong_mask, 32, tmp_path / "cache")
    store = build_regions(wrong_mask, 32, tmp_path / "cache", "skip")
    assert not store.masks[0].any() and store.masks[1].any()
    assert "left out the regions of 1 rows" in caplog.text


def test_two_pictures_with_one_mask_are_refused(manifest, tmp_path):
    column = manifest.table.column_names.index("mask")
    masks = manifest.table.column("mask").to_pylist()
    table = manifest.table.set_column(column, "mask", [[masks[1], *masks[1:]]])
    twice = type(manifest)(table, manifest.root, manifest.class_names, manifest.grouped)
    with pytest.raises(DataError, match=r"a mask must belong to one picture, but .* correct data.mask"):
        build_regions(twice, 32, tmp_path)
