"""Reads users' tables: CSV in its dialects, and Parquet."""

import codecs
import csv
import re
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from difflib import get_close_matches
from io import BytesIO, TextIOWrapper
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from raysk.errors import DataError

UTF_8 = "utf-8-sig"
# The byte order marks of other encodings; UTF-32's come first, because one of them begins as UTF-16's does.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def read_columns(path: Path, texts: Collection[str], is_text: Callable[[str], bool] = lambda name: False) -> pa.Table:
    """Reads a Parquet table, or a CSV table with commas, semicolons or tabs, with or without a byte order mark.

    A CSV table is in UTF-8, or in UTF-16 or UTF-32 with a byte order mark. Spaces around its column names are removed.

    Args:
        path: The table; it is Parquet if its suffix is .parquet, and CSV otherwise.
        texts: The columns of a CSV table to read as text; Arrow infers the types of the others.
        is_text: Whether to read a further column as text, by its name.

    Raises:
        DataError: The file cannot be read as a table, a quote is not closed, or two columns have the same name.
    """
    try:
        if path.suffix.lower() == ".parquet":
            table = pq.read_table(path, partitioning=None)
        else:
            table = _read_csv(path, lambda name: name in texts or is_text(name))
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        if isinstance(error, UnicodeDecodeError) and (wrong := not_utf_8(path)):
            raise DataError(f"{path} must be a CSV or Parquet table, CSV in UTF-8, but {wrong}") from error
        reason = str(error).split("\n", 1)[0]
        raise DataError(f"{path} must be a CSV or Parquet table, but {reason}: correct the file") from error
    names = table.column_names
    if repeated := [name for name in names if names.count(name) > 1]:
        raise DataError(
            f"columns of {path.name} must have different names, but two are called {repeated[0]!r}: rename one"
        )
    return table


def encoding_of(start: bytes) -> str:
    """Returns the encoding of a text whose first four bytes are `start`: that of its byte order mark, else UTF-8."""
    return next((encoding for mark, encoding in _MARKS if start.startswith(mark)), UTF_8)


def not_utf_8(path: Path) -> str | None:
    """Returns the row of a file that is not in UTF-8 and the remedy, for an error; None if another encoding is broken.

    The row is a line of the file, the header being line 1.
    """
    with path.open("rb") as file:
        if encoding_of(file.read(4)) != UTF_8:
            return None
        file.seek(0)
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                near = line[max(0, error.start - 30) : error.start + 30].decode("ascii", "backslashreplace")
                return (
                    f"the row in line {number} ('{' '.join(near.split())}') is not: save the file as 'CSV UTF-8', or "
                    "convert it with iconv -f WINDOWS-1252 -t UTF-8"
                )
    return None


def strings_of(table: pa.Table, name: str, setting: str, path: Path) -> list[str]:
    """Returns a column as strings, blank for missing values.

    Args:
        table: The table that was read from `path`.
        name: The column.
        setting: The setting that named the column, for the error.
        path: The file of the table, for the error.

    Raises:
        DataError: The column does not exist (the message lists all columns, nearest name first), or it holds neither
            text nor numbers.
    """
    if name not in table.column_names:
        columns = sorted(table.column_names)
        nearest = ", ".join(get_close_matches(name, columns, n=len(columns), cutoff=0.0))
        raise DataError(
            f"{setting} must be a column of {path.name}, but got {name!r}; columns, nearest first: {nearest}"
        )
    try:
        return list(pc.fill_null(table.column(name).cast(pa.string()), "").to_pylist())
    except pa.ArrowException as error:
        kind = table.schema.field(name).type
        raise DataError(
            f"{setting} must be a column of text or numbers, but {name!r} of {path.name} holds {kind}: choose another"
        ) from error


def quoted_rows(lines: Iterable[str], delimiter: str, path: Path, spaced: bool = False) -> Iterator[list[str]]:
    """Yields the rows of a CSV table, and refuses a table in which a stray quote would swallow rows.

    Args:
        lines: The lines with their ends.
        delimiter: The character between values.
        path: The file of the table, for the error.
        spaced: Whether to skip spaces after a delimiter.

    Raises:
        DataError: A quote is not closed, text follows a closing quote, or a quoted value seems to hold whole rows.
    """
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=spaced, strict=True)
    begin = 1
    try:
        for row in reader:
            if reader.line_num > begin and _swallows_rows(row, delimiter):
                raise _stray_quote(path, begin, reader.line_num, "a value holds whole rows")
            begin = reader.line_num + 1
            yield row
    except csv.Error as error:
        raise _stray_quote(path, begin, reader.line_num, str(error)) from error


def _swallows_rows(row: list[str], delimiter: str) -> bool:
    """Returns whether a value, split at its line breaks, has exactly the delimiters of several rows of this width."""
    others = len(row) - 1
    for place, value in enumerate(row):
        first, *middle = re.split("\r\n?|\n", value)
        if others and middle:
            *middle, last = middle
            pieces = [first, *(piece for piece in middle if piece), last]
            if [piece.count(delimiter) for piece in pieces] == [others - place, *[others] * (len(pieces) - 2), place]:
                return True
    return False


def _stray_quote(path: Path, begin: int, end: int, reason: str) -> DataError:
    return DataError(
        f"quotes of {path} must open and close around a whole value, but the row that begins in line {begin} ends in "
        f"line {end} ({reason}): close the quote of that row, or put a value that contains a quote into quotes and "
        "double that quote"
    )


def _read_csv(path: Path, is_text: Callable[[str], bool]) -> pa.Table:
    with path.open("rb") as file:
        encoding = encoding_of(file.read(4))
    content = None if encoding == UTF_8 else path.read_bytes().decode(encoding).encode()  # Arrow reads UTF-8
    with TextIOWrapper(path.open("rb") if content is None else BytesIO(content), UTF_8, newline="") as text:
        header = next((line for line in text if line.strip()), "")
        if "\0" in header:
            raise DataError(
                f"{path} must be a CSV or Parquet table, CSV in UTF-8, but its first line holds zero bytes, as "
                "UTF-16 without a byte order mark does: save the file as 'CSV UTF-8'"
            )
        delimiter = max(",;\t", key=header.count)
        text.seek(0)
        rows = quoted_rows(text, delimiter, path)
        names = next((row for row in rows if row), [])
        deque(rows, maxlen=0)  # checks the quotes: Arrow would read whole rows into a value with an unclosed quote
    table = pyarrow.csv.read_csv(
        path if content is None else BytesIO(content),
        parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(column_types={n: pa.string() for n in names if is_text(n.strip())}),
    )
    return table.rename_columns([name.strip() for name in table.column_names])
