import pytest

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
