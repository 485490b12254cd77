from dataclasses import replace

import numpy as np
import pytest

from raysk.evaluation.comparison import cross_fitted_choice
from raysk.evaluation.goals import Goal
from raysk.recipe import Recipe
from raysk.training.stage_two_search.choice import CrossFit, Tried, best_settings

GOAL = Goal.parse("macro_f1", [], None)
NONE = "no setting is the anchor"


def tried_settings(scores: np.ndarray) -> list[Tried]:
    """Returns settings with scores (M, R k)."""
    return [Tried(replace(Recipe(), seed=seed), row[None]) for seed, row in enumerate(scores)]


def key(number: int) -> str:
    return replace(Recipe(), seed=number).key


def draw(num_settings: int, num_folds: int, seed: int) -> np.ndarray:
    """Returns scores (M, R k) whose sums are exact: rounding would make the mean elsewhere depend on the fold."""
    return np.random.default_rng(seed).integers(0, 2**20, (num_settings, num_folds)) / 2**20


@pytest.mark.parametrize("anchor", [NONE, key(2)])
@pytest.mark.parametrize(("num_settings", "num_folds", "k"), [(6, 4, 2), (6, 4, 4), (40, 2, 2)])
def test_no_score_on_a_fold_affects_the_choice_for_it(num_settings, num_folds, k, anchor):
    scores = draw(num_settings, num_folds, 0)
    before = CrossFit.of(tried_settings(scores), anchor, GOAL, k)
    for fold in range(num_folds):
        changed = scores.copy()
        changed[:, fold] = draw(num_settings, 1, 2)[:, 0]
        after = CrossFit.of(tried_settings(changed), anchor, GOAL, k)
        assert after.merits[fold] == before.merits[fold]
        assert not np.array_equal(after.merits, before.merits)
        (chosen,) = np.flatnonzero(scores[:, fold] == before.scores[fold])
        assert after.scores[fold] == changed[chosen, fold]


def test_without_an_anchor_the_means_rank():
    scores = draw(6, 4, 3)
    cross_fit = CrossFit.of(tried_settings(scores), NONE, GOAL, 4)
    np.testing.assert_array_equal(cross_fit.scores, cross_fitted_choice(scores, 4))
    best = [setting.scores.mean() for setting in best_settings(tried_settings(scores), NONE, GOAL, 4)]
    assert best == sorted(scores.mean(axis=1), reverse=True)


def standard_error(scores: np.ndarray) -> float:
    """The error of a difference of two means over k folds, in loops."""
    num_settings, k = scores.shape
    total = 0.0
    for i in range(num_settings):
        for j in range(k):
            total += (scores[i, j] - scores[i].mean() - scores[:, j].mean() + scores.mean()) ** 2
    return (2 * total / ((num_settings - 1) * (k - 1)) / k) ** 0.5


@pytest.mark.parametrize("number", range(6))
def test_the_anchor_stays_unless_another_is_better_by_more_than_a_standard_error(number):
    scores = draw(6, 4, 3)
    means = scores.mean(axis=1)
    best = [setting.recipe.key for setting in best_settings(tried_settings(scores), key(number), GOAL, 4)]
    stays = bool(means.max() - means[number] <= standard_error(scores))
    by_mean = [key(place) for place in np.argsort(-means).tolist()]
    assert best == ([key(number)] * stays + [one for one in by_mean if not (stays and one == key(number))])


def test_the_rule_holds_for_some_and_not_for_others():
    """Otherwise the test above could not fail."""
    scores = draw(6, 4, 3)
    gaps = scores.mean(axis=1).max() - scores.mean(axis=1)
    assert 1 < (gaps <= standard_error(scores)).sum() < 6


def test_an_anchor_that_misses_a_requirement_does_not_stay():
    goal = Goal.parse("macro_f1", ["accuracy>=0.5"], None)
    fails = Tried(Recipe(), np.array([[0.9, 0.8, 0.85], [0.4, 0.4, 0.4]]))
    meets = Tried(replace(Recipe(), seed=1), np.array([[0.2, 0.3, 0.1], [0.6, 0.6, 0.6]]))
    assert best_settings([fails, meets], Recipe().key, goal, 3)[0] is meets


def test_a_setting_that_diverged_is_never_among_the_best():
    scores = np.array([[0.9, np.nan], [0.2, 0.3], [0.4, 0.1], [0.4, 0.1]])
    best = best_settings(tried_settings(scores), key(0), GOAL, 2)
    assert sorted(setting.scores.tolist() for setting in best) == [[[0.2, 0.3]], [[0.4, 0.1]]]
    assert CrossFit.of(tried_settings(scores), key(0), GOAL, 2).scores.max() <= 0.4
    assert best_settings(tried_settings(scores[:1]), key(0), GOAL, 2) == []
