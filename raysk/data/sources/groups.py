"""Groups of rows that must stay together: rows that share a lesion, a patient, or either."""

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa

from raysk.data.sources.base import value_or_blank

# The only grouping of a normalised collection.
GROUP = "group"
# What a column may identify, by its name. Cases and studies may also be arms of a trial or whole collections.
KINDS = ("lesion", "patient", "subject", "case", "study")
SURE_KINDS = ("patient", "subject", "lesion")
_NAME = re.compile(rf"(?:id)?({'|'.join(KINDS)})s?(?:id|ids|no|nr|num|number|code|key|uid|uuid|instanceuid)?")
# Fewer groups than this, each of more rows than this on average, are no lesions or patients.
_FEW = 10


def kind_of(column: str) -> str | None:
    """Returns what a column identifies by its name, such as "lesion" for LesionID or lesion-number, or None."""
    match = _NAME.fullmatch(re.sub(r"[\W_]+", "", column.casefold()))
    return None if match is None else match[1]


def known_tie(value: str) -> str:
    """Returns the text without spaces around it, or "" if it stands for an unknown lesion or patient."""
    # A class may be called "none", but a lesion is not: Python writes None for an unknown one.
    return "" if value.strip().casefold() in ("none", "unknown") else value_or_blank(value)


def ties_rows(values: Sequence[str]) -> bool:
    """Returns whether some rows share a value and not all rows have the same one; blank values are unknown."""
    known = [value for value in values if value]
    return len(set(known)) < len(known) and len(set(values)) > 1


def telling_columns(columns: Mapping[str, Sequence[str]]) -> tuple[list[str], list[str]]:
    """Chooses the columns that say, by name and values, which rows belong together.

    Args:
        columns: The values of each column whose kind is known by its name, blank where unknown.

    Returns:
        The columns to join, lesions first, and the columns to leave out although they tie rows. These would join
        almost all rows, as a lesion's number within its patient does.
    """
    taken: list[str] = []
    left_out: list[str] = []
    # Patients first: numbers of lesions are compared with them.
    order = (*SURE_KINDS, *KINDS)
    for column in sorted(columns, key=lambda name: order.index(str(kind_of(name)))):
        if not ties_rows(columns[column]):
            continue
        unsure = bool(taken) or kind_of(column) not in SURE_KINDS
        if unsure and _joins_too_much(columns, taken, column):
            left_out.append(column)
        else:
            taken.append(column)
    return sorted(taken, key=lambda name: KINDS.index(str(kind_of(name)))), left_out


def _joins_too_much(columns: Mapping[str, Sequence[str]], taken: Sequence[str], column: str) -> bool:
    num_rows = len(columns[column])
    num_before = _num_groups([columns[name] for name in taken], num_rows)
    num_groups = _num_groups([columns[name] for name in (*taken, column)], num_rows)
    fewest = max(_FEW, num_before / _FEW) if taken else _FEW
    return num_groups < min(fewest, num_before) and num_rows > _FEW * num_groups


def _num_groups(columns: Sequence[Sequence[str]], num_rows: int) -> int:
    """Counts the groups of rows that columns join; each row without a value is its own."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    rows, nodes, num_nodes = [np.empty(0, np.int64)], [np.empty(0, np.int64)], num_rows
    for values in columns:
        codes = pa.array(values, pa.string()).dictionary_encode()
        known = np.flatnonzero([bool(value) for value in values])
        # The nodes of a column are its values; the rows come before all of them.
        used, node = np.unique(codes.indices.to_numpy()[known], return_inverse=True)
        rows.append(known)
        nodes.append(node + num_nodes)
        num_nodes += len(used)
    ends = np.concatenate(rows), np.concatenate(nodes)
    graph = coo_matrix((np.ones(len(ends[0]), dtype=bool), ends), shape=(num_nodes, num_nodes))
    return int(connected_components(graph, directed=False)[0])


def joined_groups(groupings: Mapping[str, Sequence[str]]) -> list[str]:
    """Returns the name of each row's group, blank for a row without any value.

    Rows that share a value of any kind are in one group, directly or through other rows: the groups are the connected
    components of the graph whose edges are the rows.

    Args:
        groupings: The value of each row by kind, blank where unknown.

    Returns:
        With one kind, the value itself; otherwise the first value of the group, by the order of kinds and then by the
        alphabet, with its kind as a prefix, such as "patient:PAT_8".
    """
    kinds = list(groupings)
    if len(kinds) == 1:
        return list(groupings[kinds[0]])
    nodes = [
        [(place, values[row]) for place, values in enumerate(groupings.values()) if values[row]]
        for row in range(len(groupings[kinds[0]]))
    ]
    parent: dict[tuple[int, str], tuple[int, str]] = {}

    def top(node: tuple[int, str]) -> tuple[int, str]:
        while parent.setdefault(node, node) != node:
            parent[node] = parent[parent[node]]  # halves the path, which shortens the next search
            node = parent[node]
        return node

    for row_nodes in nodes:
        for node, neighbour in pairwise(row_nodes):
            first, second = sorted((top(node), top(neighbour)))
            parent[second] = first  # the smallest node of a group is its top, which gives its name
    tops = [top(row_nodes[0]) if row_nodes else None for row_nodes in nodes]
    return ["" if node is None else f"{kinds[node[0]]}:{node[1]}" for node in tops]
