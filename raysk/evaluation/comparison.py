"""What differences between scores are worth: against chance, against the number of tries, against having chosen."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from raysk.errors import ConfigError, DataError
from raysk.evaluation.metrics import Score, macro_f1_score, resampled_scores
from raysk.evaluation.selection import TIE

# How many of the differences that hold a sentence has room for.
MOST_TOLD = 5


@dataclass(frozen=True)
class Difference:
    """The score of the first contestant less that of the second, on the same rows.

    Attributes:
        first: A name.
        second: Another name.
        difference: The first's score less the second's.
        low: The lower end of the percentile interval of this difference alone; NaN where no resample has a score.
        high: Its upper end.
        p: How often chance alone makes a difference this large, in either direction.
        p_holm: The same, corrected for all the comparisons made together.
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
    score: Score = macro_f1_score,
    num_samples: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> list[Difference]:
    """Compares every two contestants by a paired bootstrap of whole groups (Efron and Tibshirani 1993, chapter 16).

    Each resample scores both contestants on the same rows, so that rows which are hard for both cancel out. The p-value
    needs the spread of the difference in a world where there is none. The resamples are centred on the difference d
    that was seen, so d* - d shows that world's chance: p = (1 + #{|d* - d| >= |d|}) / (S + 1). Centred on d rather
    than on 0, the test keeps its power (Hall and Wilson 1991), and the 1 counts the sample itself, so p is never 0.
    That a score of resamples is biased, as macro-F1 is, cancels out in d* as far as it is the same for both.

    p_holm is Holm's step-down correction (1979): with a chance of at least `level`, no pair without a difference gets a
    p_holm of 1 - level or less, however the pairs depend on one another. The price grows with the number of pairs:
    compare the few contestants that a question is about.

    Args:
        contestants: (N, C) probabilities by name.
        labels: (N,) classes from 0 to C - 1.
        groups: (N,) the group of each row, as integers or names.
        score: What to compare. Scores of predicted classes take a fast way; another is computed on every resample.
        num_samples: S.
        seed: Names the resamples.
        level: How sure the intervals are, and how sure a difference has to be.

    Returns:
        One difference a pair, pairs in the order of the contestants.

    Raises:
        ConfigError: The level is no probability, or with so few resamples no p_holm could be as low as 1 - level.
        DataError: There are fewer than two contestants, or one has no score on these rows.
    """
    if not 0 < level < 1:
        raise ConfigError(f"a level must be between 0 and 1, but got {level}: 0.95 is usual")
    if len(contestants) < 2:
        raise DataError(f"a comparison needs at least two contestants, but got {len(contestants)}: add one")
    pairs = list(combinations(contestants, 2))
    fewest = int(np.ceil(len(pairs) / (1 - level)))
    if num_samples < fewest:
        raise ConfigError(
            f"{len(pairs)} comparisons at the {level:.0%} level need at least {fewest} resamples, "
            f"but got {num_samples}: compare fewer contestants or draw more"
        )
    seen, resampled = {}, {}
    for name, probabilities in contestants.items():
        seen[name] = score(probabilities, labels)
        if np.isnan(seen[name]):
            raise DataError(f"contestants must have a score, but that of {name!r} is not defined: choose another score")
        resampled[name] = resampled_scores(score, probabilities, labels, groups, num_samples, seed)
    differences = [seen[first] - seen[second] for first, second in pairs]
    spreads = [_defined(resampled[first] - resampled[second]) for first, second in pairs]
    p_values = [_p_value(d, spread) for d, spread in zip(differences, spreads, strict=True)]
    corrected = holm(np.array(p_values))
    return [
        Difference(*pair, float(d), *_interval(spread, level), p, float(p_holm))
        for pair, d, spread, p, p_holm in zip(pairs, differences, spreads, p_values, corrected, strict=True)
    ]


def holm(p_values: np.ndarray) -> np.ndarray:
    """Corrects m p-values for one another, step down (Holm 1979): (m,), none smaller than before.

    The i-th smallest is multiplied by m - i + 1, is at least as large as the one before, and at most 1.
    """
    order = np.argsort(p_values, kind="stable")
    steps = p_values[order] * np.arange(len(p_values), 0, -1)
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return corrected


def sentence(differences: Sequence[Difference], level: float = 0.95) -> str:
    """Returns in words which differences hold at the level after the correction, and what it means if others do not."""
    held = [one for one in differences if one.p_holm <= 1 - level]
    held.sort(key=lambda one: (one.p_holm, -abs(one.difference)))
    made = f"{len(differences)} comparison{'s' if len(differences) > 1 else ''}"
    how = f"at the {100 * level:g}% level after Holm's correction for all of them"
    if not held:
        return (
            f"In none of {made} does a difference hold {how}. "
            "This does not show that they score alike: these rows are too few to tell differences of this size from "
            "chance."
        )
    told = [_in_words(one) for one in held[:MOST_TOLD]]
    if len(held) > MOST_TOLD:
        told.append(f"and {len(held) - MOST_TOLD} more")
    found = f"In {len(held)} of {made} a difference holds {how}: {'; '.join(told)}."
    others = len(differences) - len(held)
    return f"{found} The rows do not decide the other {others}, which does not make those equal." if others else found


def _in_words(one: Difference) -> str:
    names, ends = (one.first, one.second), (one.low, one.high)
    if one.difference < 0:
        names, ends = (one.second, one.first), (-one.high, -one.low)
    return f"{names[0]} over {names[1]} by {abs(one.difference):.3f} ({ends[0]:.3f} to {ends[1]:.3f})"


def _p_value(difference: float, spread: np.ndarray) -> float:
    # Differences of counts often tie exactly, and rounding must not break the ties.
    as_large = np.abs(spread - difference) >= abs(difference) - TIE
    return float((1 + as_large.sum()) / (1 + len(spread)))


def _interval(spread: np.ndarray, level: float) -> tuple[float, float]:
    if not len(spread):
        return float("nan"), float("nan")
    low, high = np.quantile(spread, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _defined(values: np.ndarray) -> np.ndarray:
    return values[~np.isnan(values)]


def expected_best(scores: np.ndarray, k: int) -> float:
    """Returns the expected best of k scores drawn without replacement from those given: what a budget of k buys.

    E = sum_i C(i - 1, k - 1) / C(n, k) s_(i) over the scores in ascending order, since s_(i) is the best of those
    subsets that take the other k - 1 from below it. Dodge et al. 2019, "Show Your Work", draw with
    replacement, which is biased downwards; without, the estimate is unbiased (Tang et al. 2020).

    Args:
        scores: (n,) of the n recipes that a search tried, in any order.
        k: The budget, from 1 to n.

    Raises:
        ConfigError: There are not that many scores to draw.
        DataError: A score is not a number.
    """
    num_scores = len(scores)
    if not 1 <= k <= num_scores:
        raise ConfigError(f"a budget must be from 1 to the {num_scores} scores known, but got {k}: score more recipes")
    if np.isnan(scores).any():
        raise DataError("scores must be numbers, but one is not defined: leave it out")
    # From the best downwards: its weight is k / n, and the next is (i - k) / (i - 1) of the one before. Factors within
    # [0, 1] neither overflow nor cancel, as the binomial coefficients would.
    places = np.arange(num_scores, 1, -1)
    factors = np.maximum(places - k, 0) / (places - 1)
    weights = k / num_scores * np.cumprod(np.concatenate([[1.0], factors]))
    return float(weights @ np.sort(scores)[::-1])


def scores_elsewhere(fold_scores: np.ndarray, k: int) -> np.ndarray:
    """Returns for each candidate and fold its mean score on the other folds of the division, (M, R k).

    Args:
        fold_scores: (M, R k) the score of each candidate on each fold of R divisions of the rows.
        k: Folds of a division.
    """
    divisions = np.split(fold_scores, fold_scores.shape[1] // k, axis=1)
    return np.hstack([(one.sum(axis=1, keepdims=True) - one) / (k - 1) for one in divisions])


def cross_fitted_choice(fold_scores: np.ndarray, k: int, guides: np.ndarray | None = None) -> np.ndarray:
    """Returns for each fold the score there of the candidate that is the best on the other folds of its division.

    The best of M mean scores is too high, since the same folds chose it and score it. The mean of what is returned here
    is an honest score of the choice: no fold has a say in its own candidate, which can be another in every fold.

    Args:
        fold_scores: (M, R k) the score of each candidate on each fold of R divisions of the rows.
        k: Folds of a division; those of another division share rows with the one that is scored.
        guides: (M, R k) what is taken for the score of each candidate on the other folds, which must not depend on the
            fold itself; without it, the mean.

    Returns:
        (R k,) scores; of candidates that are equally good on the other folds, the first counts.

    Raises:
        DataError: There is no candidate, one fold only, or a score that is not a number.
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
