"""Rows without labels, from every kind of source: they keep no label, and the classes are those of the others."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysk.data.folds.dividing import FoldSettings, make_folds
from raysk.data.manifest import NO_LABEL, Manifest
from raysk.data.sources import Collection, DataSettings, load_manifest
from raysk.data.sources.duplicates import without_duplicates
from raysk.errors import ConfigError, DataError

LINES = ["image,label,lesion", "0.png,nv,a", "1.png,mel,b", "2.png,,c", "3.png,mel,a", "4.png,nan,d", "5.png,nv,e"]


@pytest.fixture
def table(tmp_path, write_images, write_table):
    write_images(tmp_path, [f"{number}.png" for number in range(6)])
    return write_table(tmp_path / "lesions.csv", *LINES)


def labels_of(manifest: Manifest) -> dict[str, str]:
    """The class, or "unlabelled", of each image; their roles agree."""
    assert [role == "unlabelled" for role in manifest.roles] == (manifest.labels == NO_LABEL).tolist()
    names = map(manifest.class_name, manifest.labels.tolist())
    return dict(zip(manifest.table.column("image").to_pylist(), names, strict=True))


def test_blank_labels_are_refused_unless_they_are_unlabelled(table, load):
    with pytest.raises(DataError, match=r"row 2 \('2.png'\) has none \(2 in all\): .* set data.on_blank=unlabelled$"):
        load("csv", table)
    manifest = load("csv", table, on_blank="unlabelled")
    assert list(labels_of(manifest).values()) == ["nv", "mel", "unlabelled", "mel", "unlabelled", "nv"]
    assert manifest.class_names == ("mel", "nv")
    assert manifest.class_counts.tolist() == [2, 2]
    assert manifest.unlabelled_rows.tolist() == [2, 4]


def test_a_column_of_roles_names_unlabelled_rows_whose_labels_are_ignored(tmp_path, write_images, write_table, load):
    write_images(tmp_path, [f"{number}.png" for number in range(5)])
    path = write_table(tmp_path / "t.csv", "image,label,part", "0.png,nv,", "1.png,mel,train",
                       "2.png,strange,unlabelled", "3.png,,unlabelled", "4.png,nv,test")  # fmt: skip
    manifest = load("csv", path, role="part")
    assert list(labels_of(manifest).values()) == ["nv", "mel", "unlabelled", "unlabelled", "nv"]
    assert manifest.class_names == ("mel", "nv")
    with pytest.raises(DataError, match=r"'test', 'train_only', 'unlabelled', .* but got 'nv' in row 0"):
        load("csv", path, role="label")


def test_a_scored_row_must_have_a_label(tmp_path, write_images, write_table, load):
    write_images(tmp_path, [f"{number}.png" for number in range(4)])
    path = write_table(
        tmp_path / "t.csv", "image,label,role", "0.png,nv,", "1.png,mel,", "2.png,,test", "3.png,,train_only"
    )
    with pytest.raises(
        DataError, match=r"with the role test must have a label, but row 2 .* \(1 in all\): fill in the l"
    ):
        load("csv", path, on_blank="unlabelled")


@pytest.mark.parametrize("cells", ["0,0,0", ",,", "nan,0,"])
def test_a_row_of_a_one_hot_table_without_a_one(tmp_path, write_images, write_table, load, cells):
    write_images(tmp_path, [f"{number}.png" for number in range(4)])
    path = write_table(
        tmp_path / "t.csv", "image,MEL,NV,BCC", "0.png,1,0,0", "1.png,0,1,0", "2.png,0,0,1", f"3.png,{cells}"
    )
    with pytest.raises(DataError):
        load("csv", path, label="MEL+NV+BCC")
    manifest = load("csv", path, label="MEL+NV+BCC", on_blank="unlabelled")
    assert labels_of(manifest)["3.png"] == "unlabelled"
    path = write_table(
        tmp_path / "t.csv", "image,MEL,NV,BCC", "0.png,1,0,0", "1.png,0,1,0", "2.png,0,0,1", "3.png,1,1,0"
    )
    with pytest.raises(DataError, match=r"row 3 of t.csv has 'MEL' and 'NV'"):
        load("csv", path, label="MEL+NV+BCC", on_blank="unlabelled")


def beside(table, source: str, path, **settings: object) -> Manifest:
    """Loads the labelled table with an unlabelled collection beside it."""
    members = [
        {"source": "csv", "name": "known", "path": str(table), "on_blank": "unlabelled", "group": "lesion"},
        {"source": source, "name": "more", "path": str(path), "role": "unlabelled", **settings},
    ]
    return load_manifest(DataSettings.from_plain({"source": "several", "collections": members}), table.parent / "cache")


def added_by(manifest: Manifest) -> list[str]:
    """The unlabelled images of the second collection, without its name."""
    names = [name for name, label in labels_of(manifest).items() if label == "unlabelled"]
    assert manifest.class_names == ("mel", "nv")
    return [name.removeprefix("more/") for name in names if name.startswith("more/")]


def test_a_table_without_labels_beside_a_labelled_one(table, tmp_path, write_images, write_table):
    write_images(tmp_path / "more", ["a.png", "b.png"])
    path = write_table(tmp_path / "more" / "list.csv", "file", "a.png", "b.png")
    assert added_by(beside(table, "csv", path, image="file")) == ["a.png", "b.png"]


def test_a_folder_without_classes_beside_a_labelled_table(table, tmp_path, write_images):
    write_images(tmp_path / "more", ["b.png", "deep/er/a.jpg", "masks/b.png"])
    assert added_by(beside(table, "folder", tmp_path / "more")) == ["b.png", "deep/er/a.jpg"]
    with pytest.raises(DataError, match=r"data.more.path must be a folder with images, but .* holds none"):
        (tmp_path / "empty").mkdir()
        beside(table, "folder", tmp_path / "empty")


def test_publishers_need_no_column_of_labels(table, tmp_path, write_images, write_table):
    def published(source: str, name: str, *lines: str, image: str = "x.jpg") -> list[str]:
        write_images(tmp_path / source, [image])
        write_table(tmp_path / source / name, *lines)
        return added_by(beside(table, source, tmp_path / source))

    assert published("ham10000", "HAM10000_metadata.csv", "lesion_id,image_id", "L1,x") == ["x.jpg"]
    assert published("padufes20", "metadata.csv", "patient_id,lesion_id,img_id", "P,L,x.png", image="x.png") == [
        "x.png"
    ]
    assert published("isic2017", "ISIC-2017_Training_Part3_GroundTruth.csv", "image_id", "x") == ["x.jpg"]
    assert published("isic2018", "ISIC2018_Task3_Training_GroundTruth.csv", "image", "x") == ["x.jpg"]
    assert published("isic2019", "ISIC_2019_Training_GroundTruth.csv", "image,UNK", "x,1") == ["x.jpg"]
    assert published("isic2020", "train.csv", "image_name,patient_id", "x,P") == ["x.jpg"]
    assert published("isic2024", "train-metadata.csv", "isic_id,patient_id", "x,P") == ["x.jpg"]


def test_labels_of_publishers_are_ignored(table, tmp_path, write_images, write_table):
    write_images(tmp_path / "ham", ["x.jpg", "y.jpg"])
    write_table(tmp_path / "ham" / "HAM10000_metadata.csv", "lesion_id,image_id,dx", "L1,x,bcc", "L1,y,")
    manifest = beside(table, "ham10000", tmp_path / "ham")
    assert added_by(manifest) == ["x.jpg", "y.jpg"]
    groups = dict(zip(manifest.table.column("image").to_pylist(), manifest.group_names.tolist(), strict=True))
    assert groups["more/x.jpg"] == groups["more/y.jpg"] == "more/L1"


def test_huggingface_directories_need_no_labels(table, tmp_path, write_images):
    write_images(tmp_path / "images", ["train/a.png", "b.png"])
    assert added_by(beside(table, "hf", tmp_path / "images")) == ["b.png", "train/a.png"]
    cells = [{"bytes": (tmp_path / "images" / name).read_bytes(), "path": None} for name in ("b.png", "train/a.png")]
    (tmp_path / "packed").mkdir()
    pq.write_table(pa.table({"image": cells}), tmp_path / "packed" / "test-00000-of-00001.parquet")
    assert added_by(beside(table, "hf", tmp_path / "packed")) == ["test/0000000.png", "test/0000001.png"]


def test_a_class_map_of_unlabelled_rows_is_refused(table, tmp_path, write_images):
    write_images(tmp_path / "more", ["b.png"])
    with pytest.raises(
        DataError, match=r"^data.more.classes_map must not be set for .*, whose rows are all unlabelled"
    ):
        beside(table, "folder", tmp_path / "more", classes_map={"NV": "nv"})


def test_a_class_map_leaves_unlabelled_rows_in(table, load):
    manifest = load("csv", table, on_blank="unlabelled", classes_map={"nv": "naevus", "mel": "mel"}, map="usual")
    assert list(labels_of(manifest).values()) == ["naevus", "mel", "unlabelled", "mel", "unlabelled", "naevus"]


def test_a_dataset_without_any_label_is_refused(table, load):
    with pytest.raises(DataError, match=r"must have a class, but got none: .*add a labelled collection"):
        load("csv", table, role="unlabelled")


@pytest.mark.parametrize("source", ["csv", "folder"])
def test_a_misspelt_role_is_refused(table, load, source):
    with pytest.raises((ConfigError, DataError), match="unlabeled"):
        load(source, table if source == "csv" else table.parent, role="unlabeled")


def test_of_duplicates_the_labelled_one_is_kept_and_its_lesion_is_joined(tmp_path):
    def collection(images: list[str], groups: list[str], role: str) -> Collection:
        labels = ["" if role == "unlabelled" else "nv"] * len(images)
        return Collection("t.csv", tmp_path, images, images, labels, {"group": groups}, [role] * len(images))

    unlabelled = collection(["ISIC_0000001.jpg", "ISIC_0000002.jpg"], ["L", "L"], "unlabelled")
    labelled = collection(["ISIC_0000001.jpg", "ISIC_0000003.jpg"], ["x", "y"], "")
    parts, groups = without_duplicates(["more", "known"], [unlabelled, labelled])
    assert [list(part.images) for part in parts] == [["ISIC_0000002.jpg"], ["ISIC_0000001.jpg", "ISIC_0000003.jpg"]]
    assert groups is not None
    assert groups[0] == groups[1] != groups[2], "the other photograph of the lesion stays, in its group"


def test_an_unlabelled_row_may_share_a_group_with_rows_of_any_role(tmp_path, write_images, write_table, load):
    write_images(tmp_path, [f"{number}.png" for number in range(9)])
    lines = [f"{row}.png,{'nv' if row % 2 else 'mel'},{'test' if row > 5 else ''},g{row}" for row in range(8)]
    path = write_table(tmp_path / "t.csv", "image,label,role,group", *lines, "8.png,,unlabelled,g1")
    folds = make_folds(load("csv", path), FoldSettings(k=2))
    for fold in range(2):
        assert (folds.unlabelled_rows(fold).tolist() == []) == (1 in folds.held_out_rows(fold))
