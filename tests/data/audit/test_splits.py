from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysk.data.audit.lists import read_list
from raysk.data.audit.splits import Entries, entries_of, normalised, read_split
from raysk.data.manifest import make_manifest
from raysk.errors import DataError


def split_of(folder: Path, train: str, test: str, **options: Path) -> Entries:
    (folder / "train.csv").write_text(train, encoding="utf-8")
    (folder / "test.txt").write_text(test, encoding="utf-8")
    return read_split({"train": folder / "train.csv", "test": folder / "test.txt"}, **options)


@pytest.mark.parametrize(
    "content",
    [
        "image,label\na b.jpg,nv\nc.png,mel\n",
        "\ufeffimage;label\r\na b.jpg;nv\r\nc.png;mel\r\n",
        "label\tFilename\nnv\ta b.jpg\nmel\tc.png\n",
        " image | dx \n a b.jpg | nv \n\n c.png | mel \n",
        "a b.jpg,nv\nc.png,mel\n",
        "nv,a b.jpg\nmel,c.png\n",
        "a b.jpg nv\nc.png   mel\n\n",
        "image,nv,mel\na b.jpg,1.0,0.0\nc.png,0.0,1.0\n",
    ],
)
def test_lists_in_all_dialects_are_read(tmp_path: Path, content: str) -> None:
    for written in (content.encode(), content.removeprefix("\ufeff").encode("utf-16")):
        (tmp_path / "list.txt").write_bytes(written)
        image_list = read_list(tmp_path / "list.txt")
        assert (image_list.images, image_list.labels) == (["a b.jpg", "c.png"], ["nv", "mel"])


def test_a_list_of_names_without_labels_is_read(tmp_path: Path) -> None:
    for content in ("a.jpg\nmy b.jpg\n", "image\na.jpg\nmy b.jpg"):
        (tmp_path / "list.txt").write_text(content)
        image_list = read_list(tmp_path / "list.txt")
        assert (image_list.images, image_list.labels) == (["a.jpg", "my b.jpg"], ["", ""])


def test_a_parquet_list_is_read(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": ["01", "02"], "label": [None, 1], "age": [3.5, None]}), tmp_path / "l.parquet")
    image_list = read_list(tmp_path / "l.parquet")
    assert (image_list.images, image_list.labels, image_list.columns) == (["01", "02"], ["", "1"], {"age": ["3.5", ""]})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("picture,label,age\nx,nv,3\n", "must have a column of images.*rename"),
        ("image,label\na.jpg,nv,3\n", "must have 2 columns, but row 1"),
        ("image,label\n,nv\n", "row 0 has none"),
        ("image,a,a\nx.jpg,1,2\n", "two are called 'a'"),
    ],
)
def test_an_invalid_list_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "list.csv").write_text(content)
    with pytest.raises(DataError, match=message):
        read_list(tmp_path / "list.csv")


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_bytes(b"image\n\xe9.jpg\n")
    with pytest.raises(DataError, match="must be a list in UTF-8"):
        read_list(tmp_path / "list.csv")
    with pytest.raises(DataError, match="No such file"):
        read_list(tmp_path / "absent.csv")


def test_blank_labels_and_one_hot_rows_without_a_single_1_are_unknown(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("image,label\na,NaN\nb,\nc,nv\n")
    assert read_list(tmp_path / "a.csv").labels == ["", "", "nv"]
    (tmp_path / "b.csv").write_text("image,mel,nv\na,1,1\nb,0,0\nc,0,1\n")
    assert read_list(tmp_path / "b.csv").labels == ["", "", "nv"]


@settings(max_examples=50, deadline=None)
@given(st.text(st.characters(exclude_characters="/\\.\0", exclude_categories=("Cs", "Cc", "Z")), min_size=1))
def test_names_ignore_folder_suffix_case_and_spaces(name: str) -> None:
    wanted = normalised(name)
    for spelling in (f"{name}.jpg", f"/data/x/{name}.PNG", f"  {name}.jpeg  ", f"C:\\data\\{name}.tif", f"../{name}"):
        assert normalised(spelling) == wanted
    assert normalised(f"other{name}") != wanted


def test_both_unicode_forms_of_an_accent_are_one_name() -> None:
    assert normalised("Bäcker.jpg") == normalised("Ba\u0308cker.jpg")
    assert normalised("v1.2") == "v1.2"


def test_folders_count_if_they_distinguish_images(tmp_path: Path) -> None:
    entries = split_of(tmp_path, "train/nv/1.jpg\ntrain/mel/1.jpg\n", "test/nv/1.jpg\n")
    assert entries.names == ["nv/1", "mel/1", "nv/1"]
    assert split_of(tmp_path, "train/1.jpg\n", "test/1.jpg\n").names == ["1", "1"]


def test_metadata_is_matched_by_name(tmp_path: Path) -> None:
    (tmp_path / "meta.csv").write_text("image_id,lesion_id,dx,age\nA,l1,nv,40\nB,l2,mel,\n")
    entries = split_of(tmp_path, "image,label\na.jpg,\nb.jpg,bkl\n", "c.jpg\n", metadata=tmp_path / "meta.csv")
    assert entries.labels == ["nv", "bkl", ""]
    assert entries.ties == {"lesion_id": ["l1", "l2", ""]} and entries.attributes == {"age": ["40", "", ""]}
    (tmp_path / "meta.csv").write_text("image_id,lesion_id\nA,l1\na.jpg,l2\n")
    with pytest.raises(DataError, match=r"one row of metadata, but 'a\.jpg' has rows 0 and 1"):
        split_of(tmp_path, "a.jpg\n", "b.jpg\n", metadata=tmp_path / "meta.csv")


def test_lists_fill_in_blank_metadata(tmp_path: Path) -> None:
    (tmp_path / "meta.csv").write_text("image,lesion_id,site\na,m1,arm\nb,NA,\n")
    (tmp_path / "test.csv").write_text("image,lesion_id,site\nb,l2,leg\nc,l3,\n")
    (tmp_path / "train.csv").write_text("image,lesion_id,site\na,l1,leg\nd,None,\n")
    lists = {part: tmp_path / f"{part}.csv" for part in ("train", "test")}
    entries = read_split(lists, metadata=tmp_path / "meta.csv")
    assert entries.ties == {"lesion_id": ["m1", "", "l2", "l3"]}
    assert entries.attributes == {"site": ["arm", "", "leg", ""]}
    assert entries.matched == {"--metadata": 2}


def test_metadata_and_images_that_match_no_row_are_refused(tmp_path: Path) -> None:
    (tmp_path / "meta.csv").write_text("image_id,lesion_id\nz,l1\n")
    with pytest.raises(DataError, match=r"meta\.csv has none of the 2 \('a', \.\.\.\): give"):
        split_of(tmp_path, "a.jpg\n", "b.jpg\n", metadata=tmp_path / "meta.csv")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "c.jpg").touch()
    with pytest.raises(DataError, match=r"has none of the 2 \('a\.jpg', \.\.\.\): give the folder"):
        split_of(tmp_path, "a.jpg\n", "b.jpg\n", images=tmp_path / "images")
    assert split_of(tmp_path, "a.jpg\n", "c.jpg\n", images=tmp_path / "images").matched == {"--images": 1}


@pytest.mark.parametrize("nothing", ["NA", "nan", "None", "<NA>", " null "])
def test_an_unknown_lesion_connects_no_rows(tmp_path: Path, nothing: str) -> None:
    entries = split_of(tmp_path, f"image,lesion_id\na,{nothing}\nb,1\n", f"image,lesion_id\nc,{nothing}\n")
    assert entries.ties == {"lesion_id": ["", "1", ""]}


def test_a_nan_lesion_in_parquet_connects_no_rows(tmp_path: Path) -> None:
    lists = {part: tmp_path / f"{part}.parquet" for part in ("train", "test")}
    for part, path in lists.items():
        pq.write_table(pa.table({"image": [f"{part}1", f"{part}2"], "lesion_id": [float("nan"), 2.0]}), path)
    assert read_split(lists).ties == {"lesion_id": ["", "2.0", "", "2.0"]}


def test_files_are_found_at_any_depth_by_the_longest_common_end(tmp_path: Path) -> None:
    for file in ("images/part_1/a.jpg", "images/b.JPG", "images/masks/a.png", "images/masks/c.png"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    entries = split_of(tmp_path, "a.jpg\nB\n", "x/masks/a.png\nd\n", images=tmp_path / "images")
    images = tmp_path / "images"
    assert entries.paths == [images / "part_1/a.jpg", images / "b.JPG", images / "masks/a.png", None]
    with pytest.raises(DataError, match="may be"):
        split_of(tmp_path, "a\n", "b\n", images=images)
    with pytest.raises(DataError, match="--images must be a folder"):
        split_of(tmp_path, "a\n", "b\n", images=tmp_path / "absent")


def test_files_are_taken_from_the_paths_of_the_list(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    entries = split_of(tmp_path, f"a.jpg\n{tmp_path / 'a.jpg'}\n", "b.jpg\n")
    assert entries.paths == [tmp_path / "a.jpg", tmp_path / "a.jpg", None]
    (tmp_path / "im").mkdir()
    (tmp_path / "im" / "c.jpg").touch()
    too_long = f"{'x' * 300}.jpg"
    assert split_of(tmp_path, "im\\c.jpg\n", f"{too_long}\n").paths == [tmp_path / "im" / "c.jpg", None]
    with pytest.raises(DataError, match=r"'\.\./a.jpg' in row 0 .*test.txt does: .*--images"):
        split_of(tmp_path, "a.jpg\n", "../a.jpg\n")


def test_a_name_is_one_image_unless_its_files_differ(tmp_path: Path) -> None:
    for part, content in {"train": b"a", "test": b"b"}.items():
        (tmp_path / part).mkdir()
        (tmp_path / part / "0.jpg").write_bytes(content)
        (tmp_path / part / "1.jpg").write_bytes(b"same")
    names = split_of(tmp_path, "train/0.jpg\ntrain/1.jpg\ntrain/2.jpg\n", "test/0.jpg\ntest/1.jpg\ntest/2.jpg\n").names
    assert names[0] != names[3] and names[1] == names[4] and names[2] == names[5]
    (tmp_path / "test" / "2.jpg").write_bytes(b"c")
    again = split_of(tmp_path, "train/2.jpg\n", "test/2.jpg\n").names
    assert again[0] == again[1], "only the name of the unreadable file is known"


def test_a_list_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="names none: give the list of 'test'"):
        split_of(tmp_path, "a.jpg\n", "\n")


def test_the_part_that_models_learn_from_comes_first(tmp_path: Path) -> None:
    for part in ("test", "val", "train"):
        (tmp_path / part).write_text(f"{part}.jpg\n")
    entries = read_split({part: tmp_path / part for part in ("test", "val", "train")})
    assert entries.part_names == ["train", "val", "test"]


def test_roles_of_a_manifest_are_parts(tmp_path: Path) -> None:
    roles = ["test", "", "train_only", ""]
    manifest = make_manifest(
        ["a", "b", "c", "d"], ["x", "y", "x", "y"], root=tmp_path, roles=roles, attributes={"age": [1, 2, 3, None]}
    )
    entries = entries_of(manifest)
    assert entries.part_names == ["train_only", "folds", "test"] and entries.folded
    assert entries.attributes == {"age": [1, 2, 3, None]} and entries.paths[0] == tmp_path / "a"


def test_columns_of_one_kind_have_one_name_in_all_lists(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("image,Lesion-ID,Patient,patient_id\na,l1,x,1.0\nb,l1,y,\n")
    (tmp_path / "test.csv").write_text("image,lesion,patient_id\nc,l1,1\nd,Unknown,2\n")
    ties = read_split({part: tmp_path / f"{part}.csv" for part in ("train", "test")}).ties
    assert ties["Lesion-ID"] == ["l1", "l1", "l1", ""] and set(ties) == {"Lesion-ID", "Patient", "patient_id"}
    assert ties["patient_id"] == ["1", "", "1", "2"], "pandas writes 1.0 beside unknown values"


def test_columns_that_identify_nothing_are_attributes(tmp_path: Path) -> None:
    for part, first in {"train": 0, "test": 40}.items():
        rows = [f"{row},p{row // 4},{row % 4},ISIC,{row},one" for row in range(first, first + 40)]
        (tmp_path / f"{part}.csv").write_text("\n".join(["image,patient_id,lesion_no,study,case,lesion", *rows]))
    entries = read_split({part: tmp_path / f"{part}.csv" for part in ("train", "test")})
    assert set(entries.ties) == {"patient_id"}
    assert set(entries.attributes) == {"lesion_no", "study", "case", "lesion"}


def test_a_lesion_that_all_rows_of_a_small_split_show_is_a_lesion(tmp_path: Path) -> None:
    entries = split_of(tmp_path, "image,lesion_id\na,l1\n", "image,lesion_id\nb,l1\n")
    assert entries.ties == {"lesion_id": ["l1", "l1"]}
