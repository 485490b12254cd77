"""The column of each class in a table of predictions."""

from collections.abc import Sequence


def class_columns(class_names: Sequence[str], taken: Sequence[str]) -> list[str]:
    """Returns a column name for each class; all differ from one another and from those taken."""
    columns = []
    for name in class_names:
        column = name
        while column in taken or (column != name and column in class_names):
            column = f"p({column})"
        columns.append(column)
    return columns
