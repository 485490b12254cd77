"""Groups of rows that must stay together: rows that share a lesion, a patient, or either."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

# The only grouping of a normalised collection.
GROUP = "group"


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
