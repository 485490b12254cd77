import pytest

from raysk.errors import DataError

HEADER = "patient_id,lesion_id,age,diagnostic,img_id,biopsed"


def test_patients_with_several_lesions_are_one_group(tmp_path, load, write_images, write_table):
    write_images(tmp_path, ["imgs_part_1/imgs_part_1/PAT_8_15_820.png", "imgs_part_3/PAT_8_16_1.png",
                            "images/PAT_9_17_2.png"])  # fmt: skip
    write_table(tmp_path / "metadata.csv", HEADER, "PAT_8,15,40,NEV,PAT_8_15_820.png,True",
                "PAT_8,16,40,MEL,PAT_8_16_1.png,True", "PAT_9,17,50,NEV,PAT_9_17_2.png,False")  # fmt: skip
    manifest = load("padufes20", tmp_path)
    assert manifest.table.column("image").to_pylist() == [
        "imgs_part_1/imgs_part_1/PAT_8_15_820.png",
        "imgs_part_3/PAT_8_16_1.png",
        "images/PAT_9_17_2.png",
    ]
    assert manifest.table.column("group").to_pylist() == ["patient:PAT_8", "patient:PAT_8", "patient:PAT_9"]
    assert load("padufes20", tmp_path, group_by="both").digest == manifest.digest
    assert load("padufes20", tmp_path, group_by="lesion").table.column("group").to_pylist() == ["15", "16", "17"]
    assert manifest.class_names == ("MEL", "NEV")
    write_table(tmp_path / "metadata.csv", HEADER, "PAT_8,15,40,NEVUS,PAT_8_15_820.png,True")
    with pytest.raises(DataError, match=r"'NEVUS' in row 0 .* of metadata.csv; the nearest class is 'NEV'"):
        load("padufes20", tmp_path)
