"""Columns of a split's lists that tie rows together: lesions, patients and groups, whatever the lists call them."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from raysk.data.audit.lists import ImageList
from raysk.data.sources.groups import SURE_KINDS, kind_of, known_tie, telling_columns

# Columns of groups besides those of lesions and patients.
_GROUP_COLUMNS = ("group", "cluster")
_MOST_OF_ONE = 10  # rows of a split that may all show one lesion; in more rows, one value identifies nothing


def is_tie(name: str) -> bool:
    """Returns whether a column ties rows together, by its name."""
    return name.lower() in _GROUP_COLUMNS or kind_of(name) is not None


def column_of(table: ImageList, name: str) -> list[str]:
    """Returns a column of a list, blank where the list lacks it; in a column of ties, unknown values are blank."""
    values = table.columns.get(name, [""] * len(table.images))
    return [known_tie(value) for value in values] if is_tie(name) else values


def with_equal_names(tables: Sequence[ImageList]) -> list[ImageList]:
    """Gives columns of one kind one name in all tables, such as lesion_id in one and LesionID in another."""
    names_of_kind: dict[str, list[str]] = defaultdict(list)
    for table in tables:
        for name in table.columns:
            names_of_kind[kind_of(name) or ""].append(name)
    renamed = {
        name: names[0]
        for kind, names in names_of_kind.items()
        if kind and all(sum(kind_of(name) == kind for name in table.columns) < 2 for table in tables)
        for name in names
    }
    return [
        replace(table, columns={renamed.get(name, name): values for name, values in table.columns.items()})
        for table in tables
    ]


def divided(columns: Mapping[str, list[str]]) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Divides columns into those that tie rows together and the attributes, by their names and values."""
    ties = {name: _as_whole(values) for name, values in columns.items() if is_tie(name)}
    taken, left_out = telling_columns({name: values for name, values in ties.items() if kind_of(name)})
    for name, values in list(ties.items()):
        constant = len(values) > _MOST_OF_ONE and len(set(values)) == 1 and any(values)
        unsure = kind_of(name) not in (None, *SURE_KINDS)
        if name in left_out or (name not in taken and kind_of(name) and (unsure or constant)):
            del ties[name]
    return ties, {name: values for name, values in columns.items() if name not in ties}


def _as_whole(values: list[str]) -> list[str]:
    """Writes 7.0 as 7 if the column has whole numbers too: pandas writes 7.0 in a list with unknown values."""
    if not any(value.isdecimal() for value in values):
        return values
    return [re.sub(r"^(\d+)\.0$", r"\1", value) for value in values]
