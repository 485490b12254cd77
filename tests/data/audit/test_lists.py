from pathlib import Path

import pytest

from raysk.data.audit.lists import read_list


def listed(tmp_path: Path, text: str) -> tuple[list[str], list[str]]:
    path = tmp_path / "train.csv"
    path.write_text(text)
    images = read_list(path)
    return images.images, images.labels


@pytest.mark.parametrize(
    "header",
    [
        "image_train,label_train",
        "X_train,y_train",
        "Image Name,Class",
        "imageFile,classId",
        "train-images,train-labels",
    ],
)
def test_unusual_headers_are_no_rows(tmp_path: Path, header: str) -> None:
    assert listed(tmp_path, f"{header}\nISIC_1,nv\nISIC_2,mel\n") == (["ISIC_1", "ISIC_2"], ["nv", "mel"])


def test_columns_may_be_in_any_order_beside_others(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text("label_train,patient_id,image_train\nnv,P1,ISIC_1\nmel,P2,ISIC_2\n")
    images = read_list(path)
    assert (images.images, images.labels) == (["ISIC_1", "ISIC_2"], ["nv", "mel"])
    assert images.columns == {"patient_id": ["P1", "P2"]}


@pytest.mark.parametrize(
    "rows",
    [
        [("img_0001", "mel"), ("img_0002", "nv")],
        [("ISIC_1", "target"), ("ISIC_2", "nv")],
        [("image_a", "class_a"), ("image_b", "class_a")],
        [("image.png", "class"), ("other.png", "nv")],
        [("a" * 5000 + "1", "label"), ("b", "nv")],
    ],
)
def test_rows_are_no_header(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    images, labels = zip(*rows, strict=True)
    assert listed(tmp_path, "\n".join(",".join(row) for row in rows)) == (list(images), list(labels))
