"""Collections that have pictures in common: each is kept once, and nothing of a lesion that is scored is learnt."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from raysk.data.folds.assignment import TRAIN_ONLY
from raysk.data.folds.dividing import FoldSettings, make_folds
from raysk.data.sources import Collection, DataSettings, load_manifest
from raysk.data.sources.duplicates import without_doubles
from raysk.errors import DataError

ROLES = ["", "test", "train_only"]


def collection_of(root, rows, roles=None, grouped=True):
    """Makes a collection of (image, group)."""
    images = [image for image, _ in rows]
    groupings = {"group": [group for _, group in rows]} if grouped else {}
    return Collection("table.csv", root, images, images, ["nv"] * len(rows), groupings, roles)


def groups_of(parts, groups):
    """The groups as sets of (collection, image)."""
    rows = [(number, image) for number, part in enumerate(parts) for image in part.images]
    found = {}
    for row, group in zip(rows, groups, strict=True):
        found.setdefault(group, set()).add(row)
    return {frozenset(rows) for rows in found.values()}


def test_names_of_the_archive_are_one_picture_whatever_the_files(tmp_path):
    one = collection_of(tmp_path, [("a/ISIC_0000001.jpg", "L1"), ("a/ISIC_0000002.jpg", "L2")])
    other = collection_of(tmp_path, [("b/ISIC_0000002_downsampled.png", "x"), ("b/isic_0000003.jpg", "y")])
    parts, groups = without_doubles(["one", "other"], [one, other])
    assert [list(part.images) for part in parts] == [list(one.images), ["b/isic_0000003.jpg"]]
    assert groups == ["one/L1", "one/L2", "other/y"]


def test_other_names_are_one_picture_if_the_bytes_are(tmp_path):
    for folder, content in (("a", b"one"), ("b", b"one"), ("c", b"another")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "1.jpg").write_bytes(content)
    own = [(f"{place}/own-{place}.jpg", place) for place in "abc"]
    parts = [collection_of(tmp_path, [(f"{place}/1.jpg", "g"), own["abc".index(place)]]) for place in "abc"]
    found, groups = without_doubles(["a", "b", "c"], parts)
    assert [list(part.images) for part in found] == [["a/1.jpg", "a/own-a.jpg"], ["b/own-b.jpg"],
                                                     ["c/1.jpg", "c/own-c.jpg"]]  # fmt: skip
    assert groups == ["a/g", "a/a", "b/b", "c/g", "c/c"]


def test_a_double_joins_the_rest_of_its_groups_and_groups_of_one_name(tmp_path):
    one = collection_of(tmp_path, [("ISIC_0000001", "HAM_1"), ("ISIC_0000002", "HAM_2"), ("ISIC_0000003", "own")])
    other = collection_of(
        tmp_path, [("ISIC_0000001", "HAM_1"), ("ISIC_0000004", "HAM_1"), ("ISIC_0000005", "HAM_2"), ("6", "own too")]
    )
    parts, groups = without_doubles(["one", "other"], [one, other])
    assert groups_of(parts, groups) == {
        frozenset({(0, "ISIC_0000001"), (1, "ISIC_0000004")}),
        frozenset({(0, "ISIC_0000002"), (1, "ISIC_0000005")}),
        frozenset({(0, "ISIC_0000003")}),
        frozenset({(1, "6")}),
    }


def test_without_a_double_that_shows_it_names_of_groups_mean_nothing(tmp_path):
    one = collection_of(tmp_path, [("a", "1"), ("ISIC_0000001", "2")])
    other = collection_of(tmp_path, [("b", "1"), ("ISIC_0000001", "3"), ("c", "3")])
    parts, groups = without_doubles(["one", "other"], [one, other])
    assert groups_of(parts, groups) == {
        frozenset({(0, "a")}), frozenset({(1, "b")}), frozenset({(0, "ISIC_0000001"), (1, "c")}),
    }  # fmt: skip


@pytest.mark.parametrize("first", [True, False])
def test_what_is_scored_is_kept_and_nothing_of_its_lesion_is_learnt(tmp_path, first, caplog):
    scored = collection_of(tmp_path, [("ISIC_0000001", "L1"), ("ISIC_0000002", "L2")])
    outside = [("ISIC_0000001", "L1"), ("ISIC_0000003", "L1"), ("ISIC_0000004", "L2"), ("ISIC_0000005", "L5")]
    outside = collection_of(tmp_path, outside, roles=["train_only"] * 4)
    order = [scored, outside] if first else [outside, scored]
    parts, _ = without_doubles(["a", "b"], order)
    kept = {image for part in parts for image in part.images}
    assert kept == {"ISIC_0000001", "ISIC_0000002", "ISIC_0000005"}
    name = "b" if first else "a"
    assert f"{name}: left out 1 pictures that another collection has as well" in caplog.text
    assert f"{name}: left out 2 train_only pictures of groups that another collection has too" in caplog.text


def test_a_collection_without_a_picture_of_its_own_is_refused(tmp_path):
    part = collection_of(tmp_path, [("ISIC_0000001", "L1")])
    with pytest.raises(DataError, match="others have all of two's: remove it"):
        without_doubles(["one", "two"], [part, part])


def test_without_groups_there_are_none(tmp_path):
    parts = [collection_of(tmp_path, [("ISIC_0000001", ""), (f"{number}", "")], grouped=False) for number in range(2)]
    found, groups = without_doubles(["a", "b"], parts)
    assert ([len(part.names) for part in found], groups) == ([2, 1], None)


@given(
    rows=st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 12), st.integers(0, 4), st.sampled_from(ROLES)),
        min_size=1, max_size=30, unique_by=lambda row: row[:2],
    )
)  # fmt: skip
@settings(max_examples=200, deadline=None)
def test_whatever_is_joined_no_picture_is_there_twice_and_nothing_scored_is_learnt_outside(rows):
    """Rows of (collection, picture, lesion, role), of which each collection has one of its own besides."""
    parts = []
    for number in range(3):
        own = [(f"own-{number}", f"own-{number}", "")]
        of = [(f"ISIC_{picture:07d}", f"L{lesion}", role) for part, picture, lesion, role in rows if part == number]
        parts.append(collection_of(Path(), [row[:2] for row in own + of], roles=[row[2] for row in own + of]))
    found, groups = without_doubles(["a", "b", "c"], parts)
    kept = [image for part in found for image in part.images]
    assert len(kept) == len(set(kept)), "a picture twice"
    before = {image for part in parts for image in part.images}
    roles = [role for part in found for role in part.roles]
    scored = {group for group, role in zip(groups, roles, strict=True) if role != "train_only"}
    where = [number for number, part in enumerate(found) for _ in part.images]
    for group in {group for group, role in zip(groups, roles, strict=True) if role == "train_only"} & scored:
        # Only a collection that mixes the roles of a lesion itself, which is refused later.
        assert len({number for number, one in zip(where, groups, strict=True) if one == group}) == 1
    assert {image for image in before if image.startswith("own")} <= set(kept)


def test_no_image_of_a_tree_within_a_tree_leaks(tmp_path, write_table):
    """ISIC 2019 has all of HAM10000 under the same names, and outside of it other images of the same lesions."""
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
            f"{name}," + ",".join(str(int(label == one)) for one in ("mel", "nv", "bcc", "ak", "bkl")) + ",0,0,0,0"
        )
        # Outside of HAM10000 every other image is another one of a lesion within.
        seen = number - 40 if number >= 60 and number % 2 else number
        lesions.append(f"{name},50,back,HAM_{seen // 2},male")
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
    told = {line.split(",")[1]: line.split(",")[0] for line in lines}
    published = {line.split(",")[0]: line.split(",")[3] for line in lesions}
    scored = {told[stem] for stem, part in zip(stems, fold, strict=True) if part != TRAIN_ONLY}
    learnt = {published[stem] for stem, part in zip(stems, fold, strict=True) if part == TRAIN_ONLY}
    assert not scored & learnt
    assert len(scored) == 30
