from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysk.data.audit.lists import read_list
from raysk.data.table_files import read_columns, strings_of
from raysk.errors import DataError


def read(path: Path, content: bytes, *texts: str) -> pa.Table:
    path.write_bytes(content)
    return read_columns(path, texts)


@pytest.mark.parametrize(
    "content",
    [
        b'code,note,age\n007,"a; b, c",3\n010,,\n',
        b'\xef\xbb\xbfcode;note;age\r\n007;"a; b, c";3\r\n010;;\r\n',
        b"code\tnote\tage\n007\ta; b, c\t3\n010\t\t\n",
        b'\n code, note,age \n007,"a; b, c",3\n010,,\n',
    ],
)
def test_every_dialect_of_csv_is_read(tmp_path: Path, content: bytes) -> None:
    table = read(tmp_path / "t.csv", content, "code", "absent")
    assert table.to_pydict() == {"code": ["007", "010"], "note": ["a; b, c", ""], "age": [3, None]}


def test_a_quoted_line_break_stays_in_its_row(tmp_path: Path) -> None:
    assert read(tmp_path / "t.csv", b'a,b\n"one\ntwo",2\n').to_pydict() == {"a": ["one\ntwo"], "b": [2]}


ROWS = [b"image,label,site", *(b"im/%d.png,nv,arm" % row for row in range(12))]


def with_lines(**changed: bytes) -> bytes:
    return b"\n".join(changed.get(f"line{number}", row) for number, row in enumerate(ROWS, 1)) + b"\n"


@pytest.mark.parametrize(
    "content",
    [
        with_lines(line4=b'im/2.png,mel,"left arm', line9=b'im/7.png,nv,right" arm'),
        with_lines(line4=b'im/2.png,mel,"left arm', line9=b'im/7.png,nv,right arm"'),
        with_lines(line4=b'im/2.png,mel,"left arm', line5=b'im/3.png,nv,right arm"'),
        with_lines(line4=b'im/2.png,"mel,left arm', line6=b'im/7.png,"nv",right arm'),
        with_lines(line4=b'"im/2.png,mel,left arm', line9=b'im/7.png",nv,right arm'),
        with_lines(line4=b'im/2.png,mel,"left arm'),
        with_lines(line4=b'im/2.png,mel,"left arm' + b"x" * 2**18),
        with_lines(line4=b'im/2.png,mel,"left arm').replace(b",", b" ; "),
    ],
)
def test_a_stray_quote_is_refused_and_swallows_no_row(tmp_path: Path, content: bytes) -> None:
    tables: list[Callable[[], object]] = [
        lambda: read(tmp_path / "t.csv", content.replace(b" ; ", b";")),
        lambda: read_list(tmp_path / "t.csv"),
    ]
    for read_table in tables:
        with pytest.raises(DataError, match=r"quotes of .*t\.csv must .* in line 4 .*: close the quote") as caught:
            read_table()
        assert "\n" not in str(caught.value)


def test_quotes_within_values_and_line_breaks_within_quotes_are_kept(tmp_path: Path) -> None:
    content = with_lines(
        line4=b'im/2.png,mel,"left\n\narm, or\nso"', line5=b'im/3.png,nv,"a ""b"", c"', line6=b'x,y,5" z'
    )
    sites = read(tmp_path / "t.csv", content).column("site").to_pylist()
    assert sites[2:5] == ["left\n\narm, or\nso", 'a "b", c', '5" z'] and len(sites) == 12
    assert read_list(tmp_path / "t.csv").columns["site"] == sites


def test_columns_without_text_are_refused_as_labels(tmp_path: Path) -> None:
    table = pa.table({"a": [["x"]], "b": [b"\xff"]})
    for name in table.column_names:
        with pytest.raises(DataError, match=f"data.label must be a column of text or numbers, but '{name}'"):
            strings_of(table, name, "data.label", tmp_path)


def test_a_row_that_is_not_in_utf_8_is_named_with_the_remedy(tmp_path: Path) -> None:
    content = b"image,b\n" + b"1,%s\n" % (b"x" * 2000) * 800 + b"2,caf\xe9\n3,x\n"
    rule = r"in UTF-8, but the row in line 802 \('2,caf\\xe9'\) is not: save the file as 'CSV UTF-8', or convert it"
    with pytest.raises(DataError, match=f"t.csv must be a CSV or Parquet table, CSV {rule}"):
        read(tmp_path / "t.csv", content)
    with pytest.raises(DataError, match=f"t.csv must be a list {rule}"):
        read_list(tmp_path / "t.csv")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32"])
def test_a_table_with_the_byte_order_mark_of_utf_16_is_read(tmp_path: Path, encoding: str) -> None:
    text = ("\ufeff" if encoding == "utf-16-be" else "") + 'image;note\r\n007;"Läsion; 病变"\r\n'
    table = read(tmp_path / "t.csv", text.encode(encoding), "image")
    assert table.to_pydict() == {"image": ["007"], "note": ["Läsion; 病变"]}
    listed = read_list(tmp_path / "t.csv")
    assert listed.images == ["007"] and listed.columns == {"note": ["Läsion; 病变"]}


def test_utf_16_without_a_mark_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="its first line holds zero bytes, as UTF-16 without a byte order mark"):
        read(tmp_path / "t.csv", "image,label\na.png,nv\n".encode("utf-16-le"))


def test_missing_values_become_blank_strings(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"a": pa.array([1, None]), "b": pa.array(["x", None]).dictionary_encode()}), tmp_path / "t.parquet"
    )
    table = read_columns(tmp_path / "t.parquet", [])
    assert strings_of(table, "a", "data.label", tmp_path) == ["1", ""]
    assert strings_of(table, "b", "data.label", tmp_path) == ["x", ""]


def test_two_columns_with_the_same_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="two are called 'a'"):
        read(tmp_path / "t.csv", b"a,b,a\n1,2,3\n")


def test_a_file_without_a_table_is_refused_in_one_line(tmp_path: Path) -> None:
    for name, content in {"t.parquet": b"text", "t.csv": b"\xff\xfe\x00", "e.csv": b"", "r.csv": b"a,b\n1\n"}.items():
        with pytest.raises(DataError, match="must be a CSV or Parquet table") as caught:
            read(tmp_path / name, content)
        assert "\n" not in str(caught.value)
