"""The labels of a user's own table: one column of classes, or a column of zeros and ones for each class."""

import shlex
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from raysk.data.sources.base import value_or_blank
from raysk.data.table_files import strings_of
from raysk.errors import DataError

_BITS = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False}


def labels_of(
    table: pa.Table, label: str, path: Path, unlabelled: Sequence[bool], may_be_blank: bool = False
) -> tuple[tuple[str, ...], list[str]]:
    """Returns the columns of the label, and the label of each row, blank if it has none.

    Args:
        table: The table.
        label: A column of labels, or the columns of a one-hot table, such as "MEL+NV+BCC".
        path: The file of the table, for errors.
        unlabelled: Whether each row is unlabelled, so that its label is not read.
        may_be_blank: Whether a row of a one-hot table may have no 1.

    Raises:
        DataError: A column is missing, or a row of a one-hot table has another value than 0 and 1, or not one 1.
    """
    columns = tuple(label.split("+"))
    if label in table.column_names or len(columns) == 1:
        if label not in table.column_names and (classes := _one_hot_columns(table)):
            override = shlex.quote(f"data.label={'+'.join(classes)}")
            raise DataError(
                f"data.label must be a column of {path.name}, but got {label!r}; its columns of zeros and ones, with "
                f"one 1 in each row, may be the classes: use {override}"
            )
        values = strings_of(table, label, "data.label", path)
        return (label,), ["" if skip else value_or_blank(text) for skip, text in zip(unlabelled, values, strict=True)]
    if repeated := [name for name in columns if columns.count(name) > 1]:
        raise DataError(f"data.label must name each column once, but names {repeated[0]!r} twice: remove one")
    rows = zip(*(strings_of(table, name, "data.label", path) for name in columns), strict=True)
    return columns, [
        "" if skip or (may_be_blank and _is_blank(row)) else _class_of(columns, row, number, path)
        for number, (skip, row) in enumerate(zip(unlabelled, rows, strict=True))
    ]


def _is_blank(values: Sequence[str]) -> bool:
    """Returns whether all values of a row are missing or 0."""
    return not any(_BITS.get(value.strip().casefold(), value_or_blank(value)) for value in values)


def _class_of(columns: Sequence[str], values: Sequence[str], number: int, path: Path) -> str:
    """Returns the only column whose value is 1."""
    bits = [_BITS.get(value.strip().casefold()) for value in values]
    for column, value, bit in zip(columns, values, bits, strict=True):
        if bit is None:
            raise DataError(
                f"a column of data.label must hold 0 and 1, but {column!r} holds {value!r} in row {number} of "
                f"{path.name}: correct it, or give data.label one column of class names"
            )
    chosen = [column for column, bit in zip(columns, bits, strict=True) if bit]
    if len(chosen) != 1:
        raise DataError(
            f"each row must have a 1 in one column of data.label, but row {number} of {path.name} has "
            f"{' and '.join(repr(name) for name in chosen) or 'none'}: correct it, or remove the row"
        )
    return chosen[0]


def _one_hot_columns(table: pa.Table) -> list[str]:
    """Returns the columns of zeros and ones, if there are two or more and each row has one 1."""
    columns = []
    for name in table.column_names:
        kind = table.schema.field(name).type
        if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
            values = table.column(name).to_pylist()
            if set(values) <= {0, 1}:
                columns.append((name, values))
    once = bool(columns) and all(sum(row) == 1 for row in zip(*(values for _, values in columns), strict=True))
    return [name for name, _ in columns] if len(columns) > 1 and once else []
