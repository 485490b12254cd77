import logging

import pytest

from raysk.errors import ConfigError, DataError

HEADER = "lesion_id,image_id,dx,dx_type,age,sex,localization"


@pytest.fixture
def ham(tmp_path, write_images, write_table):
    root = tmp_path / "ham"
    write_images(root, ["HAM10000_images_part_1/ISIC_1.jpg", "HAM10000_images_part_1/ISIC_2.jpg",
                        "HAM10000_images_part_2/ISIC_3.JPG",
                        "HAM10000_segmentations_lesion_tschandl/ISIC_2_segmentation.png"])  # fmt: skip
    write_table(root / "HAM10000_metadata.csv", HEADER, "HAM_1,ISIC_3,nv,histo,50.0,male,back",
                "HAM_0,ISIC_1,mel,histo,,female,face", "HAM_1,ISIC_2,nv,follow_up,50.0,male,back")  # fmt: skip
    return root


def test_images_are_found_in_both_parts_with_lesions_and_masks(ham, load):
    manifest = load("ham10000", ham)
    assert manifest.table.column("image").to_pylist() == [
        "HAM10000_images_part_2/ISIC_3.JPG",
        "HAM10000_images_part_1/ISIC_1.jpg",
        "HAM10000_images_part_1/ISIC_2.jpg",
    ]
    assert manifest.table.column("label").to_pylist() == ["nv", "mel", "nv"]
    assert manifest.table.column("group").to_pylist() == ["HAM_1", "HAM_0", "HAM_1"] and manifest.grouped
    assert manifest.table.column("mask").to_pylist() == [
        None,
        None,
        "HAM10000_segmentations_lesion_tschandl/ISIC_2_segmentation.png",
    ]
    assert "dx" not in manifest.attributes and {"dx_type", "age", "lesion_id", "image_id"} <= set(manifest.attributes)


def test_links_and_the_path_of_the_table_are_accepted(ham, load, tmp_path, write_images):
    images = tmp_path / "all"
    write_images(images, ["ISIC_1.jpg", "ISIC_2.jpg", "ISIC_3.png"])
    other = tmp_path / "other"
    other.mkdir()
    (other / "images").symlink_to(images)
    (other / "around").symlink_to(other)  # a link to a folder above
    (other / "ham10000_metadata.CSV").write_bytes((ham / "HAM10000_metadata.csv").read_bytes())
    manifest = load("ham10000", other)
    assert manifest.table.column("image").to_pylist() == ["images/ISIC_3.png", "images/ISIC_1.jpg", "images/ISIC_2.jpg"]
    assert load("ham10000", other / "ham10000_metadata.CSV").digest == manifest.digest


def test_the_quoted_tab_separated_table_of_dataverse_is_read(ham, load):
    expected = load("ham10000", ham)
    lines = (ham / "HAM10000_metadata.csv").read_text().splitlines()
    rows = [[*line.split(","), "source" if number else "dataset"] for number, line in enumerate(lines[1:], 1)]
    quoted = ["\t".join(v if place == 4 else f'"{v}"' for place, v in enumerate(row)) for row in rows]
    header = "\t".join([*HEADER.split(","), "dataset"])
    (ham / "HAM10000_metadata.tab").write_text("\n".join([header, *quoted]) + "\n")
    (ham / "HAM10000_metadata.csv").unlink()
    manifest = load("ham10000", ham)
    for column in ("image", "label", "group"):
        assert manifest.table.column(column).to_pylist() == expected.table.column(column).to_pylist()
    assert manifest.table.column("age").to_pylist() == [50, None, 50]


def test_copies_are_accepted_and_different_images_of_one_name_refused(ham, load):
    (ham / "ham10000_images_part_1").mkdir()
    copy = ham / "ham10000_images_part_1" / "ISIC_1.jpg"
    copy.write_bytes((ham / "HAM10000_images_part_1" / "ISIC_1.jpg").read_bytes())
    assert load("ham10000", ham).table.column("image")[1].as_py() == "HAM10000_images_part_1/ISIC_1.jpg"
    copy.write_bytes(b"smaller")
    with pytest.raises(DataError, match=r"'ISIC_1' is HAM10000_images_part_1/ISIC_1.jpg and also ham10000_images_part"):
        load("ham10000", ham)


def test_a_missing_image_is_refused_or_left_out(ham, load, caplog):
    (ham / "HAM10000_images_part_1" / "ISIC_2.jpg").unlink()
    with pytest.raises(DataError, match=r"every image of HAM10000_metadata.csv .*ISIC_2 of row 2 is not \(1 in all\)"):
        load("ham10000", ham)
    with caplog.at_level(logging.WARNING):
        assert len(load("ham10000", ham, on_error="skip")) == 2
    assert "left out 1 row without" in caplog.text


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            ["HAM_1,ISIC_1,nevus,x,1,male,back"],
            r"got 'nevus' in row 0 \('ISIC_1'\) of HAM10000_metadata.csv; the nearest",
        ),
        (["HAM_1,ISIC_1,,x,1,male,back"], r"must have a label, but row 0 \('ISIC_1'\) has none"),
        (["HAM_1,ISIC_1,nan,x,1,male,back"], r"must have a label, but row 0"),
        (["HAM_1,ISIC_1,nv,,,,", "HAM_1,ISIC_1,nv,,,,"], r"'ISIC_1' is in rows 0 and 1 of HAM10000_metadata.csv"),
        (["HAM_1,,nv,,,,"], r"every row must name an image, but row 0 of HAM10000_metadata.csv"),
        (["HAM_1,ISIC_1"], r"must be a CSV or Parquet table, but .*HAM10000|must be a CSV or Parquet table"),
    ],
)
def test_an_error_in_the_table_names_row_and_file(ham, load, write_table, lines, message):
    write_table(ham / "HAM10000_metadata.csv", HEADER, *lines)
    with pytest.raises(DataError, match=message) as caught:
        load("ham10000", ham)
    assert "\n" not in str(caught.value)


def test_a_table_of_another_shape_or_none_is_refused(ham, load, write_table, tmp_path):
    write_table(ham / "HAM10000_metadata.csv", "image_id,diagnosis", "ISIC_1,nv")
    with pytest.raises(DataError, match=r"publisher's column must be a column of HAM10000_metadata.csv, but got 'dx'"):
        load("ham10000", ham)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"a folder with HAM10000_metadata.csv, but .*empty has none"):
        load("ham10000", tmp_path / "empty")
    with pytest.raises(DataError, match=r"none is not a folder"):
        load("ham10000", tmp_path / "none")


def test_settings_that_need_other_columns_are_refused(ham, load):
    with pytest.raises(ConfigError, match=r"a grouping of HAM10000_metadata.csv \(lesion\), but got 'both'"):
        load("ham10000", ham, group_by="both")
    with pytest.raises(ConfigError, match=r"data.role must be train_only, test or unlabelled .* got 'sex'"):
        load("ham10000", ham, role="sex")
    assert load("ham10000", ham, role="train_only").roles == ["train_only"] * 3


def test_the_digest_does_not_depend_on_where_the_collection_lies(ham, load, tmp_path):
    digest = load("ham10000", ham).digest
    assert load("ham10000", ham.rename(tmp_path / "moved")).digest == digest


def test_a_broken_link_does_not_count_as_an_image(ham, load):
    (ham / "elsewhere").mkdir()
    (ham / "elsewhere" / "ISIC_1.jpg").symlink_to(ham / "gone.jpg")
    assert load("ham10000", ham).table.column("image")[1].as_py() == "HAM10000_images_part_1/ISIC_1.jpg"
    (ham / "HAM10000_images_part_1" / "ISIC_1.jpg").unlink()
    (ham / "ISIC_1.jpg").symlink_to(ham / "gone.jpg")
    with pytest.raises(DataError, match=r"ISIC_1 of row 1 is not \(1 in all\)"):
        load("ham10000", ham)
