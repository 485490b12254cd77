"""Which training rows of a fold keep their labels, for studies with few labels."""

import numpy as np

from raysk.data.folds.assignment import Folds
from raysk.data.manifest import IntArray, Manifest

# Tells this draw from other draws with the same seed.
_DRAW = 17


def labelled_rows(manifest: Manifest, folds: Folds, fold: int, share: float, seed: int) -> IntArray:
    """Returns the training rows of a fold that keep their labels: whole groups, drawn within each class.

    All groups of the manifest have one random order, by their names. Of the groups of each class that train in the
    fold, the first ones keep their labels: `share` of them, rounded, and at least one. A group of several classes
    counts for its rarest one. So the rows of a smaller share lie in those of a larger one, whatever the method, and
    the folds keep mostly the same labels.

    Args:
        manifest: The rows.
        folds: Their folds.
        fold: The fold; its held-out rows and the test part keep all labels.
        share: The share of the groups, in (0, 1].
        seed: The seed of the order.
    """
    rows = folds.train_rows(fold)
    if share == 1:
        return rows
    all_names = np.unique(manifest.group_names)
    names, members = np.unique(manifest.group_names[rows], return_inverse=True)
    order = np.random.default_rng((seed, _DRAW)).permutation(len(all_names))[np.searchsorted(all_names, names)]
    composition = np.zeros((len(names), len(manifest.class_names)), dtype=np.int64)  # (G, C) rows
    np.add.at(composition, (members, manifest.labels[rows]), 1)
    rarest = np.where(composition > 0, composition.sum(axis=0), np.iinfo(np.int64).max).argmin(axis=1)
    kept = np.zeros(len(names), dtype=bool)
    for label in range(len(manifest.class_names)):
        holding, counted = np.flatnonzero(composition[:, label]), np.flatnonzero(rarest == label)
        # A class whose groups all count for rarer classes keeps one, too: the same one with every share.
        kept[holding[np.argsort(order[holding])][:1]] = True
        kept[counted[np.argsort(order[counted])][: round(share * len(counted))]] = True
    return rows[kept[members]]
