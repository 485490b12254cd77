"""Expected scores of settings, smoothed over similar settings."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import rankdata

# Fewer settings are too few to fit.
LEAST_SETTINGS = 30
_TREES = 200
_LEAST_IN_LEAF = 3


def smoothed(values: Sequence[Mapping[str, Any]], scores: np.ndarray) -> np.ndarray:
    """Returns the scores that extremely randomised trees (Geurts et al. 2006) predict for settings.

    The best of hundreds of scores on few rows is partly luck. Similar settings score alike, so the predictions of trees
    that are fitted to all settings are a better guide to the best setting than the scores themselves.

    Args:
        values: (M,) settings: values by parameter; a setting may lack some parameters.
        scores: (M,) scores; NaN for a setting that diverged, which stays NaN.

    Returns:
        (M,) predictions, or the scores themselves if the settings are too few.
    """
    from sklearn.ensemble import ExtraTreesRegressor

    fitted = ~np.isnan(scores)
    if fitted.sum() < LEAST_SETTINGS:
        return scores
    inputs = _inputs(values)
    trees = ExtraTreesRegressor(_TREES, min_samples_leaf=_LEAST_IN_LEAF, bootstrap=True, random_state=0)
    expected: np.ndarray = np.where(fitted, trees.fit(inputs[fitted], scores[fitted]).predict(inputs), np.nan)
    return expected


def _inputs(values: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Returns settings as numbers (M, F): ranks of numbers, which no scale affects, and one column per word."""
    columns = []
    for name in sorted({name for setting in values for name in setting}):
        column = [setting.get(name) for setting in values]
        present = [value for value in column if value is not None]
        if all(isinstance(value, int | float) and not isinstance(value, bool) for value in present):
            # A setting without the parameter has the median, and is marked in a column of its own.
            numbers = np.array([np.median(present) if value is None else value for value in column], float)
            columns += [rankdata(numbers), np.array([value is None for value in column], float)]
        else:
            words = [str(value) for value in column]
            columns += [np.array([word == option for word in words], float) for option in sorted(set(words))]
    return np.stack(columns, axis=1)
