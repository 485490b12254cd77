import numpy as np
import pytest

from raysk.evaluation.comparison import scores_elsewhere
from raysk.evaluation.goals import Goal
from raysk.recipe import Recipe
from raysk.training.stage_two_search.choice import CrossFit, Tried, best_settings

GOAL = Goal.parse("macro_f1", [], None)


def tried_settings(scores: np.ndarray) -> list[Tried]:
    """Returns settings with scores (M, R k)."""
    return [Tried(Recipe(), row[None]) for row in scores]


def draw(num_settings: int, num_folds: int, seed: int) -> np.ndarray:
    """Returns scores (M, R k) whose sums are exact: rounding would make the mean elsewhere depend on the fold."""
    return np.random.default_rng(seed).integers(0, 1024, (num_settings, num_folds)) / 1024


@pytest.mark.parametrize(("num_settings", "num_folds", "k"), [(6, 4, 2), (6, 4, 4), (40, 2, 2)])
def test_no_score_on_a_fold_affects_the_choice_for_it(num_settings, num_folds, k):
    scores = draw(num_settings, num_folds, 0)
    before = CrossFit.of(tried_settings(scores), GOAL, k)
    for fold in range(num_folds):
        changed = scores.copy()
        changed[:, fold] = draw(num_settings, 1, 2)[:, 0]
        after = CrossFit.of(tried_settings(changed), GOAL, k)
        assert np.array_equal(after.merits[:, fold], before.merits[:, fold])
        assert not np.array_equal(after.merits, before.merits)
        chosen = before.merits[:, fold].argmax()
        assert before.scores[fold] == scores[chosen, fold]
        assert after.scores[fold] == changed[chosen, fold]


def test_settings_are_ranked_by_their_means():
    scores = draw(6, 4, 3)
    cross_fit = CrossFit.of(tried_settings(scores), GOAL, 4)
    np.testing.assert_allclose(cross_fit.merits, scores_elsewhere(scores, 4))
    best = [setting.scores.mean() for setting in best_settings(tried_settings(scores), GOAL)]
    assert best == sorted(scores.mean(axis=1), reverse=True)


def test_a_setting_that_diverged_is_never_among_the_best():
    scores = np.array([[0.9, np.nan], [0.2, 0.3], [0.4, 0.1], [0.4, 0.1]])
    best = best_settings(tried_settings(scores), GOAL)
    assert sorted(setting.scores.tolist() for setting in best) == [[[0.2, 0.3]], [[0.4, 0.1]]]
    assert CrossFit.of(tried_settings(scores), GOAL, 2).scores.max() <= 0.4
