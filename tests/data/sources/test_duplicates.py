"""Collections with common pictures: each is kept once, and no model trains on a lesion that it is scored on."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from raysk.data.folds.assignment import TRAIN_ONLY
from raysk.data.folds.dividing import FoldSettings, make_folds
from raysk.data.sources import Collection, DataSettings, load_manifest
from raysk.data.sources.duplicates import without_duplicates
from raysk.errors import DataError

ROLES = ["", "test", "train_only"]


def collection_of(root, rows, roles=None, grouped=True):
    """Makes a collection of (image, group)."""
    images = [image for image, _ in rows]
    groupings = {"group": [group for _, group in rows]} if grouped else {}
    return Collection("table.csv", root, images, images, ["nv"] * len(rows), groupings, roles)


def groups_of(parts, groups):
    """Returns the groups as sets of (collection, image)."""
    rows = [(number, image) for number, part in enumerate(parts) for image in part.images]
    rows_by_group = {}
    for row, group in zip(rows, groups, strict=True):
        rows_by_group.setdefault(group, set()).add(row)
    return {frozenset(rows) for rows in rows_by_group.values()}


def test_rows_with_one_archive_name_are_duplicates_whatever_their_files(tmp_path):
    first = collection_of(tmp_path, [("a/ISIC_0000001.jpg", "L1"), ("a/ISIC_0000002.jpg", "L2")])
    second = collection_of(tmp_path, [("b/ISIC_0000002_downsampled.png", "x"), ("b/isic_0000003.jpg", "y")])
    parts, groups = without_duplicates(["one", "other"], [first, second])
    assert [list(part.images) for part in parts] == [list(first.images), ["b/isic_0000003.jpg"]]
    assert groups == ["one/L1", "one/L2", "other/y"]


def test_rows_with_other_equal_names_are_duplicates_if_their_bytes_are_equal(tmp_path):
    for folder, content in (("a", b"one"), ("b", b"one"), ("c", b"another")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "1.jpg").write_bytes(content)
    unique = [(f"{place}/own-{place}.jpg", place) for place in "abc"]
    parts = [collection_of(tmp_path, [(f"{place}/1.jpg", "g"), unique["abc".index(place)]]) for place in "abc"]
    kept, groups = without_duplicates(["a", "b", "c"], parts)
    assert [list(part.images) for part in kept] == [["a/1.jpg", "a/own-a.jpg"], ["b/own-b.jpg"],
                                                    ["c/1.jpg", "c/own-c.jpg"]]  # fmt: skip
    assert groups == ["a/g", "a/a", "b/b", "c/g", "c/c"]


def test_a_duplicate_joins_its_groups_and_groups_of_equal_name(tmp_path):
    first = collection_of(tmp_path, [("ISIC_0000001", "HAM_1"), ("ISIC_0000002", "HAM_2"), ("ISIC_0000003", "own")])
    second = collection_of(
        tmp_path, [("ISIC_0000001", "HAM_1"), ("ISIC_0000004", "HAM_1"), ("ISIC_0000005", "HAM_2"), ("6", "own too")]
    )
    parts, groups = without_duplicates(["one", "other"], [first, second])
    assert groups_of(parts, groups) == {
        frozenset({(0, "ISIC_0000001"), (1, "ISIC_0000004")}),
        frozenset({(0, "ISIC_0000002"), (1, "ISIC_0000005")}),
        frozenset({(0, "ISIC_0000003")}),
        frozenset({(1, "6")}),
    }


def test_groups_of_equal_name_stay_apart_without_a_duplicate_that_links_them(tmp_path):
    first = collection_of(tmp_path, [("a", "1"), ("ISIC_0000001", "2")])
    second = collection_of(tmp_path, [("b", "1"), ("ISIC_0000001", "3"), ("c", "3")])
    parts, groups = without_duplicates(["one", "other"], [first, second])
    assert groups_of(parts, groups) == {
        frozenset({(0, "a")}), frozenset({(1, "b")}), frozenset({(0, "ISIC_0000001"), (1, "c")}),
    }  # fmt: skip


@pytest.mark.parametrize("first", [True, False])
def test_the_scored_duplicate_is_kept_and_no_row_of_its_lesion_only_trains(tmp_path, first, caplog):
    scored = collection_of(tmp_path, [("ISIC_0000001", "L1"), ("ISIC_0000002", "L2")])
    outside = [("ISIC_0000001", "L1"), ("ISIC_0000003", "L1"), ("ISIC_0000004", "L2"), ("ISIC_0000005", "L5")]
    outside = collection_of(tmp_path, outside, roles=["train_only"] * 4)
    order = [scored, outside] if first else [outside, scored]
    parts, _ = without_duplicates(["a", "b"], order)
    kept = {image for part in parts for image in part.images}
    assert kept == {"ISIC_0000001", "ISIC_0000002", "ISIC_0000005"}
    name = "b" if first else "a"
    assert f"{name}: left out 1 picture that another collection also has" in caplog.text
    assert f"{name}: left out 2 train_only pictures of groups that another collection has" in caplog.text


def test_a_collection_of_duplicates_only_is_refused(tmp_path):
    part = collection_of(tmp_path, [("ISIC_0000001", "L1")])
    with pytest.raises(DataError, match="others have all pictures of two: remove two"):
        without_duplicates(["one", "two"], [part, part])


def test_collections_without_groups_stay_without(tmp_path):
    parts = [collection_of(tmp_path, [("ISIC_0000001", ""), (f"{number}", "")], grouped=False) for number in range(2)]
    kept, groups = without_duplicates(["a", "b"], parts)
    assert ([len(part.names) for part in kept], groups) == ([2, 1], None)


@given(
    rows=st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 12), st.integers(0, 4), st.sampled_from(ROLES)),
        min_size=1, max_size=30, unique_by=lambda row: row[:2],
    )
)  # fmt: skip
@settings(max_examples=200, deadline=None)
def test_no_picture_is_kept_twice_and_no_scored_lesion_only_trains_elsewhere(rows):
    """Rows are (collection, picture, lesion, role); each collection also has a row that no other has."""
    parts = []
    for number in range(3):
        whole = [(f"own-{number}", f"own-{number}", "")]
        whole += [(f"ISIC_{picture:07d}", f"L{lesion}", role) for part, picture, lesion, role in rows if part == number]
        parts.append(collection_of(Path(), [row[:2] for row in whole], roles=[row[2] for row in whole]))
    kept_parts, groups = without_duplicates(["a", "b", "c"], parts)
    kept = [image for part in kept_parts for image in part.images]
    assert len(kept) == len(set(kept)), "a picture twice"
    before = {image for part in parts for image in part.images}
    roles = [role for part in kept_parts for role in part.roles]
    scored = {group for group, role in zip(groups, roles, strict=True) if role != "train_only"}
    where = [number for number, part in enumerate(kept_parts) for _ in part.images]
    for group in {group for group, role in zip(groups, roles, strict=True) if role == "train_only"} & scored:
        # Such a group is within one collection, which mixes the roles of a lesion itself and is refused later.
        assert len({number for number, other in zip(where, groups, strict=True) if other == group}) == 1
    assert {image for image in before if image.startswith("own")} <= set(kept)


def test_ham10000_within_isic2019_does_not_leak(tmp_path, write_table):
    """ISIC 2019 has all of HAM10000 under the same names, and also other images of the same lesions."""
    rng = np.random.default_rng(0)
    ham, isic = tmp_path / "ham", tmp_path / "isic"
    for folder in (ham / "images", isic / "images"):
        folder.mkdir(parents=True)
    classes, lines, truth, lesions = ("nv", "mel", "bkl"), [], [], []
    for number in range(90):
        name, lesion, label = f"ISIC_{number:07d}", f"HAM_{number // 2}", classes[number // 2 % 3]
        pixels = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        if number < 60:
            pixels.save(ham / "images" / f"{name}.jpg", quality=90)
            lines.append(f"{lesion},{name},{label},histo,50,male,back")
        pixels.save(isic / "images" / f"{name}.jpg", quality=70)
        truth.append(
            f"{name},"
            + ",".join(str(int(label == column)) for column in ("mel", "nv", "bcc", "ak", "bkl"))
            + ",0,0,0,0"
        )
        # Every second image outside of HAM10000 shows a lesion of HAM10000 again.
        shown = number - 40 if number >= 60 and number % 2 else number
        lesions.append(f"{name},50,back,HAM_{shown // 2},male")
    write_table(ham / "HAM10000_metadata.csv", "lesion_id,image_id,dx,dx_type,age,sex,localization", *lines)
    write_table(isic / "ISIC_2019_Training_GroundTruth.csv", "image,MEL,NV,BCC,AK,BKL,DF,VASC,SCC,UNK", *truth)
    write_table(
        isic / "ISIC_2019_Training_Metadata.csv", "image,age_approx,anatom_site_general,lesion_id,sex", *lesions
    )
    members = [{"source": "ham10000", "name": "ham", "path": str(ham)},
               {"source": "isic2019", "name": "isic", "path": str(isic), "role": "train_only"}]  # fmt: skip
    plain = {"source": "several", "map": "usual", "collections": members}
    manifest = load_manifest(DataSettings.from_plain(plain), tmp_path / "cache")
    stems = [path.stem for path in manifest.paths]
    assert len(stems) == len(set(stems))
    fold = make_folds(manifest, FoldSettings(k=3)).divisions[0]
    ham_lesions = {line.split(",")[1]: line.split(",")[0] for line in lines}
    isic_lesions = {line.split(",")[0]: line.split(",")[3] for line in lesions}
    scored = {ham_lesions[stem] for stem, part in zip(stems, fold, strict=True) if part != TRAIN_ONLY}
    trained = {isic_lesions[stem] for stem, part in zip(stems, fold, strict=True) if part == TRAIN_ONLY}
    assert not scored & trained
    assert len(scored) == 30
