import sys

import numpy as np
import pytest

from raysk.errors import ConfigError, DataError

LINES = ("isic_id,target,patient_id,age_approx,lesion_id", "ISIC_1,0,IP_1,60,", "ISIC_2,1,IP_2,NA,IL_9",
         "ISIC_3,0,IP_1,60,IL_9")  # fmt: skip


@pytest.fixture
def isic2024(tmp_path, write_images, write_table):
    root = tmp_path / "isic2024"
    write_images(root / "train-image" / "image", ["ISIC_1.jpg", "ISIC_2.jpg", "ISIC_3.jpg"])
    write_table(root / "train-metadata.csv", *LINES)
    return root


@pytest.fixture
def packed(isic2024, tmp_path, write_table):
    h5py = pytest.importorskip("h5py")
    root = tmp_path / "packed"
    write_table(root / "train-metadata.csv", *LINES)
    with h5py.File(root / "train-image.hdf5", "w") as file:
        for image in sorted((isic2024 / "train-image" / "image").iterdir()):
            file.create_dataset(image.stem, data=np.void(image.read_bytes()))
    return root


def test_images_as_files(isic2024, load):
    manifest = load("isic2024", isic2024)
    assert manifest.table.column("label").to_pylist() == ["benign", "malignant", "benign"]
    assert manifest.table.column("image")[0].as_py() == "train-image/image/ISIC_1.jpg"
    # The first image shares a patient with the third, and the third shares a lesion with the second.
    assert manifest.groups.tolist() == [0, 0, 0]
    assert load("isic2024", isic2024, group_by="patient").groups.tolist() == [0, 1, 0]
    assert load("isic2024", isic2024, group_by="lesion").groups.tolist() == [0, 1, 1]


def test_images_within_hdf5_give_the_same_manifest(isic2024, packed, load, caplog):
    files, unpacked = load("isic2024", isic2024), load("isic2024", packed)
    assert unpacked.digest == files.digest and unpacked.root != files.root
    assert [path.read_bytes() for path in unpacked.paths] == [path.read_bytes() for path in files.paths]
    times = [path.stat().st_mtime_ns for path in unpacked.paths]
    assert [path.stat().st_mtime_ns for path in load("isic2024", packed).paths] == times, "unpacked twice"
    assert caplog.text.count("train-image.hdf5: unpacking the images (0.0 GB) into") == 1


def test_an_image_missing_from_hdf5_is_refused_or_left_out(packed, load, write_table):
    write_table(packed / "train-metadata.csv", *LINES, "ISIC_4,0,IP_3,5,")
    with pytest.raises(DataError, match=r"ISIC_4 of row 3 is not \(1 in all\)"):
        load("isic2024", packed)
    assert len(load("isic2024", packed, on_error="skip")) == 3


def test_a_broken_hdf5_file_is_refused(packed, load, tmp_path):
    (packed / "train-image.hdf5").write_bytes(b"no HDF5")
    with pytest.raises(DataError, match=r"train-image.hdf5 must be an HDF5 file"):
        load("isic2024", packed)
    assert not list((tmp_path / "cache").glob("*"))


def test_without_h5py_the_error_names_the_extra(tmp_path, load, write_table, monkeypatch):
    write_table(tmp_path / "train-metadata.csv", *LINES)
    (tmp_path / "train-image.hdf5").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "h5py", None)  # makes the import fail as if it were not installed
    with pytest.raises(ConfigError, match=r"train-image.hdf5 .* pip install 'raysk\[hdf5\]'"):
        load("isic2024", tmp_path)


@pytest.mark.parametrize("damage", ["bytes", "group"])
def test_an_hdf5_file_that_is_damaged_inside_is_refused(packed, load, tmp_path, damage):
    h5py = pytest.importorskip("h5py")
    with h5py.File(packed / "train-image.hdf5", "a") as file:
        del file["ISIC_2"]
        if damage == "group":
            file.create_group("ISIC_2")
        else:
            data = file.create_dataset("ISIC_2", data=np.arange(4096), chunks=(64,), compression="gzip")
            place = data.id.get_chunk_info(3).byte_offset
    if damage == "bytes":
        with (packed / "train-image.hdf5").open("r+b") as file:
            file.seek(place)
            file.write(b"\xff" * 20)
    with pytest.raises(DataError, match=r"ISIC_2 in .*train-image.hdf5 must be an image, but .*: fetch the file again"):
        load("isic2024", packed)
    assert not list((tmp_path / "cache").glob("*"))


@pytest.fixture
def archive(tmp_path, write_images, write_table):
    """The layout of the ISIC archive."""
    root = tmp_path / "archive"
    images = root / "ISIC_2024_Training_Input"
    write_images(images, ["ISIC_1.jpg", "ISIC_2.jpg", "ISIC_3.jpg"])
    write_table(root / "ISIC_2024_Training_GroundTruth.csv", "isic_id,malignant", "ISIC_1,0.0", "ISIC_2,1.0",
                "ISIC_3,0.0")  # fmt: skip
    write_table(images / "metadata.csv", "isic_id,patient_id,age_approx", "ISIC_3,IP_1,60", "ISIC_2,IP_2,",
                "ISIC_1,IP_1,60")  # fmt: skip
    return root


def test_the_layout_of_the_archive_is_read_with_patients_and_lesions(archive, load, write_table):
    manifest = load("isic2024", archive)
    assert manifest.table.column("label").to_pylist() == ["benign", "malignant", "benign"]
    assert manifest.table.column("image")[0].as_py() == "ISIC_2024_Training_Input/ISIC_1.jpg"
    assert manifest.table.column("group").to_pylist() == ["IP_1", "IP_2", "IP_1"]
    assert "malignant" not in manifest.attributes and "age_approx" in manifest.attributes
    write_table(archive / "ISIC_2024_Training_Supplement.csv", "isic_id,lesion_id,iddx_1", "ISIC_2,IL_9,Malignant",
                "ISIC_3,IL_9,Benign", "ISIC_1,,Benign")  # fmt: skip
    assert load("isic2024", archive).groups.tolist() == [0, 0, 0]
    assert load("isic2024", archive, group_by="lesion").groups.tolist() == [0, 1, 1]


def test_the_layout_of_the_archive_without_patients_is_warned_of(archive, load, caplog):
    (archive / "ISIC_2024_Training_Input" / "metadata.csv").unlink()
    assert not load("isic2024", archive).grouped
    assert "found no metadata.csv with the patients, so folds may divide them" in caplog.text
