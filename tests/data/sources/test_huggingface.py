import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysk.errors import DataError

ABOUT = {"info": {"features": {"image": {"_type": "Image"}, "label": {"names": ["nv", "mel"], "_type": "ClassLabel"}}}}
IMAGE = pa.struct({"bytes": pa.binary(), "path": pa.string()})


@pytest.fixture
def picture(tmp_path, write_images):
    """The bytes of an image in the format of its name."""

    def of(name):
        write_images(tmp_path / "pictures", [name])
        return (tmp_path / "pictures" / name).read_bytes()

    return of


@pytest.fixture
def rows(picture):
    """Three rows with images inside, as the library keeps them."""
    images = [{"bytes": picture("a.jpg"), "path": None}, {"bytes": picture("b.png"), "path": "deep/b.png"},
              {"bytes": picture("c.jpg"), "path": "c.jpg"}]  # fmt: skip
    table = pa.table({"image": pa.array(images, IMAGE), "label": [0, 1, 0], "patient": ["p1", "p2", "p1"]})
    return table.replace_schema_metadata({"huggingface": json.dumps(ABOUT)})


def save_to_disk(table, folder):
    folder.mkdir(parents=True)
    with (
        pa.OSFile(str(folder / "data-00000-of-00001.arrow"), "wb") as file,
        pa.ipc.new_stream(file, table.schema) as out,
    ):
        out.write_table(table, max_chunksize=2)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))


def test_class_folders_with_and_without_parts(tmp_path, load, write_images):
    write_images(tmp_path / "flat", ["nv/1.jpg", "mel/2.png"])
    assert load("hf", tmp_path / "flat").table.column("image").to_pylist() == ["mel/2.png", "nv/1.jpg"]
    names = ["train/nv/1.jpg", "train/mel/2.jpg", "test/nv/3.jpg", "validation/mel/4.jpg"]
    write_images(tmp_path / "parts", names)
    manifest = load("hf", tmp_path / "parts")
    roles = dict(zip(manifest.table.column("image").to_pylist(), manifest.roles, strict=True))
    assert roles == {name: "test" if name.startswith("test") else "" for name in names}
    assert manifest.class_names == ("mel", "nv")


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl", "metadata.parquet"])
def test_metadata_beside_the_images(tmp_path, load, write_images, name):
    for part in ("train", "test"):
        write_images(tmp_path / part, ["1.jpg", "in/2.jpg"])
        table = pa.table({"file_name": ["1.jpg", "in/2.jpg"], "label": ["01", "1"], "patient": [part, part]})
        path = tmp_path / part / name
        if name.endswith("csv"):
            path.write_text(
                "file_name,label,patient\n" + "".join(f"{','.join(row.values())}\n" for row in table.to_pylist())
            )
        elif name.endswith("jsonl"):
            path.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
        else:
            pq.write_table(table, path)
    manifest = load("hf", tmp_path, group="patient")
    assert manifest.table.column("image").to_pylist() == [
        "test/1.jpg",
        "test/in/2.jpg",
        "train/1.jpg",
        "train/in/2.jpg",
    ]
    assert manifest.table.column("label").to_pylist() == ["01", "1", "01", "1"]
    assert manifest.roles == ["test", "test", "", ""]
    assert manifest.table.column("group").to_pylist() == ["test", "test", "train", "train"]


def test_a_saved_dataset_is_unpacked_once(tmp_path, load, rows, picture):
    save_to_disk(rows, tmp_path / "saved")
    manifest = load("hf", tmp_path / "saved", group="patient")
    assert manifest.table.column("image").to_pylist() == ["train/0000000.jpg", "train/0000001.png", "train/0000002.jpg"]
    assert [path.read_bytes() for path in manifest.paths] == [picture("a.jpg"), picture("b.png"), picture("c.jpg")]
    assert manifest.table.column("label").to_pylist() == ["nv", "mel", "nv"]
    assert manifest.groups.tolist() == [0, 1, 0]
    times = [path.stat().st_mtime_ns for path in manifest.paths]
    again = load("hf", tmp_path / "saved", group="patient")
    assert again.digest == manifest.digest and [path.stat().st_mtime_ns for path in again.paths] == times
    moved = load("hf", (tmp_path / "saved").rename(tmp_path / "moved"), group="patient")
    assert moved.digest == manifest.digest and moved.root != manifest.root


def test_parts_of_a_saved_dataset_and_parquet_files_have_roles(tmp_path, load, rows):
    for part in ("train", "test"):
        save_to_disk(rows, tmp_path / "saved" / part)
    (tmp_path / "saved" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    saved = load("hf", tmp_path / "saved")
    (tmp_path / "hub" / "data").mkdir(parents=True)
    for part in ("train", "test"):
        pq.write_table(rows, tmp_path / "hub" / "data" / f"{part}-00000-of-00001.parquet")
    hub = load("hf", tmp_path / "hub")
    assert sorted(saved.roles) == ["", "", "", "test", "test", "test"] == sorted(hub.roles)
    assert sorted(saved.table.column("image").to_pylist()) == sorted(hub.table.column("image").to_pylist())


def test_an_image_without_bytes_counts_as_missing_and_an_unknown_label_as_blank(tmp_path, load, rows, picture):
    images = [{"bytes": None, "path": None}, *rows.column("image").to_pylist()[1:]]
    save_to_disk(rows.set_column(0, "image", pa.array(images, IMAGE)), tmp_path / "a")
    with pytest.raises(DataError, match=r"train/0000000 of row 0 is not \(1 in all\)"):
        load("hf", tmp_path / "a")
    assert len(load("hf", tmp_path / "a", on_error="skip")) == 2
    save_to_disk(rows.set_column(1, "label", pa.array([0, -1, 1])), tmp_path / "b")
    with pytest.raises(DataError, match=r"must have a label, but row 1 \('train/0000001.png'\) has none"):
        load("hf", tmp_path / "b")


def test_a_broken_dataset_is_refused_and_leaves_no_files(tmp_path, load, rows, write_images):
    save_to_disk(rows, tmp_path / "saved")
    with pytest.raises(
        DataError, match=r"columns of data-00000-of-00001.arrow, but got 'image' and 'dx'; columns: image"
    ):
        load("hf", tmp_path / "saved", label="dx")
    whole = (tmp_path / "saved" / "data-00000-of-00001.arrow").read_bytes()
    (tmp_path / "saved" / "data-00000-of-00001.arrow").write_bytes(whole[:300])
    with pytest.raises(DataError, match=r"data-00000-of-00001.arrow must be a data file"):
        load("hf", tmp_path / "saved")
    (tmp_path / "saved" / "data-00000-of-00001.arrow").unlink()
    with pytest.raises(DataError, match=r"data-00000-of-00001.arrow is missing: copy it again"):
        load("hf", tmp_path / "saved")
    (tmp_path / "saved" / "state.json").write_text("{")
    with pytest.raises(DataError, match="must hold JSON"):
        load("hf", tmp_path / "saved")
    assert not list((tmp_path / "cache").glob("*"))
    write_images(tmp_path / "folder", ["1.jpg"])
    (tmp_path / "folder" / "metadata.csv").write_text("image,label\n1.jpg,nv\n")
    with pytest.raises(DataError, match="must have a column 'file_name', but has image, label"):
        load("hf", tmp_path / "folder")


def roles_by_image(manifest):
    return dict(zip(manifest.table.column("image").to_pylist(), manifest.roles, strict=True))


@pytest.mark.parametrize(
    ("name", "role"),
    [("ham-test", "test"), ("my_test", "test"), ("isic.Test2", "test"), ("TEST-0-of-2-ab12", "test"), ("latest", "")],
)
def test_a_word_in_a_file_name_gives_the_role(tmp_path, load, rows, name, role, caplog):
    (tmp_path / "hub").mkdir()
    pq.write_table(rows, tmp_path / "hub" / "ham-train.parquet")
    pq.write_table(rows, tmp_path / "hub" / f"{name}.parquet")
    roles = roles_by_image(load("hf", tmp_path / "hub"))
    assert len(roles) == 6
    assert {image for image, part_role in roles.items() if part_role == "test"} == {
        image for image in roles if role and not image.startswith("ham-train/")
    }
    assert ("the names of latest say neither train nor test: their rows train" in caplog.text) == (name == "latest")


def test_a_name_with_two_roles_is_refused(tmp_path, load, rows):
    pq.write_table(rows, tmp_path / "train_test.parquet")
    with pytest.raises(DataError, match="'train_test' says both: rename it"):
        load("hf", tmp_path)


def test_a_word_in_the_name_of_a_saved_part_gives_the_role(tmp_path, load, rows):
    for part in ("train", "my_test"):
        save_to_disk(rows, tmp_path / "saved" / part)
    (tmp_path / "saved" / "dataset_dict.json").write_text('{"splits": ["train", "my_test"]}')
    assert sorted(load("hf", tmp_path / "saved").roles) == ["", "", "", "test", "test", "test"]


def test_folders_in_a_table_of_all_parts_give_the_roles(tmp_path, load, write_images):
    names = ["train/1.jpg", "./test/2.jpg", "images_test/3.jpg", "test.jpg"]
    write_images(tmp_path, names)
    table = tmp_path / "metadata.csv"
    lines = [f"{name},{'nv' if row % 2 else 'mel'},train" for row, name in enumerate(names)]
    table.write_text("\n".join(["file_name,label,part", *lines]))
    assert load("hf", tmp_path).roles == ["", "test", "test", ""]
    assert load("hf", tmp_path, role="part").roles == [""] * 4
    assert load("hf", tmp_path, role="train_only").roles == ["train_only"] * 4
    table.write_text("\n".join(["file_name,label,role", *lines]))
    assert load("hf", tmp_path).roles == [""] * 4, "the table's own column counts"


def test_images_outside_parts_give_a_warning_and_other_folders_are_refused(tmp_path, load, write_images, caplog):
    names = [f"{part}/{label}/1.jpg" for part in ("Test", "train", "validation_2") for label in ("mel", "nv")]
    write_images(tmp_path, [*names, "loose.jpg"])
    (tmp_path / "notes").mkdir()  # holds no images
    roles = roles_by_image(load("hf", tmp_path))
    assert roles == {name: "test" if name.startswith("Test") else "" for name in names}
    assert "left out 1 image outside the class folders, first 'loose.jpg'" in caplog.text
    write_images(tmp_path, ["extra/nv/1.jpg"])
    with pytest.raises(
        DataError, match=r"'extra' has neither: rename it to train_extra or test_extra, or move it away"
    ):
        load("hf", tmp_path)


def test_parts_with_different_columns_are_refused_in_one_line(tmp_path, load, rows):
    pq.write_table(rows, tmp_path / "train.parquet")
    pq.write_table(rows.replace_schema_metadata(None), tmp_path / "test.parquet")
    with pytest.raises(DataError, match=r"must have the same columns, but .*label.*: correct one"):
        load("hf", tmp_path)


def test_a_label_without_a_class_name_is_refused(tmp_path, load, rows):
    pq.write_table(rows.set_column(1, "label", pa.array([0, 1, 2])), tmp_path / "train.parquet")
    with pytest.raises(DataError, match="code of one of 2 class names, but got 2"):
        load("hf", tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("state.json", "{}", "state.json must name the files"),
        ("state.json", '{"_data_files": [1]}', "state.json must name the files"),
        ("state.json", '{"_data_files": []}', "must hold rows, but names no data files"),
        ("dataset_dict.json", "[]", "dataset_dict.json must name the files"),
    ],
)
def test_json_without_the_names_of_files_is_refused(tmp_path, load, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        load("hf", tmp_path)


def test_an_error_names_an_unpacked_folder_without_rows(tmp_path, load, rows):
    save_to_disk(rows, tmp_path / "saved")
    (load("hf", tmp_path / "saved").root / "rows.parquet").unlink()
    with pytest.raises(DataError, match=r"cache/hf-.* rows.parquet is missing or broken: remove that folder"):
        load("hf", tmp_path / "saved")
