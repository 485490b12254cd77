"""Statistics of score differences: paired tests, the expected best of k tries, and honest scores of choices."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np

from raysk.errors import ConfigError, DataError
from raysk.evaluation.intervals import groups_of_each_class, student_quantile
from raysk.evaluation.metrics import Metric
from raysk.evaluation.resampling import resampled_scores, spread_of, swapped_differences
from raysk.evaluation.selection import TIE

# The most significant differences that the sentence lists.
MOST_LISTED = 5


@dataclass(frozen=True)
class Difference:
    """The difference between the scores of two contestants on the same rows.

    Attributes:
        first: Name of the first contestant.
        second: Name of the second contestant.
        difference: The first score minus the second.
        low: The lower end of this difference's interval, uncorrected.
        high: The upper end.
        p: The probability of a difference this large by chance, two-sided.
        p_holm: The p-value after correction for all comparisons made together.
    """

    first: str
    second: str
    difference: float
    low: float
    high: float
    p: float
    p_holm: float


def compare(
    contestants: Mapping[str, np.ndarray],
    labels: np.ndarray,
    groups: np.ndarray,
    metric: Metric,
    num_samples: int = 4000,
    seed: int = 0,
    level: float = 0.95,
) -> list[Difference]:
    """Compares each pair of contestants by a permutation test that swaps the two within whole groups.

    If two contestants are equally good, their predictions of a group can change places. So each sample swaps them in
    about half of the groups, and p = (1 + #{|d*| >= |d|}) / (S + 1) for the difference d and those of the samples,
    d* (Good 2005, "Permutation, Parametric, and Bootstrap Tests of Hypotheses", chapter 3). This is exact whatever the
    metric, also for classes of few groups. The 1 counts the observation itself, so p is never 0.

    The interval is d plus and minus the spread of the difference on resamples of whole groups, which score both
    contestants on the same rows, times Student's quantile; see `student_quantile`. It is not exact and can contain 0
    where p is small, or the reverse.

    p_holm is Holm's step-down correction (1979): with a probability of at least `level`, no pair without a true
    difference gets a p_holm of 1 - level or less, however the pairs depend on one another. Power falls with the number
    of pairs: compare only the few contestants in question.

    Args:
        contestants: (N, C) probabilities by name.
        labels: (N,) classes from 0 to C - 1.
        groups: (N,) the group of each row, as integers or names.
        metric: The metric to compare by.
        num_samples: S, of swaps and of resamples.
        seed: Seed of both.
        level: Confidence level of the intervals and of significance.

    Returns:
        One difference per pair, in the order of the contestants.

    Raises:
        ConfigError: The level is no probability, or the samples are too few for a p_holm of 1 - level.
        DataError: There are fewer than two contestants, or the score of one is undefined on these rows.
    """
    pairs = list(combinations(contestants, 2))
    _check_samples(len(contestants), len(pairs), num_samples, level)
    observed, resampled = {}, {}
    for name, probabilities in contestants.items():
        observed[name] = float(metric(probabilities, labels))
        if np.isnan(observed[name]):
            raise DataError(
                f"every contestant must have a score, but {metric.name} of {name!r} is not defined: "
                "choose another metric"
            )
        resampled[name] = resampled_scores(metric, probabilities, labels, groups, num_samples, seed)
    quantile = student_quantile(groups_of_each_class(metric, labels, groups), level)
    differences = [observed[first] - observed[second] for first, second in pairs]
    halves = [quantile * spread_of(resampled[first] - resampled[second]) for first, second in pairs]
    p_values = [
        _p_value(
            d, swapped_differences(metric, contestants[first], contestants[second], labels, groups, num_samples, seed)
        )
        for d, (first, second) in zip(differences, pairs, strict=True)
    ]
    corrected = holm(np.array(p_values))
    return [
        Difference(*pair, d, d - half, d + half, p, float(p_holm))
        for pair, d, half, p, p_holm in zip(pairs, differences, halves, p_values, corrected, strict=True)
    ]


def _check_samples(num_contestants: int, num_pairs: int, num_samples: int, level: float) -> None:
    if not 0 < level < 1:
        raise ConfigError(f"a level must be between 0 and 1, but got {level}: 0.95 is usual")
    if num_contestants < 2:
        raise DataError(f"a comparison needs at least two contestants, but got {num_contestants}: add one")
    fewest = int(np.ceil(num_pairs / (1 - level)))
    if num_samples < fewest:
        raise ConfigError(
            f"{num_pairs} comparisons at the {level:.0%} level need at least {fewest} samples, "
            f"but got {num_samples}: compare fewer contestants or draw more"
        )


def holm(p_values: np.ndarray) -> np.ndarray:
    """Corrects m p-values for multiple comparisons with Holm's step-down method (1979), (m,).

    The i-th smallest is multiplied by m - i + 1, raised to at least its predecessor, and capped at 1.
    """
    order = np.argsort(p_values, kind="stable")
    steps = p_values[order] * np.arange(len(p_values), 0, -1)
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return corrected


def sentence(differences: Sequence[Difference], metric: Metric, level: float = 0.95) -> str:
    """Describes which differences are significant after the correction, and what it means if others are not."""
    significant = [difference for difference in differences if difference.p_holm <= 1 - level]
    significant.sort(key=lambda difference: (difference.p_holm, -abs(difference.difference)))
    comparisons = f"{len(differences)} comparison{'s' if len(differences) > 1 else ''}"
    criterion = f"significant at the {100 * level:g}% level after Holm's correction for all of them"
    if not significant:
        return (
            f"In none of {comparisons} is the difference {criterion}. "
            "This does not show equal scores: these rows are too few to distinguish differences of this size from "
            "chance."
        )
    listed = [_in_words(difference, metric) for difference in significant[:MOST_LISTED]]
    if len(significant) > MOST_LISTED:
        listed.append(f"and {len(significant) - MOST_LISTED} more")
    summary = f"In {len(significant)} of {comparisons} the difference is {criterion}: {'; '.join(listed)}."
    others = len(differences) - len(significant)
    if not others:
        return summary
    return f"{summary} The rows do not decide the other {others}, which does not make those equal."


def _in_words(difference: Difference, metric: Metric) -> str:
    """Names the better contestant first."""
    names, ends = (difference.first, difference.second), (difference.low, difference.high)
    if difference.difference < 0:
        ends = (-difference.high, -difference.low)
    if metric.oriented(difference.difference) < 0:
        names = (difference.second, difference.first)
    over = "over" if metric.larger_is_better else "below"
    return f"{names[0]} {over} {names[1]} by {abs(difference.difference):.3f} ({ends[0]:.3f} to {ends[1]:.3f})"


def _p_value(difference: float, swapped: np.ndarray) -> float:
    # Differences of counts often tie exactly, and rounding must not break the ties.
    as_large = np.abs(swapped) >= abs(difference) - TIE
    return float((1 + as_large.sum()) / (1 + len(swapped)))


def expected_best(scores: np.ndarray, k: int) -> float:
    """Returns the expected largest of k scores drawn without replacement: what a budget of k buys.

    E = sum_i C(i - 1, k - 1) / C(n, k) s_(i) over the scores in ascending order, since s_(i) is the best of the subsets
    whose other k - 1 scores rank below it. Dodge et al. 2019, "Show Your Work", draw with replacement, which is biased
    downwards; without replacement the estimate is unbiased (Tang et al. 2020).

    Args:
        scores: (n,) scores of the n recipes that a search tried, in any order.
        k: The budget, from 1 to n.

    Raises:
        ConfigError: The budget is below 1 or above n.
        DataError: A score is not a number.
    """
    num_scores = len(scores)
    if not 1 <= k <= num_scores:
        raise ConfigError(f"a budget must be from 1 to the {num_scores} scores, but got {k}: score more recipes")
    if np.isnan(scores).any():
        raise DataError("scores must be numbers, but one is not defined: leave it out")
    # From the best score down: the first weight is k / n, and each next weight is (i - k) / (i - 1) times the previous
    # one. Factors in [0, 1] neither overflow nor cancel, unlike the binomial coefficients.
    places = np.arange(num_scores, 1, -1)
    factors = np.maximum(places - k, 0) / (places - 1)
    weights = k / num_scores * np.cumprod(np.concatenate([[1.0], factors]))
    return float(weights @ np.sort(scores)[::-1])


def scores_elsewhere(fold_scores: np.ndarray, k: int) -> np.ndarray:
    """Returns each candidate's mean score on the other folds of the division, for each fold, (M, R k).

    Args:
        fold_scores: (M, R k) the score of each candidate on each fold of R divisions of the rows.
        k: Folds of a division.
    """
    divisions = np.split(fold_scores, fold_scores.shape[1] // k, axis=1)
    return np.hstack([(division.sum(axis=1, keepdims=True) - division) / (k - 1) for division in divisions])


def cross_fitted_choice(fold_scores: np.ndarray, k: int, guides: np.ndarray | None = None) -> np.ndarray:
    """Returns each fold's score of the candidate that is best on the other folds of its division.

    The best of M mean scores is too high, since the same folds chose and score it. The mean of the returned scores is
    an honest score of the choice: no fold influences its own candidate, which may differ from fold to fold.

    Args:
        fold_scores: (M, R k) the score of each candidate on each fold of R divisions of the rows; larger is better.
        k: Folds of a division; folds of other divisions share rows with the scored fold.
        guides: (M, R k) estimates of each candidate's score on the other folds, which must not depend on the fold
            itself; None takes the mean over those folds.

    Returns:
        (R k,) scores; of candidates that are equally good on the other folds, the first is chosen.

    Raises:
        DataError: There is no candidate, only one fold, or an undefined score.
    """
    shape = fold_scores.shape
    if len(shape) != 2 or not len(fold_scores) or k < 2 or shape[1] % k or np.isnan(fold_scores).any():
        raise DataError(
            "a cross-fitted choice needs numbers (candidates, folds) of at least one candidate and two folds, "
            f"but got shape {shape} for k = {k} with {np.isnan(fold_scores).sum()} undefined: score all folds"
        )
    elsewhere = scores_elsewhere(fold_scores, k) if guides is None else guides
    best = (elsewhere >= elsewhere.max(axis=0) - TIE).argmax(axis=0)
    chosen: np.ndarray = fold_scores[best, np.arange(shape[1])]
    return chosen


class ChoiceScore(NamedTuple):
    """The honest score of choosing the best candidate.

    Attributes:
        score: The score; larger is better.
        is_of_one_fold: Whether a race left only one fold that can score the choice.
    """

    score: float
    is_of_one_fold: bool


def score_of_choice(fold_scores: np.ndarray, k: int, guides: np.ndarray | None = None) -> ChoiceScore:
    """Returns the honest score of choosing the best of candidates that may have raced.

    Without a race it is the mean of `cross_fitted_choice`. In a race only those candidates go on that were good on the
    folds so far: on these folds the survivors are too good, whatever is chosen among them. The last fold of the first
    division stops nobody on its own account, and those that reach it were chosen on the other folds. So it alone scores
    the choice; the folds of later divisions share rows with those that chose.

    Args:
        fold_scores: (M, R k) as in `cross_fitted_choice`, with NaN from the fold on that a candidate did not reach.
        k: Folds of a division.
        guides: (M, R k) as in `cross_fitted_choice`.

    Raises:
        DataError: No candidate has the first k folds.
    """
    if not np.isnan(fold_scores).any():
        return ChoiceScore(float(cross_fitted_choice(fold_scores, k, guides).mean()), False)
    reached = ~np.isnan(fold_scores[:, :k]).any(axis=1)
    choice = cross_fitted_choice(fold_scores[reached, :k], k, None if guides is None else guides[reached, :k])
    return ChoiceScore(float(choice[-1]), True)
