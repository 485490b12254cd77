"""Reading tables that people bring: CSV in its dialects, and Parquet."""

import csv
from collections.abc import Collection
from difflib import get_close_matches
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from raysk.errors import DataError


def read_columns(path: Path, texts: Collection[str]) -> pa.Table:
    """Reads a Parquet table, or a CSV table with commas or semicolons, with or without a byte order mark.

    Args:
        path: The table; the suffix .parquet tells which it is.
        texts: The columns of a CSV table that hold text, whatever it looks like; the types of others are guessed.

    Raises:
        DataError: The file cannot be read as a table, or two columns have one name.
    """
    try:
        table = pq.read_table(path, partitioning=None) if path.suffix.lower() == ".parquet" else _read_csv(path, texts)
    except (OSError, UnicodeDecodeError, pa.ArrowInvalid) as error:
        reason = str(error).split("\n", 1)[0]
        raise DataError(f"{path} must be a CSV or Parquet table, but {reason}: correct the file") from error
    names = table.column_names
    if doubled := [name for name in names if names.count(name) > 1]:
        raise DataError(f"columns of {path.name} must have different names, but two are {doubled[0]!r}: rename one")
    return table


def strings_of(table: pa.Table, name: str, setting: str, path: Path) -> list[str]:
    """Returns a column as strings, blank where it has no value.

    Args:
        table: The table that was read from `path`.
        name: The column.
        setting: The setting that named the column, for the error.
        path: Where the table lies, for the error.

    Raises:
        DataError: There is no such column; the message has those that there are, nearest name first.
    """
    if name not in table.column_names:
        known = sorted(table.column_names)
        nearest = ", ".join(get_close_matches(name, known, n=len(known), cutoff=0.0))
        raise DataError(
            f"{setting} must be a column of {path.name}, but got {name!r}; columns, nearest first: {nearest}"
        )
    return list(pc.fill_null(table.column(name).cast(pa.string()), "").to_pylist())


def _read_csv(path: Path, texts: Collection[str]) -> pa.Table:
    with path.open(encoding="utf-8-sig", newline="") as file:
        header = file.readline()
    delimiter = max(",;", key=header.count)
    names = next(csv.reader([header], delimiter=delimiter), [])
    return pyarrow.csv.read_csv(
        path,
        parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(column_types={n: pa.string() for n in names if n in texts}),
    )
