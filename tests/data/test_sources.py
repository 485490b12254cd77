import csv
import logging
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from raysk.data.sources import DataSettings, load_manifest, sources
from raysk.errors import ConfigError, DataError


def write_dataset(folder: Path, header: list[str], rows: list[list[str]], delimiter: str = ",") -> Path:
    """Writes a table and, for each row whose first cell is not blank, the image file that it names."""
    folder.mkdir(parents=True, exist_ok=True)
    for row in rows:
        if row[0]:
            (folder / row[0]).parent.mkdir(parents=True, exist_ok=True)
            (folder / row[0]).write_bytes(b"an image")
    table = folder / "table.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter).writerows([header, *rows])
    return table


HEADER = ["image", "label", "group", "age"]
ROWS = [["i/1.png", "01", "007", "30"], ["i/2.png", "1", "7", "40"], ["i/3.png", "01", "007", ""]]


def load(path: Path, **settings: object) -> object:
    return load_manifest(DataSettings(source="csv", path=str(path), **settings), path.parent / "cache")


def test_labels_and_groups_are_read_as_text_not_numbers(tmp_path: Path) -> None:
    manifest = load(write_dataset(tmp_path, HEADER, ROWS))
    assert manifest.class_names == ("01", "1")
    assert manifest.table.column("label").to_pylist() == ["01", "1", "01"]
    assert manifest.groups.tolist() == [0, 1, 0] and manifest.grouped
    assert manifest.table.column("age").to_pylist() == [30, 40, None]
    assert [path.read_bytes() for path in manifest.paths] == [b"an image"] * 3
    assert manifest.root == tmp_path


def test_every_form_of_a_table_gives_the_same_manifest(tmp_path: Path) -> None:
    plain = load(write_dataset(tmp_path / "comma", HEADER, ROWS))
    semicolon = load(write_dataset(tmp_path / "semicolon", HEADER, ROWS, ";"))
    marked = write_dataset(tmp_path / "marked", HEADER, ROWS)
    marked.write_bytes(b"\xef\xbb\xbf" + marked.read_bytes())
    parquet = write_dataset(tmp_path / "parquet", HEADER, ROWS).with_suffix(".parquet")
    columns = zip(*[row[:3] for row in ROWS], strict=True)
    pq.write_table(pa.table({name: list(values) for name, values in zip(HEADER, columns, strict=False)}), parquet)
    assert {plain.digest} == {semicolon.digest, load(marked).digest, load(parquet).digest}


def test_numbers_in_parquet_become_text(tmp_path: Path) -> None:
    table = write_dataset(tmp_path, HEADER, ROWS).with_suffix(".parquet")
    pq.write_table(pa.table({"image": ["i/1.png", "i/2.png"], "label": [0, 1], "group": [None, 3]}), table)
    assert load(table).table.column("label").to_pylist() == ["0", "1"]


def test_settings_name_the_columns(tmp_path: Path) -> None:
    header = ["file", "dx", "lesion_id", "split", "image", "label"]
    rows = [["1.png", "nv", "a", "train", "x", "u"], ["2.png", "mel", "b", "test", "y", "v"]]
    manifest = load(write_dataset(tmp_path, header, rows), image="file", label="dx", group="lesion_id", role="split")
    assert manifest.class_names == ("mel", "nv")
    assert manifest.roles == ["", "test"]
    assert manifest.attributes == ("source_image", "source_label")


def test_without_a_group_column_nothing_is_grouped(tmp_path: Path) -> None:
    manifest = load(write_dataset(tmp_path, ["image", "label"], [["1.png", "a"], ["2.png", "b"]]))
    assert not manifest.grouped and manifest.groups.tolist() == [0, 1]


def test_rows_without_a_group_are_their_own_group(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [["1.png", "a", "", ""], ["2.png", "b", "", ""], ["3.png", "b", "g", ""]]
    with caplog.at_level(logging.WARNING):
        manifest = load(write_dataset(tmp_path, HEADER, rows))
    assert len(set(manifest.groups.tolist())) == 3 and manifest.grouped
    assert "2 rows without a value of 'group'" in caplog.text


def test_a_missing_column_error_lists_the_columns(tmp_path: Path) -> None:
    table = write_dataset(tmp_path, ["image", "dx", "lesion"], [["1.png", "a", "g"]])
    with pytest.raises(DataError, match=r"data.label must be a column of table.csv, but got 'label'; .*dx"):
        load(table)
    with pytest.raises(DataError, match=r"data.group .* got 'lesion_id'; columns, nearest first: lesion, "):
        load(table, label="dx", group="lesion_id")


def test_an_unknown_label_names_row_value_and_nearest_class(tmp_path: Path) -> None:
    table = write_dataset(tmp_path, HEADER, [["1.png", "nv", "", ""], ["2.png", "nevu", "", ""]])
    with pytest.raises(DataError, match=r"got 'nevu' in row 1 .'2.png'. of table.csv; the nearest class is 'nevus'"):
        load(table, classes=("mel", "nv", "nevus"))


def test_setting_classes_fixes_their_order(tmp_path: Path) -> None:
    assert load(write_dataset(tmp_path, HEADER, ROWS), classes=("1", "01")).labels.tolist() == [1, 0, 1]


def test_blank_labels_and_invalid_roles_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"row 1 .'2.png'. has none"):
        load(write_dataset(tmp_path / "a", HEADER, [["1.png", "nv", "", ""], ["2.png", " ", "", ""]]))
    table = write_dataset(tmp_path / "b", ["image", "label", "role"], [["1.png", "a", "train"], ["2.png", "b", "vol"]])
    with pytest.raises(DataError, match="'vol' in row 1"):
        load(table)


def test_missing_files_are_refused_or_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    table = write_dataset(tmp_path, HEADER, [*ROWS, ["i/4.png", "1", "8", "5"]])
    (tmp_path / "i" / "2.png").unlink()
    with pytest.raises(DataError, match=r"i/2.png of row 1 is not \(1 in all\): .*data.on_error=skip"):
        load(table)
    with caplog.at_level(logging.WARNING):
        manifest = load(table, on_error="skip")
    assert manifest.table.column("image").to_pylist() == ["i/1.png", "i/3.png", "i/4.png"]
    assert manifest.table.column("age").to_pylist() == [30, None, 5]
    assert "left out 1 row without an image file" in caplog.text


@pytest.mark.parametrize("text", ["", "image,label\n1.png\n"])
def test_a_broken_table_is_a_data_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "table.csv").write_text(text)
    with pytest.raises(DataError, match=r"must be a CSV or Parquet table"):
        load(tmp_path / "table.csv")


def test_missing_paths_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a file"):
        load(tmp_path / "none.csv")
    with pytest.raises(DataError, match="is not a folder"):
        load_manifest(DataSettings(source="folder", path=str(tmp_path / "none")), tmp_path)
    for source in ("csv", "folder"):
        with pytest.raises(ConfigError, match=r"data.path must be given"):
            load_manifest(DataSettings(source=source), tmp_path)


def test_invalid_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"on_error must be .* got 'ignore'; .* skip"):
        DataSettings(on_error="ignore")
    with pytest.raises(ConfigError, match="size must be"):
        DataSettings(source="csv", size=0)
    with pytest.raises(ConfigError, match="did you mean folder"):
        load_manifest(DataSettings(source="folders"), Path())
    assert {"csv", "folder", "synthetic"} <= set(sources)


def test_class_folders_give_labels(tmp_path: Path) -> None:
    for name in ("nv/2.JPG", "nv/sub/1.png", "mel/a.tiff", "mel/notes.txt", ".hidden/x.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    manifest = load_manifest(DataSettings(source="folder", path=str(tmp_path)), tmp_path)
    assert manifest.table.column("image").to_pylist() == ["mel/a.tiff", "nv/2.JPG", "nv/sub/1.png"]
    assert manifest.class_names == ("mel", "nv") and not manifest.grouped
    (tmp_path / "df").mkdir()
    with pytest.raises(DataError, match="'df' holds none"):
        load_manifest(DataSettings(source="folder", path=str(tmp_path)), tmp_path)


def test_the_synthetic_source_draws_once(tmp_path: Path) -> None:
    first = load_manifest(DataSettings(size=90), tmp_path)
    drawn = {path: path.stat().st_mtime_ns for path in first.paths}
    again = load_manifest(DataSettings(size=90), tmp_path)
    assert again.digest == first.digest and {path: path.stat().st_mtime_ns for path in again.paths} == drawn
    assert len(first) == 90 and first.grouped
    assert {"image_id", "mask", "x0", "y0", "x1", "y1"} <= set(first.attributes)
    other = load_manifest(DataSettings(size=90, seed=1), tmp_path)
    pixels = [np.asarray(Image.open(manifest.paths[0])) for manifest in (first, other)]
    assert other.root != first.root and (pixels[0] != pixels[1]).any()
