"""A part of a collection, to try things on before days are spent on the whole."""

import logging

import numpy as np

from raysk.data.folds.placement import place_groups
from raysk.data.sources.base import Collection
from raysk.data.sources.groups import GROUP
from raysk.errors import ConfigError, DataError

logger = logging.getLogger(__name__)


def subset(collection: Collection, size: int, seed: int) -> Collection:
    """Returns about `size` rows of a normalised collection: whole groups, with its shares of each class and role.

    Args:
        collection: Its labels are the classes, and its groups those that must not be parted.
        size: The number of rows; since groups stay whole, a few more or less come out.
        seed: Which of them.

    Raises:
        ConfigError: There are fewer rows.
        DataError: A class would be lost.
    """
    num_rows = len(collection.names)
    if size >= num_rows:
        raise ConfigError(
            f"data.size must be less than the {num_rows} rows of {collection.origin}, but got {size}: remove it to "
            "take them all"
        )
    kinds, kind_of = np.unique(_kinds(collection), return_inverse=True)
    group_names = collection.groupings.get(GROUP) or [str(image) for image in collection.images]
    groups, members = np.unique(list(group_names), return_inverse=True)
    composition = np.zeros((len(groups), len(kinds)), dtype=np.int64)
    np.add.at(composition, (members, kind_of), 1)
    share = size / num_rows
    parts = place_groups(composition, np.array([share, 1 - share]), np.random.default_rng(seed))
    rows = np.flatnonzero(parts[members] == 0)
    if lost := set(collection.labels) - {collection.labels[row] for row in rows.tolist()}:
        raise DataError(
            f"data.size must leave each class an image, but with {size} of {collection.origin} {min(lost)!r} has none: "
            "raise it"
        )
    logger.warning("%s: took %d of %d rows, as data.size asks", collection.origin, len(rows), num_rows)
    return collection.take(rows.tolist())


def _kinds(collection: Collection) -> list[str]:
    """Returns class and role of each row, in one word."""
    roles = collection.roles or [""] * len(collection.names)
    return [f"{role}/{label}" for role, label in zip(roles, collection.labels, strict=True)]
