"""What a setting can be expected to score, from how it and those like it did."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import rankdata

# Of fewer settings nothing can be learnt.
LEAST_SETTINGS = 30
_TREES = 200
_LEAST_IN_LEAF = 3


def smoothed(values: Sequence[Mapping[str, Any]], scores: np.ndarray) -> np.ndarray:
    """Returns the scores that extremely randomised trees (Geurts et al. 2006) expect of settings.

    The best of hundreds of scores on few rows is partly the luckiest one. Settings that are alike score alike, so that
    what the trees expect, which were fitted to all of them, is a better guide to the best than the scores themselves.

    Args:
        values: (M,) settings: values by parameter, of which one may lack some.
        scores: (M,); 0 of one that diverged, which stays 0.

    Returns:
        (M,), the scores themselves of too few settings.
    """
    from sklearn.ensemble import ExtraTreesRegressor

    fitted = scores > 0
    if fitted.sum() < LEAST_SETTINGS:
        return scores
    inputs = _inputs(values)
    trees = ExtraTreesRegressor(_TREES, min_samples_leaf=_LEAST_IN_LEAF, bootstrap=True, random_state=0)
    expected: np.ndarray = np.where(fitted, trees.fit(inputs[fitted], scores[fitted]).predict(inputs), 0.0)
    return expected


def _inputs(values: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Returns settings as numbers (M, F): ranks of numbers, which no scale bends, and one column a word."""
    columns = []
    for name in sorted({name for one in values for name in one}):
        column = [one.get(name) for one in values]
        known = [value for value in column if value is not None]
        if all(isinstance(value, int | float) and not isinstance(value, bool) for value in known):
            # One that lacks the parameter stands in the middle, and says so.
            numbers = np.array([np.median(known) if value is None else value for value in column], float)
            columns += [rankdata(numbers), np.array([value is None for value in column], float)]
        else:
            words = [str(value) for value in column]
            columns += [np.array([word == one for word in words], float) for one in sorted(set(words))]
    return np.stack(columns, axis=1)
