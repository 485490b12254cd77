"""A model of fold scores, by which a race tells the recipes that may still become the best.

The score of recipe r on fold f is y_rf = m + a_r + b_f + e_rf. The effect b_f of a fold is common to all recipes. The
effect a_r ~ N(0, tau^2) of a recipe is its distance from the mean m of its family. The noise e_rf ~ N(0, sigma^2) is
everything else: the rows of the fold, the training seed, and what suits one recipe more than another. All of it is
estimated from the scores of the study, so that no source of noise is left out (a two-way mixed model: Searle, Casella
and McCulloch 1992).
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats

# Rounds of the fit; the estimates settle within ten.
_ROUNDS = 20
# With fewer degrees of freedom the noise is known too badly to stop anything. Three recipes with three folds have four.
_LEAST_FREEDOM = 4
_TINY = float(np.finfo(float).tiny)


def chances(scores: np.ndarray, families: np.ndarray) -> np.ndarray:
    """Returns the chance of each recipe that its mean over all folds will reach that of the best complete recipe.

    A recipe competes within its family. Its chance is 1 if it has no fold or all folds, if no recipe of its family is
    complete, or as long as too few scores tell how large the noise is.

    Args:
        scores: (R, F), larger is better, NaN for a fold that a recipe does not have.
        families: (R,) the family of each recipe, as integers or names.

    Returns:
        (R,) in [0, 1].
    """
    seen = ~np.isnan(scores)
    have, num_folds = seen.sum(axis=1), scores.shape[1]
    chance, freedom = np.ones(len(scores)), int((have[have > 1] - 1).sum()) - (num_folds - 1)
    if freedom < _LEAST_FREEDOM:
        return chance
    # Recipes without a score tell nothing.
    begun = have > 0
    effects = _fitted(scores[begun], np.unique(families[begun], return_inverse=True)[1], freedom)
    lead, deviation = np.zeros(len(scores)), np.ones(len(scores))
    lead[begun] = effects.lead(have[begun] == num_folds)
    deviation[begun] = effects.final_deviation()
    racing = begun & (have < num_folds) & np.isfinite(lead)
    chance[racing] = stats.t.sf(lead[racing] / np.maximum(deviation[racing], _TINY), freedom)
    return chance


@dataclass(frozen=True, eq=False)
class _Effects:
    """The fitted model of R recipes, each with at least one fold.

    Args:
        codes: (R,) the family of each recipe, from 0.
        have: (R,) number of its folds.
        num_folds: F.
        observed: (R,) mean of its scores, without the effects of its folds.
        expected: (R,) m + a_r, given the scores.
        variance: (R,) variance of a_r, given the scores.
        noise: sigma^2.
    """

    codes: np.ndarray
    have: np.ndarray
    num_folds: int
    observed: np.ndarray
    expected: np.ndarray
    variance: np.ndarray
    noise: float

    def lead(self, is_complete: np.ndarray) -> np.ndarray:
        """Returns the lead of the best complete recipe of each recipe's family, (R,), -inf where none is complete."""
        best = np.full(self.codes.max() + 1, -np.inf)
        np.maximum.at(best, self.codes[is_complete], self.observed[is_complete])
        missing = self.num_folds - self.have
        final = (self.have * self.observed + missing * self.expected) / self.num_folds
        return best[self.codes] - final

    def final_deviation(self) -> np.ndarray:
        """Returns the standard deviation of each final mean, (R,), from the recipe's effect and the missing folds."""
        missing = self.num_folds - self.have
        return np.sqrt(missing**2 * self.variance + missing * self.noise) / self.num_folds


def _fitted(scores: np.ndarray, codes: np.ndarray, freedom: int) -> _Effects:
    """Fits the model by turns: the effects of folds, the noise, then the effects of recipes and their variance."""
    seen = ~np.isnan(scores)
    have, per_fold = seen.sum(axis=1), np.maximum(seen.sum(axis=0), 1)
    filled = np.where(seen, scores, 0.0)
    sizes = np.bincount(codes)
    expected = filled.sum(axis=1) / have
    spread = float(np.var(expected))
    for _ in range(_ROUNDS):
        of_fold = np.where(seen, filled - expected[:, None], 0.0).sum(axis=0) / per_fold
        adjusted = filled - (of_fold - of_fold.mean())
        observed = np.where(seen, adjusted, 0.0).sum(axis=1) / have
        noise = float((np.where(seen, adjusted - observed[:, None], 0.0) ** 2).sum()) / freedom
        means = (np.bincount(codes, observed) / sizes)[codes]
        weight = spread / np.maximum(spread + noise / have, _TINY)
        variance = weight * noise / have
        expected = means + weight * (observed - means)
        spread = float(((expected - means) ** 2 + variance).mean())
    return _Effects(codes, have, scores.shape[1], observed, expected, variance, noise)
