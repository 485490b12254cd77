"""Subsets of a collection, for quick trials before days of training on the whole."""

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
        collection: The normalised collection.
        size: The number of rows; the result may have a few more or fewer, because groups stay whole.
        seed: The seed of the choice.

    Raises:
        ConfigError: The collection has no more than `size` rows.
        DataError: A class would be lost.
    """
    num_rows = len(collection.names)
    if size >= num_rows:
        raise ConfigError(
            f"data.size must be less than the {num_rows} rows of {collection.origin}, but got {size}: remove it to "
            "use them all"
        )
    kinds, kind_of = np.unique(_kinds(collection), return_inverse=True)
    group_names = collection.groupings.get(GROUP) or [str(image) for image in collection.images]
    groups, members = np.unique(list(group_names), return_inverse=True)
    composition = np.zeros((len(groups), len(kinds)), dtype=np.int64)
    np.add.at(composition, (members, kind_of), 1)
    share = size / num_rows
    parts = place_groups(composition, np.array([share, 1 - share]), np.random.default_rng(seed))
    rows = np.flatnonzero(parts[members] == 0)
    if lost := {*collection.labels} - {collection.labels[row] for row in rows.tolist()} - {""}:
        raise DataError(
            f"data.size must leave rows of each class, but with {size} rows of {collection.origin}, {min(lost)!r} has "
            "none: raise it"
        )
    logger.warning("%s: took %d of %d rows, because data.size is set", collection.origin, len(rows), num_rows)
    return collection.take(rows.tolist())


def _kinds(collection: Collection) -> list[str]:
    """Returns the role and class of each row as one string."""
    roles = collection.roles or [""] * len(collection.names)
    return [f"{role}/{label}" for role, label in zip(roles, collection.labels, strict=True)]
