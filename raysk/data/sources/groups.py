"""Groups of rows that must not be parted: those that share a lesion, a patient, or either."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

# The one grouping that a normalised collection has.
GROUP = "group"


def joined_groups(groupings: Mapping[str, Sequence[str]]) -> list[str]:
    """Returns the name of each row's group; blank for a row of which nothing is known.

    Rows that share a value of one kind are in one group, and so are rows that others connect: these are the connected
    components of the graph whose edges are the rows.

    Args:
        groupings: By kind the value of each row, blank where it is not known.

    Returns:
        The value itself where there is one kind; otherwise the first value of the group, in the order of kinds and
        then of the alphabet, with its kind before it, such as "patient:PAT_8".
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
            parent[node] = parent[parent[node]]  # halves the path, so that the next search is short
            node = parent[node]
        return node

    for row_nodes in nodes:
        for one, other in pairwise(row_nodes):
            first, second = sorted((top(one), top(other)))
            parent[second] = first  # the smallest node of a group is its top, and so its name
    tops = [top(row_nodes[0]) if row_nodes else None for row_nodes in nodes]
    return ["" if node is None else f"{kinds[node[0]]}:{node[1]}" for node in tops]
