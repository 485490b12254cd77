from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysk.data.manifest import Manifest, make_manifest
from raysk.errors import ArtifactError, DataError

IMAGES = ["a.png", "b.png", "c.png", "d.png"]
LABELS = ["nv", "mel", "nv", "bkl"]
GROUPS = ["g2", "g1", "g2", "g3"]


def manifest(**changes: object) -> Manifest:
    columns = {"images": IMAGES, "labels": LABELS, "groups": GROUPS, "root": Path("/data"), **changes}
    return make_manifest(columns.pop("images"), columns.pop("labels"), **columns)


def test_codes_follow_class_names_and_groups_follow_first_appearance() -> None:
    plain = manifest()
    assert plain.class_names == ("bkl", "mel", "nv")
    assert plain.labels.tolist() == [2, 1, 2, 0] and plain.labels.dtype == np.int64
    assert plain.groups.tolist() == [0, 1, 0, 2] and plain.groups.dtype == np.int64
    assert plain.class_counts.tolist() == [1, 1, 2]
    assert plain.paths[3] == Path("/data/d.png")
    assert plain.grouped and len(plain) == 4
    assert manifest(class_names=("nv", "mel", "bkl")).labels.tolist() == [0, 1, 0, 2]


def test_absolute_paths_do_not_depend_on_the_root() -> None:
    assert manifest(images=["/x/a.png", *IMAGES[1:]]).paths[:2] == [Path("/x/a.png"), Path("/data/b.png")]


def test_without_groups_each_row_is_its_own_group() -> None:
    plain = manifest(groups=None)
    assert not plain.grouped
    assert plain.groups.tolist() == [0, 1, 2, 3]


def test_the_digest_depends_on_the_content_only() -> None:
    digest = manifest().digest
    assert manifest(root=Path("/elsewhere"), attributes={"age": [1, 2, 3, 4]}).digest == digest
    others = [
        manifest(images=["z.png", *IMAGES[1:]]),
        manifest(labels=["mel", "mel", "nv", "bkl"]),
        manifest(groups=["g2", "g1", "g1", "g3"]),
        manifest(groups=IMAGES),
        manifest(groups=None),
        manifest(roles=["test", "", "", ""]),
        manifest(class_names=("nv", "mel", "bkl")),
        manifest(images=IMAGES[::-1], labels=LABELS[::-1], groups=GROUPS[::-1]),
    ]
    assert len({digest, *(other.digest for other in others)}) == 1 + len(others)


def test_removing_rows_keeps_the_order_and_must_not_empty_a_class() -> None:
    fewer = manifest(attributes={"age": [10, 20, 30, 40]}).without([0])
    assert fewer.table.column("image").to_pylist() == IMAGES[1:]
    assert fewer.table.column("age").to_pylist() == [20, 30, 40]
    assert fewer.labels.tolist() == [1, 2, 0]
    with pytest.raises(DataError, match="mel has none"):
        manifest().without([1])


def test_a_written_manifest_is_read_back(tmp_path: Path) -> None:
    before = manifest(
        root=tmp_path, class_names=("nv", "mel", "bkl"), attributes={"age": pa.array([1, None, 3, 4], pa.int64())}
    )
    before.write(tmp_path / "sub" / "manifest.parquet")
    after = Manifest.read(tmp_path / "sub" / "manifest.parquet")
    assert after.table.equals(before.table)
    assert (after.class_names, after.root, after.grouped) == (before.class_names, tmp_path, True)
    assert after.digest == before.digest
    assert not [path for path in (tmp_path / "sub").iterdir() if path.name != "manifest.parquet"]


def test_read_refuses_other_files(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="missing"):
        Manifest.read(tmp_path / "missing.parquet")
    (tmp_path / "text.parquet").write_text("no table")
    with pytest.raises(ArtifactError, match="must hold a manifest"):
        Manifest.read(tmp_path / "text.parquet")
    pq.write_table(pa.table({"image": ["a"]}), tmp_path / "other.parquet")
    with pytest.raises(ArtifactError, match="another Parquet file"):
        Manifest.read(tmp_path / "other.parquet")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": ["a.png", "b.png", "a.png", "d.png"]}, "'a.png' is in 2"),
        ({"labels": ["nv", None, "nv", "bkl"]}, "label, but row 1 .'b.png'. has none"),
        ({"labels": ["nv", "mel", "nv", ""]}, "row 3 .'d.png'. has none"),
        ({"groups": ["g", "", "g", "h"]}, "group, but row 1"),
        ({"images": ["a.png", "", "c.png", "d.png"]}, "image, but row 1"),
        ({"class_names": ("bkl", "mel", "nv", "df")}, "df has none"),
        ({"class_names": ("bkl", "nv")}, "'mel' in row 1"),
        ({"class_names": ("bkl", "mel", "nv", "nv")}, "must differ"),
        ({"roles": ["", "validation", "", ""]}, "'validation' in row 1"),
        ({"images": [], "labels": [], "groups": []}, "must have a class, but got none"),
    ],
)
def test_invalid_columns_are_refused_in_one_line(changes: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        manifest(**changes)
    assert "\n" not in str(caught.value)


def test_a_missing_or_mistyped_column_is_named() -> None:
    table = manifest().table
    with pytest.raises(DataError, match="add 'role'"):
        Manifest(table.drop(["role"]), Path(), ("bkl", "mel", "nv"), True)
    with pytest.raises(DataError, match="'label' of a manifest must hold strings, but got int64"):
        Manifest(table.set_column(1, "label", pa.array([1, 2, 1, 3])), Path(), ("1", "2", "3"), True)
