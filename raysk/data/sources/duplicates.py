"""Pictures that several collections have, such as all of HAM10000 within ISIC 2019: kept once, their lesions joined."""

import filecmp
import logging
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from raysk.data.sources.base import Collection
from raysk.data.sources.groups import GROUP, joined_groups
from raysk.errors import DataError

# The ISIC archive gives a picture one name wherever it appears; behind it may stand what was done to the file.
_ARCHIVE_NAME = re.compile(r"isic_\d{7}(?=$|_)")
# What a picture that is there twice is kept as: what is scored must not be learnt from.
_ROLES = ("test", "", "train", "train_only")

logger = logging.getLogger(__name__)


class Row(NamedTuple):
    """A row among those of several collections: which collection, and where in it."""

    part: int
    row: int


def without_doubles(names: Sequence[str], parts: Sequence[Collection]) -> tuple[list[Collection], list[str] | None]:
    """Returns the collections with each picture once, and the group of every row that is left, in their order.

    Two rows are one picture if both have its name in the ISIC archive, or files of the same name with the same bytes.
    Then their groups are one; and if both collections call that group the same, so are all groups that both know.
    Rows that only train are left out where their group is one with rows of other roles.

    Args:
        names: Of the collections.
        parts: Settled collections.

    Returns:
        The collections, and the groups; None where no collection has groups.

    Raises:
        DataError: A collection has no picture of its own.
    """
    groups = [[f"{name}/{group}" for group in _raw_groups(part)] for name, part in zip(names, parts, strict=True)]
    kept_of = {other: first for first, *others in _doubles(parts) for other in others}
    links = [(groups[first.part][first.row], groups[other.part][other.row]) for other, first in kept_of.items()]
    links += _shared_names(names, parts, kept_of)
    whole = _whole_groups(groups, links)
    trained = _only_trained(parts, groups, whole, {group for link in links for group in link})
    left = []
    for number, (name, part) in enumerate(zip(names, parts, strict=True)):
        doubled = {other.row for other in kept_of if other.part == number}
        tied = trained[number] - doubled
        left.append([row for row in range(len(part.names)) if row not in doubled | tied])
        _tell(name, len(doubled), len(tied), len(left[-1]))
    found = [part.take(rows) if len(rows) < len(part.names) else part for part, rows in zip(parts, left, strict=True)]
    if not any(part.groupings for part in parts):
        return found, None
    return found, [whole[groups[number][row]] for number, rows in enumerate(left) for row in rows]


def _raw_groups(part: Collection) -> list[str]:
    return list(part.groupings.get(GROUP) or [str(image) for image in part.images])


def _role(part: Collection, row: int) -> str:
    return part.roles[row] if part.roles else ""


def _doubles(parts: Sequence[Collection]) -> Iterator[list[Row]]:
    """Yields the rows of each picture that several collections have, first the one to keep."""
    named: dict[str, list[Row]] = defaultdict(list)
    for number, part in enumerate(parts):
        for row, image in enumerate(part.images):
            stem = Path(str(image)).stem.casefold()
            archived = _ARCHIVE_NAME.match(stem)
            named[archived[0] if archived else stem].append(Row(number, row))
    for name, rows in named.items():
        rows.sort(key=lambda one: (_ROLES.index(_role(parts[one.part], one.row)), one))
        first, *others = rows
        same = [one for one in others if one.part != first.part and _is_same(name, first, one, parts)]
        if same:
            yield [first, *same]


def _is_same(name: str, one: Row, other: Row, parts: Sequence[Collection]) -> bool:
    if _ARCHIVE_NAME.fullmatch(name):
        return True
    first, second = (parts[at.part].root / str(parts[at.part].images[at.row]) for at in (one, other))
    try:
        return filecmp.cmp(first, second, shallow=False)
    except OSError:  # Whoever decodes the files says which of them cannot be read.
        return False


def _shared_names(
    names: Sequence[str], parts: Sequence[Collection], kept_of: dict[Row, Row]
) -> Iterator[tuple[str, str]]:
    """Yields the groups that two collections call the same, where a picture of both shows that they mean the same."""
    raw = [_raw_groups(part) for part in parts]
    alike = {
        frozenset((one.part, other.part))
        for other, one in kept_of.items()
        if parts[one.part].groupings and parts[other.part].groupings
        and raw[one.part][one.row] == raw[other.part][other.row]
    }  # fmt: skip
    for one, other in combinations(range(len(parts)), 2):
        if {one, other} in alike:
            yield from ((f"{names[one]}/{group}", f"{names[other]}/{group}") for group in {*raw[one]} & {*raw[other]})


def _whole_groups(groups: Sequence[Sequence[str]], links: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Returns the name of the group that each group is part of, once those that are linked are one."""
    every = list(dict.fromkeys(group for column in groups for group in column))
    # Each link is a row that has a value of both kinds, and so joins them.
    ends = [(group, group) for group in every] + list(links)
    joined = joined_groups({"one": [one for one, _ in ends], "other": [other for _, other in ends]})
    first: dict[str, str] = {}
    for group, name in zip(every, joined, strict=False):
        first.setdefault(name, group)
    return {group: first[name] for group, name in zip(every, joined, strict=False)}


def _only_trained(
    parts: Sequence[Collection], groups: Sequence[Sequence[str]], whole: dict[str, str], linked: set[str]
) -> list[set[int]]:
    """Returns, of each collection, the rows that only train although rows of a linked group have another role."""
    others = {
        whole[groups[number][row]]
        for number, part in enumerate(parts)
        for row in range(len(part.names))
        if _role(part, row) != "train_only"
    }
    return [
        {
            row
            for row in range(len(part.names))
            if _role(part, row) == "train_only"
            and groups[number][row] in linked
            and whole[groups[number][row]] in others
        }
        for number, part in enumerate(parts)
    ]


def _tell(name: str, doubled: int, tied: int, left: int) -> None:
    if not left:
        raise DataError(f"each collection must have pictures of its own, but others have all of {name}'s: remove it")
    if doubled:
        logger.warning("%s: left out %d pictures that another collection has as well", name, doubled)
    if tied:
        logger.warning("%s: left out %d train_only pictures of groups that another collection has too", name, tied)
