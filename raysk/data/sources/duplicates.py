"""Duplicates among collections, such as HAM10000 within ISIC 2019: each is kept once, and their groups are joined."""

import filecmp
import logging
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from raysk.data.sources.base import Collection, number_of
from raysk.data.sources.groups import GROUP, joined_groups
from raysk.errors import DataError

# The ISIC archive gives a picture the same name everywhere; a suffix may say how the file was processed.
_ARCHIVE_NAME = re.compile(r"isic_\d{7}(?=$|_)")
# Of duplicates, the row whose role comes first here is kept: a scored picture must not be trained on.
_ROLES = ("test", "", "train", "train_only", "unlabelled")

logger = logging.getLogger(__name__)


def archive_name(image: str) -> str | None:
    """Returns the name of a picture in the ISIC archive, which it has in every collection; None for other pictures."""
    match = _ARCHIVE_NAME.match(Path(image).stem.casefold())
    return match[0] if match else None


class Row(NamedTuple):
    """A row of several collections: the number of its collection, and its row there."""

    part: int
    row: int


def without_duplicates(names: Sequence[str], parts: Sequence[Collection]) -> tuple[list[Collection], list[str] | None]:
    """Keeps each picture once; returns the collections and the group of every row kept, in order.

    Two rows show the same picture if they have the same name in the ISIC archive, or files of equal name and bytes.
    Their groups are joined. If both groups have the same name in their collections, all groups with the same name in
    these two collections are joined. Rows with the role train_only are left out if a join adds rows of other roles to
    their group; unlabelled rows stay, since each fold leaves out those of its held-out groups.

    Args:
        names: The names of the collections.
        parts: Normalised collections.

    Returns:
        The collections, and the groups; None instead of groups if no collection has any.

    Raises:
        DataError: A collection keeps no row.
    """
    groups = [[f"{name}/{group}" for group in _raw_groups(part)] for name, part in zip(names, parts, strict=True)]
    kept_of = {duplicate: kept for kept, *duplicates in _duplicates(parts) for duplicate in duplicates}
    links = [
        (groups[kept.part][kept.row], groups[duplicate.part][duplicate.row]) for duplicate, kept in kept_of.items()
    ]
    links += _shared_names(names, parts, kept_of)
    joined = _joined_names(groups, links)
    leaking = _leaking_rows(parts, groups, joined, {group for link in links for group in link})
    rows_kept = []
    for number, (name, part) in enumerate(zip(names, parts, strict=True)):
        duplicates = {duplicate.row for duplicate in kept_of if duplicate.part == number}
        others = leaking[number] - duplicates
        rows_kept.append([row for row in range(len(part.names)) if row not in duplicates | others])
        _report(name, len(duplicates), len(others), len(rows_kept[-1]))
    collections = [
        part.take(rows) if len(rows) < len(part.names) else part for part, rows in zip(parts, rows_kept, strict=True)
    ]
    if not any(part.groupings for part in parts):
        return collections, None
    return collections, [joined[groups[number][row]] for number, rows in enumerate(rows_kept) for row in rows]


def _raw_groups(part: Collection) -> list[str]:
    return list(part.groupings.get(GROUP) or [str(image) for image in part.images])


def _role(part: Collection, row: int) -> str:
    return part.roles[row] if part.roles else ""


def _duplicates(parts: Sequence[Collection]) -> Iterator[list[Row]]:
    """Yields the rows of each picture that several collections have; the first row is the one to keep."""
    rows_by_name: dict[str, list[Row]] = defaultdict(list)
    for number, part in enumerate(parts):
        for row, image in enumerate(part.images):
            name = archive_name(str(image)) or Path(str(image)).stem.casefold()
            rows_by_name[name].append(Row(number, row))
    for name, rows in rows_by_name.items():
        rows.sort(key=lambda place: (_ROLES.index(_role(parts[place.part], place.row)), place))
        first, *others = rows
        same = [other for other in others if other.part != first.part and _is_same(name, first, other, parts)]
        if same:
            yield [first, *same]


def _is_same(name: str, first: Row, second: Row, parts: Sequence[Collection]) -> bool:
    if _ARCHIVE_NAME.fullmatch(name):
        return True
    path, other = (parts[place.part].root / str(parts[place.part].images[place.row]) for place in (first, second))
    try:
        return filecmp.cmp(path, other, shallow=False)
    except OSError:  # Unreadable files are reported later, when they are decoded.
        return False


def _shared_names(
    names: Sequence[str], parts: Sequence[Collection], kept_of: dict[Row, Row]
) -> Iterator[tuple[str, str]]:
    """Yields the groups of the same name in two collections, if a duplicate shows that these names mean the same."""
    raw = [_raw_groups(part) for part in parts]
    alike = {
        frozenset((kept.part, duplicate.part))
        for duplicate, kept in kept_of.items()
        if parts[kept.part].groupings and parts[duplicate.part].groupings
        and raw[kept.part][kept.row] == raw[duplicate.part][duplicate.row]
    }  # fmt: skip
    for first, second in combinations(range(len(parts)), 2):
        if {first, second} in alike:
            shared = {*raw[first]} & {*raw[second]}
            yield from ((f"{names[first]}/{group}", f"{names[second]}/{group}") for group in shared)


def _joined_names(groups: Sequence[Sequence[str]], links: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Joins linked groups; returns the name of the joined group of each group."""
    distinct = list(dict.fromkeys(group for column in groups for group in column))
    # Each link acts as a row that has a value of both kinds, and so joins them.
    pairs = [(group, group) for group in distinct] + list(links)
    joined = joined_groups({"first": [first for first, _ in pairs], "second": [second for _, second in pairs]})
    first_group: dict[str, str] = {}
    for group, name in zip(distinct, joined, strict=False):
        first_group.setdefault(name, group)
    return {group: first_group[name] for group, name in zip(distinct, joined, strict=False)}


def _leaking_rows(
    parts: Sequence[Collection], groups: Sequence[Sequence[str]], joined: dict[str, str], linked: set[str]
) -> list[set[int]]:
    """Returns the train_only rows of each collection that a link joins with rows that may be scored."""
    scored = {
        joined[groups[number][row]]
        for number, part in enumerate(parts)
        for row in range(len(part.names))
        if _role(part, row) not in ("train_only", "unlabelled")
    }
    return [
        {
            row
            for row in range(len(part.names))
            if _role(part, row) == "train_only"
            and groups[number][row] in linked
            and joined[groups[number][row]] in scored
        }
        for number, part in enumerate(parts)
    ]


def _report(name: str, num_duplicates: int, num_leaking: int, num_kept: int) -> None:
    if not num_kept:
        raise DataError(f"each collection must add pictures, but others have all pictures of {name}: remove {name}")
    if num_duplicates:
        logger.warning("%s: left out %s that another collection also has", name, number_of(num_duplicates, "picture"))
    if num_leaking:
        left_out = number_of(num_leaking, "train_only picture")
        logger.warning("%s: left out %s of groups that another collection has", name, left_out)
