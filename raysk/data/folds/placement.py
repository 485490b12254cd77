"""Places whole groups into parts so that each part gets its share of every class."""

import numpy as np
import numpy.typing as npt

from raysk.data.manifest import IntArray

Shares = npt.NDArray[np.float64]
MOST_PASSES = 10  # each move lowers the sum, so that the passes would end without a limit; the last moves gain little


def place_groups(composition: IntArray, shares: Shares, rng: np.random.Generator) -> IntArray:
    """Returns the part of each group, so that each part has about its share of the rows of each class.

    Groups are placed from the rarest class to the most frequent and from the largest group to the smallest, each into
    the part that its classes fill least; then groups are moved as long as this lowers the squared relative deviations.
    A class with a group for each part is placed into every part, unless another class of its groups needs them
    elsewhere.

    Args:
        composition: Rows of each class in each group, (G, C).
        shares: The share of each part, (P,), which sum to 1.
        rng: Breaks ties.
    """
    class_counts = composition.sum(axis=0)
    targets = shares[:, None] * class_counts  # (P, C)
    rarity = np.where(composition > 0, class_counts, np.iinfo(np.int64).max).min(axis=1)
    order = np.lexsort((rng.random(len(composition)), -composition.sum(axis=1), rarity))
    remaining = (composition > 0).sum(axis=0)  # groups of each class not yet placed
    counts = np.zeros(targets.shape, dtype=np.int64)
    parts = np.zeros(len(composition), dtype=np.int64)
    tie_breaks = rng.random((len(composition), len(shares))) * 1e-9
    for group in order:
        labels = np.flatnonzero(composition[group])
        labels = labels[np.argsort(class_counts[labels], kind="stable")]
        filled = ((counts[:, labels] + composition[group, labels]) / targets[:, labels]).max(axis=1)
        # If no more groups of a class remain than parts lack it, these parts must get them.
        for label in labels:
            lacking = counts[:, label] == 0
            if lacking.any() and remaining[label] <= lacking.sum() and np.isfinite(filled[lacking]).any():
                filled = np.where(lacking, filled, np.inf)
        part = int(np.argmin(filled + tie_breaks[group]))
        parts[group] = part
        counts[part] += composition[group]
        remaining[labels] -= 1
    _move_groups(composition, order, targets, counts, parts)
    return parts


def _move_groups(composition: IntArray, order: IntArray, targets: Shares, counts: IntArray, parts: IntArray) -> None:
    """Moves groups between parts, in place, as long as the sum of ((rows - target) / target)^2 falls."""
    for _ in range(MOST_PASSES):
        moved = False
        for group in order:
            labels = np.flatnonzero(composition[group])
            rows, home = composition[group, labels], parts[group]
            current, goal = counts[:, labels], targets[:, labels]
            if (current[home] == rows).any():
                continue  # this part would lose its last rows of a class
            # The increase of the sum in each part from its count without the group to its count with it.
            without = current.copy()
            without[home] -= rows
            added = (rows * (2 * (without - goal) + rows) / goal**2).sum(axis=1)
            part = int(added.argmin())
            if added[part] < added[home] - 1e-9:
                counts[home] -= composition[group]
                counts[part] += composition[group]
                parts[group], moved = part, True
        if not moved:
            return
