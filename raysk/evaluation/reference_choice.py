"""The score of an encoder by its reference heads: each fold is scored with the head that the other folds choose."""

from collections.abc import Sequence

import numpy as np

from raysk.records import ReferenceRecord


def chosen_scores(records: Sequence[ReferenceRecord], k: int) -> np.ndarray:
    """Returns the scores of an encoder on its folds, by all metrics of the goal, (F, S).

    No fold chooses its own head, so the scores are as honest as those of one head that was fixed. A fold without others
    in its division is scored with the first head.

    Args:
        records: Of F folds, in their order.
        k: Folds of a division of the rows; folds of other divisions share rows with the scored one.
    """
    scores = np.array([record.scores for record in records], dtype=float)  # (F, H, S)
    merits = np.array([record.merits for record in records], dtype=float)  # (F, H)
    divisions = np.array([record.fold // k for record in records])
    chosen = []
    for place, division in enumerate(divisions):
        others = divisions == division
        others[place] = False
        # Without other folds all sums are 0, and the first head is the first of the best.
        chosen.append(scores[place, merits[others].sum(axis=0).argmax()])
    return np.array(chosen)
