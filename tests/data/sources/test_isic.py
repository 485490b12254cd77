import pytest

from raysk.data.sources import DataSettings, load_manifest
from raysk.errors import DataError

ONE_HOT_2018 = "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC"
ONE_HOT_2019 = "image,MEL,NV,BCC,AK,BKL,DF,VASC,SCC,UNK"


@pytest.fixture
def isic2017(tmp_path, write_images, write_table):
    root = tmp_path / "isic2017"
    write_images(root / "ISIC-2017_Training_Data", [f"ISIC_{number}.jpg" for number in range(3)])
    # Larger than the image, so that a mix-up would be noticed.
    (root / "ISIC-2017_Training_Data" / "ISIC_0_superpixels.png").write_bytes(b"x" * 10_000)
    write_images(root / "ISIC-2017_Training_Part1_GroundTruth", ["ISIC_0_segmentation.png"])
    write_table(root / "ISIC-2017_Training_Part3_GroundTruth.csv", "image_id,melanoma,seborrheic_keratosis",
                "ISIC_0,0.0,0.0", "ISIC_1,1.0,0.0", "ISIC_2,0.0,1.0")  # fmt: skip
    return root


def test_2017_has_a_third_class_without_a_column(isic2017, load):
    manifest = load("isic2017", isic2017)
    assert manifest.table.column("label").to_pylist() == ["nevus", "melanoma", "seborrheic_keratosis"]
    assert manifest.table.column("image")[0].as_py() == "ISIC-2017_Training_Data/ISIC_0.jpg"
    assert manifest.table.column("mask").to_pylist() == [
        "ISIC-2017_Training_Part1_GroundTruth/ISIC_0_segmentation.png", None, None
    ]  # fmt: skip
    assert not manifest.grouped


def test_2017_reads_age_and_sex_if_the_table_exists(isic2017, load, write_table):
    write_table(isic2017 / "ISIC-2017_Training_Data_metadata.csv", "image_id,age_approximate,sex",
                "ISIC_2,70,male", "ISIC_9,1,female", "ISIC_0,unknown,female")  # fmt: skip
    manifest = load("isic2017", isic2017)
    assert manifest.table.column("age_approximate").to_pylist() == ["unknown", None, "70"]
    assert manifest.table.column("sex").to_pylist() == ["female", None, "male"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (("image_id,melanoma,seborrheic_keratosis", "ISIC_0,1,1"), "row 0 .* has melanoma and seborrheic_keratosis"),
        (("image_id,melanoma,seborrheic_keratosis", "ISIC_0,0.5,0"), "melanoma must be 0 or 1, but got '0.5' in row 0"),
        (("image_id,melanoma,seborrheic_keratosis", "ISIC_0,,0"), "melanoma must be 0 or 1, but got '' in row 0"),
        (("image_id,melanoma", "ISIC_0,0"), "got 'seborrheic_keratosis'; columns, nearest first"),
    ],
)
def test_2017_refuses_a_row_without_exactly_one_label(isic2017, load, write_table, lines, message):
    write_table(isic2017 / "ISIC-2017_Training_Part3_GroundTruth.csv", *lines)
    with pytest.raises(DataError, match=message):
        load("isic2017", isic2017)


@pytest.fixture
def isic2018(tmp_path, write_images, write_table):
    root = tmp_path / "isic2018"
    write_images(root / "ISIC2018_Task3_Training_Input", ["ISIC_1.jpg", "ISIC_2.jpg", "ISIC_3.jpg"])
    write_table(root / "ISIC2018_Task3_Training_GroundTruth" / "ISIC2018_Task3_Training_GroundTruth.csv", ONE_HOT_2018,
                "ISIC_1,0.0,1.0,0.0,0.0,0.0,0.0,0.0", "ISIC_2,0.0,0.0,0.0,1.0,0.0,0.0,0.0",
                "ISIC_3,0.0,1.0,0.0,0.0,0.0,0.0,0.0")  # fmt: skip
    return root


def test_2018_is_grouped_by_the_table_of_lesions(isic2018, load, write_table):
    manifest = load("isic2018", isic2018)
    assert manifest.table.column("label").to_pylist() == ["NV", "AKIEC", "NV"] and not manifest.grouped
    write_table(isic2018 / "ISIC2018_Task3_Training_LesionGroupings.csv", "image,lesion_id,diagnosis_confirm_type",
                "ISIC_3,HAM_7,histo", "ISIC_1,HAM_7,histo", "ISIC_2,HAM_8,consensus")  # fmt: skip
    manifest = load("isic2018", isic2018)
    assert manifest.groups.tolist() == [0, 1, 0] and manifest.grouped
    assert manifest.table.column("diagnosis_confirm_type").to_pylist() == ["histo", "consensus", "histo"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("0,0,0,0,0,0,0", "row 0 of ISIC2018_.*csv has none"),
        ("1,1,0,0,0,0,0", "row 0 of ISIC2018_.*csv has MEL and NV"),
        ("1,2,0,0,0,0,0", "NV must be 0 or 1, but got '2' in row 0"),
    ],
)
def test_a_row_must_have_one_label(isic2018, load, write_table, values, message):
    write_table(isic2018 / "ISIC2018_Task3_Training_GroundTruth.csv", ONE_HOT_2018, f"ISIC_1,{values}")
    with pytest.raises(DataError, match=message):
        load("isic2018", isic2018)


def test_a_missing_class_column_is_named(isic2018, load, write_table):
    write_table(isic2018 / "ISIC2018_Task3_Training_GroundTruth.csv", "image,MEL,NV", "ISIC_1,0,1")
    with pytest.raises(DataError, match="got 'BCC'; columns, nearest first"):
        load("isic2018", isic2018)


def test_2019_reads_lesions_from_its_metadata(tmp_path, load, write_images, write_table):
    root = tmp_path / "isic2019"
    write_images(root / "ISIC_2019_Training_Input" / "ISIC_2019_Training_Input",
                 ["ISIC_1_downsampled.jpg", "ISIC_2.jpg", "ISIC_3.jpg"])  # fmt: skip
    write_table(root / "ISIC_2019_Training_GroundTruth.csv", ONE_HOT_2019, "ISIC_1_downsampled,1,0,0,0,0,0,0,0,0",
                "ISIC_2,0,0,0,0,0,0,0,1,0", "ISIC_3,1,0,0,0,0,0,0,0,0")  # fmt: skip
    write_table(root / "ISIC_2019_Training_Metadata.csv", "image,age_approx,anatom_site_general,lesion_id,sex",
                "ISIC_1_downsampled,55.0,anterior torso,,female", "ISIC_2,,,BCN_1,male",
                "ISIC_3,30.0,,,female")  # fmt: skip
    manifest = load("isic2019", root)
    assert manifest.class_names == ("MEL", "SCC")
    assert manifest.groups.tolist() == [0, 1, 2] and manifest.grouped  # two rows without a lesion are not one group
    assert manifest.table.column("age_approx").to_pylist() == [55, None, 30]


def test_2020_is_grouped_by_patient_and_joined_by_lesion(tmp_path, load, write_images, write_table):
    root = tmp_path / "isic2020"
    write_images(root / "train", [f"ISIC_{number}.jpg" for number in range(4)])
    header = "image_name,patient_id,sex,age_approx,anatom_site_general_challenge,diagnosis,benign_malignant,target"
    lines = ["ISIC_0,IP_1,male,45.0,torso,unknown,benign,0", "ISIC_1,IP_2,male,45.0,torso,melanoma,malignant,1",
             "ISIC_2,IP_1,male,45.0,torso,nevus,benign,0", "ISIC_3,,male,45.0,torso,nevus,benign,0"]  # fmt: skip
    write_table(root / "train.csv", header, *lines)
    manifest = load("isic2020", root)
    assert manifest.table.column("label").to_pylist() == ["benign", "malignant", "benign", "benign"]
    assert manifest.table.column("group").to_pylist() == ["IP_1", "IP_2", "IP_1", "train/ISIC_3.jpg"]
    assert {"diagnosis", "patient_id"} <= set(manifest.attributes) and "benign_malignant" not in manifest.attributes
    write_table(root / "train.csv", header, *lines[:3], "ISIC_3,IP_4,male,45.0,torso,nevus,benign,1")
    with pytest.raises(DataError, match=r"row 3 of train.csv has malignant and benign"):
        load("isic2020", root)


@pytest.fixture
def isic2018_test(tmp_path, write_images, write_table):
    """The test part in the layout of the archive: each zip file unpacks into its own folder."""
    root = tmp_path / "isic2018"
    write_images(root / "ISIC2018_Task3_Test_Input", ["ISIC_7.jpg", "ISIC_8.jpg"])
    write_table(root / "ISIC2018_Task3_Test_GroundTruth" / "ISIC2018_Task3_Test_GroundTruth.csv", ONE_HOT_2018,
                "ISIC_7,0.0,1.0,0.0,0.0,0.0,0.0,0.0", "ISIC_8,1.0,0.0,0.0,0.0,0.0,0.0,0.0")  # fmt: skip
    return root


def test_2018_reads_the_test_part_from_its_folder_or_table(isic2018_test, load):
    manifest = load("isic2018", isic2018_test)
    assert manifest.table.column("label").to_pylist() == ["NV", "MEL"] and not manifest.grouped
    table = isic2018_test / "ISIC2018_Task3_Test_GroundTruth" / "ISIC2018_Task3_Test_GroundTruth.csv"
    assert load("isic2018", table).digest == manifest.digest


def test_2018_beside_its_test_part_is_one_dataset(isic2018, isic2018_test, load):
    assert load("isic2018", isic2018).table.column("label").to_pylist() == ["NV", "AKIEC", "NV"]
    table = isic2018_test / "ISIC2018_Task3_Test_GroundTruth" / "ISIC2018_Task3_Test_GroundTruth.csv"
    members = [
        {"name": "isic2018", "source": "isic2018", "path": str(isic2018)},
        {"name": "test", "source": "isic2018", "path": str(table), "role": "test"},
    ]
    manifest = load_manifest(
        DataSettings.from_plain({"source": "several", "collections": members}), isic2018.parent / "cache"
    )
    assert manifest.table.column("label").to_pylist() == ["NV", "AKIEC", "NV", "NV", "MEL"]
    assert manifest.roles == ["", "", "", "test", "test"]


def test_2018_reads_the_test_part_of_dataverse_with_lesions(tmp_path, load, write_images):
    write_images(tmp_path / "ISIC2018_Task3_Test_Images", ["ISIC_7.jpg", "ISIC_8.jpg"])
    lines = [
        "lesion_id\timage_id\tdx\tdx_type\tage\tsex\tlocalization\tdataset",
        '"HAMTEST_1"\t"ISIC_7"\t"nv"\t"histo"\t50.0\t"male"\t"back"\t"x"',
        '"HAMTEST_1"\t"ISIC_8"\t"mel"\t"histo"\t\t"male"\t"back"\t"x"',
    ]
    (tmp_path / "ISIC2018_Task3_Test_GroundTruth.tab").write_text("\n".join(lines))
    manifest = load("isic2018", tmp_path)
    assert manifest.table.column("label").to_pylist() == ["NV", "MEL"] and manifest.groups.tolist() == [0, 0]


@pytest.fixture
def isic2019_test(tmp_path, write_images, write_table):
    root = tmp_path / "isic2019"
    write_images(root / "ISIC_2019_Test_Input", ["ISIC_1.jpg", "ISIC_2.jpg", "ISIC_3.jpg"])
    write_table(root / "ISIC_2019_Test_GroundTruth.csv", f"{ONE_HOT_2019},score_weight,validation_weight",
                "ISIC_1,1,0,0,0,0,0,0,0,0,1,0", "ISIC_2,0,0,0,0,0,0,0,0,1,0,0",
                "ISIC_3,0,1,0,0,0,0,0,0,0,1,0")  # fmt: skip
    write_table(root / "ISIC_2019_Test_Metadata.csv", "image,age_approx,anatom_site_general,sex",
                "ISIC_3,30.0,,female", "ISIC_1,55.0,anterior torso,female", "ISIC_2,,,male")  # fmt: skip
    write_table(root / "ISIC_2019_Training_Metadata.csv", "image,lesion_id", "ISIC_9,BCN_1")
    return root


def test_2019_leaves_out_unknown_test_rows_and_counts_them(isic2019_test, load, caplog):
    manifest = load("isic2019", isic2019_test)
    assert manifest.table.column("label").to_pylist() == ["MEL", "NV"] and not manifest.grouped
    assert manifest.table.column("age_approx").to_pylist() == [55, 30]
    assert "ISIC_2019_Test_GroundTruth.csv: left out 1 row of class UNK, which no training image has" in caplog.text


def test_2019_keeps_unknown_rows_that_the_settings_name(isic2019_test, load):
    kept = load("isic2019", isic2019_test, classes_map={"UNK": "other", "MEL": "mel", "NV": "nv"})
    assert kept.table.column("label").to_pylist() == ["mel", "other", "nv"]
    kept = load("isic2019", isic2019_test, classes=["MEL", "NV", "UNK"])
    assert kept.table.column("label").to_pylist() == ["MEL", "UNK", "NV"]


@pytest.mark.parametrize("suffix", ["", ".jpg"])
def test_2020_joins_the_groups_of_the_published_duplicates(tmp_path, load, write_images, write_table, caplog, suffix):
    root = tmp_path / "isic2020"
    write_images(root / "train", [f"ISIC_{number}.jpg" for number in range(6)])
    patients = ["IP_2", "IP_1", "IP_2", "", "", "IP_5"]
    write_table(root / "train.csv", "image_name,patient_id,target",
                *(f"ISIC_{number},{patient},{number % 2}" for number, patient in enumerate(patients)))  # fmt: skip
    pairs = [("ISIC_1", "ISIC_2"), ("ISIC_3", "ISIC_4"), ("ISIC_5", "ISIC_99")]
    write_table(root / "ISIC_2020_Training_Duplicates.csv", "image_name_1,image_name_2",
                *(f"{name}{suffix},{other}{suffix}" for name, other in pairs))  # fmt: skip
    for settings in ({}, {"group_by": "patient"}):
        manifest = load("isic2020", root, **settings)
        assert manifest.groups.tolist() == [0, 0, 0, 1, 1, 2]
        assert manifest.table.column("group").to_pylist()[0] == "IP_1"
        assert manifest.table.column("patient_id").to_pylist()[0] == "IP_2"
    assert "ISIC_2020_Training_Duplicates.csv: joined the groups of 2 pairs of duplicates" in caplog.text


def test_2020_chains_of_duplicates_are_one_group_without_patients(tmp_path, load, write_images, write_table):
    write_images(tmp_path / "train", [f"ISIC_{number}.jpg" for number in range(5)])
    write_table(tmp_path / "train.csv", "image_name,target", *(f"ISIC_{number},{number % 2}" for number in range(5)))
    write_table(tmp_path / "ISIC_2020_Training_Duplicates.csv", "image_name_1,image_name_2", "ISIC_3,ISIC_2",
                "ISIC_1,ISIC_2", "ISIC_2,ISIC_2")  # fmt: skip
    assert load("isic2020", tmp_path).groups.tolist() == [0, 1, 1, 1, 2]
