"""Users' tables: each gives the right labels or an error that names the row, and never a wrong label."""

import csv
import io
import string
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from raysk.data.manifest import Manifest
from raysk.data.sources import DataSettings, load_manifest
from raysk.errors import DataError

NAMES = ["a", "Läsion 病变", "c d", "01", "1e5", "-7"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tables")
    (folder / "data").mkdir()
    for name in NAMES:
        Image.new("RGB", (8, 8)).save(folder / "data" / f"{name}.png")
    Image.new("RGB", (8, 8)).save(folder / "outside.png")
    return folder


def read(folder: Path, content: str | bytes, **options: object) -> Manifest:
    path = folder / "data" / "table.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return load_manifest(DataSettings(source="csv", path=str(path), **options), folder)  # type: ignore[arg-type]


def rows_of(manifest: Manifest) -> list[tuple[str, str]]:
    columns = (manifest.table.column(name).to_pylist() for name in ("image", "label"))
    return list(zip(*columns, strict=True))


LABELS = st.text(string.ascii_letters + string.digits + " ,;'\"äéß病.-", min_size=1, max_size=6).filter(
    lambda label: (
        label.strip() and label.strip().lower() not in ("nan", "none", "null", "na", "n/a", "-", "nat", "<na>")
    )
)


@settings(max_examples=60, deadline=None)
@given(
    labels=st.lists(LABELS, min_size=len(NAMES), max_size=len(NAMES)),
    delimiter=st.sampled_from(",;"),
    mark=st.booleans(),
    line_end=st.sampled_from(["\n", "\r\n"]),
    spaces=st.booleans(),
    suffix=st.booleans(),
    absolute=st.booleans(),
)
def test_every_dialect_gives_the_right_rows(
    folder: Path,
    labels: list[str],
    delimiter: str,
    mark: bool,
    line_end: str,
    spaces: bool,
    suffix: bool,
    absolute: bool,
) -> None:
    labels = [*labels[:-1], f"{labels[0].strip()}x"]
    images = [f"{folder / 'data'}/{name}" if absolute else name for name in NAMES]
    images = [f"{image}.png" if suffix else image for image in images]
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator=line_end)
    writer.writerow(["image", "label", "note"])
    for row, (image, label) in enumerate(zip(images, labels, strict=True)):
        writer.writerow([f" {image} " if spaces else image, f"{label} " if spaces else label, row or "x"])
    classes = tuple({label.strip() for label in labels})  # listed, since they may differ only in spelling
    manifest = read(folder, ("\ufeff" if mark else "") + text.getvalue(), classes=classes)
    assert [path.resolve() for path in manifest.paths] == [folder.resolve() / "data" / f"{name}.png" for name in NAMES]
    assert manifest.table.column("label").to_pylist() == [label.strip() for label in labels]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([*NAMES, "absent", ""]), st.sampled_from(["nv", "mel", "", "NaN"])), min_size=2)
)
def test_rows_are_read_as_written_or_refused(folder: Path, rows: list[tuple[str, str]]) -> None:
    lines = [f"{name}.png,{label}" if name else f",{label}" for name, label in rows]
    try:
        manifest = read(folder, "image,label\n" + "\n".join(lines) + "\n")
    except DataError as error:
        assert "\n" not in str(error)
        images = [name for name, _ in rows]
        classes = {label for _, label in rows}
        wrong = len(set(images)) < len(images) or {"", "absent"} & set(images) or not classes <= {"nv", "mel"}
        assert wrong, f"refused for no reason: {error}"
    else:
        assert rows_of(manifest) == [(f"{name}.png", label) for name, label in rows]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("image,label\na.png,nv\na.png,mel\n", "'a.png' is in 2"),
        ("image,label\na.png,nv\na,mel\n", "is in 2"),
        ("image,label\na.png,nv\n01.png,\n", "row 1 .*01.png"),
        ("image,label\na.png,nv\n01.png,NaN\n", "row 1 .*01.png"),
        ("image,label\na.png,nv\n,mel\n", "row 1"),
        ("image,label\na.png,nv\nabsent.png,mel\n", "absent.png of row 1 is not"),
        ("image,label\na.png,nv,3\n01.png,mel\n", "must be a CSV or Parquet table"),
        ("image,label,label\na.png,nv,mel\n", "two are called 'label'"),
        ("Image,label\na.png,nv\n", "data.image must be a column .* nearest first: Image"),
        ("", "must be a CSV or Parquet table"),
        (b"image,label\n\xff\xfe.png,nv\n", "must be a CSV or Parquet table"),
    ],
)
def test_an_error_names_the_invalid_row(folder: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(folder, content)


def test_an_image_may_be_outside_the_folder_of_the_table(folder: Path) -> None:
    manifest = read(folder, "image,label\na.png,nv\n../outside.png,mel\n")
    assert [label for _, label in rows_of(manifest)] == ["nv", "mel"]
    assert manifest.paths[1].samefile(folder / "outside.png")


def test_codes_are_read_as_text(folder: Path) -> None:
    manifest = read(folder, "image,label,group\n01,010,1\n1e5,1e1,01\n")
    assert rows_of(manifest) == [("01.png", "010"), ("1e5.png", "1e1")]
    assert manifest.table.column("group").to_pylist() == ["1", "01"]


def test_missing_numeric_labels_in_parquet_are_refused(folder: Path) -> None:
    table = pa.table({"image": ["a.png", "01.png", "c d.png"], "label": pa.array([1.0, 2.0, None])})
    pq.write_table(table, folder / "data" / "t.parquet")
    with pytest.raises(DataError, match=r"row 2 .*c d.png"):
        load_manifest(DataSettings(source="csv", path=str(folder / "data" / "t.parquet")), folder)
    nan = table.set_column(1, "label", pa.array([1.0, 2.0, float("nan")]))
    pq.write_table(nan, folder / "data" / "t.parquet")
    with pytest.raises(DataError, match=r"row 2 .*c d.png"):
        load_manifest(DataSettings(source="csv", path=str(folder / "data" / "t.parquet")), folder)


def test_links_count_as_files(folder: Path) -> None:
    link = folder / "data" / "link.png"
    if not link.is_symlink():
        link.symlink_to(folder / "outside.png")
    assert rows_of(read(folder, "image,label\nlink.png,nv\na.png,mel\n"))[0] == ("link.png", "nv")
