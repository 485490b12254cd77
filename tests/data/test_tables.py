from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysk.data.tables import read_columns, strings_of
from raysk.errors import DataError


def read(path: Path, content: bytes, *texts: str) -> pa.Table:
    path.write_bytes(content)
    return read_columns(path, texts)


@pytest.mark.parametrize(
    "content",
    [
        b'code,note,age\n007,"a; b, c",3\n010,,\n',
        b'\xef\xbb\xbfcode;note;age\r\n007;"a; b, c";3\r\n010;;\r\n',
    ],
)
def test_dialects_of_csv(tmp_path: Path, content: bytes) -> None:
    table = read(tmp_path / "t.csv", content, "code", "absent")
    assert table.to_pydict() == {"code": ["007", "010"], "note": ["a; b, c", ""], "age": [3, None]}


def test_a_quoted_line_break_stays_in_its_row(tmp_path: Path) -> None:
    assert read(tmp_path / "t.csv", b'a,b\n"one\ntwo",2\n').to_pydict() == {"a": ["one\ntwo"], "b": [2]}


def test_strings_are_blank_where_there_is_no_value(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"a": pa.array([1, None]), "b": pa.array(["x", None]).dictionary_encode()}), tmp_path / "t.parquet"
    )
    table = read_columns(tmp_path / "t.parquet", [])
    assert strings_of(table, "a", "data.label", tmp_path) == ["1", ""]
    assert strings_of(table, "b", "data.label", tmp_path) == ["x", ""]


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="two are 'a'"):
        read(tmp_path / "t.csv", b"a,b,a\n1,2,3\n")


def test_what_is_no_table_is_refused_in_one_line(tmp_path: Path) -> None:
    for name, content in {"t.parquet": b"text", "t.csv": b"\xff\xfe\x00", "e.csv": b"", "r.csv": b"a,b\n1\n"}.items():
        with pytest.raises(DataError, match="must be a CSV or Parquet table") as caught:
            read(tmp_path / name, content)
        assert "\n" not in str(caught.value)
