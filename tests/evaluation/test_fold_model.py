import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysk.evaluation.fold_model import chances

ONE_FAMILY = np.zeros(24, dtype=int)


def world(rng, num_recipes=24, num_folds=3, effect=0.025, noise=0.023):
    """True scores (R,) of recipes, and their scores (R, F) on folds of different difficulty."""
    true = 0.5 + rng.normal(0, effect, num_recipes)
    folds = rng.normal(0, 0.02, num_folds)
    return true, true[:, None] + folds + rng.normal(0, noise, (num_recipes, num_folds))


def race(scores, least, num_complete=2):
    """Runs recipe after recipe, and leaves out the folds of stopped ones; returns the scores with gaps."""
    raced = np.full(scores.shape, np.nan)
    for recipe, of_recipe in enumerate(scores):
        for fold, score in enumerate(of_recipe):
            raced[recipe, fold] = score
            seen = raced[: recipe + 1]
            if recipe >= num_complete and chances(seen, ONE_FAMILY[: recipe + 1])[recipe] < least:
                break
    return raced


def test_the_chance_is_that_of_the_final_mean_by_simulation():
    """In many worlds, of the recipes with a chance of about p, the share p reaches the best complete recipe."""
    rng, told, came = np.random.default_rng(0), [], []
    for _ in range(400):
        _, scores = world(rng, num_folds=5)
        seen = scores.copy()
        seen[8:, 1:] = np.nan
        told += chances(seen, ONE_FAMILY)[8:].tolist()
        came += (scores[8:].mean(axis=1) >= scores[:8].mean(axis=1).max()).tolist()
    told, came = np.array(told), np.array(came)
    for low, high in ((0.0, 0.02), (0.02, 0.1), (0.1, 0.3), (0.3, 0.6), (0.6, 1.0)):
        between = (told >= low) & (told < high)
        assert between.sum() > 100
        assert came[between].mean() == pytest.approx(told[between].mean(), abs=0.08), (low, high)


def test_a_race_at_two_percent_saves_a_third_of_the_folds_and_seldom_loses_the_winner():
    rng, saved, lost = np.random.default_rng(1), [], []
    for _ in range(60):
        _, scores = world(rng)
        raced = race(scores, 0.02)
        complete = ~np.isnan(raced).any(axis=1)
        saved.append(np.isnan(raced).mean())
        lost.append(not complete[scores.mean(axis=1).argmax()])
    assert np.mean(saved) > 0.33
    assert np.mean(lost) <= 0.06


def test_a_hard_fold_counts_against_no_recipe():
    """A recipe that has the hard fold alone is judged by how the others did there."""
    scores = np.array([[0.3, 0.6, 0.61], [0.31, 0.62, 0.6], [0.29, 0.6, 0.6], [0.32, np.nan, np.nan]])
    assert chances(scores, ONE_FAMILY[:4])[3] > 0.5
    scores[3] = [np.nan, 0.32, np.nan]
    assert chances(scores, ONE_FAMILY[:4])[3] < 0.02


def test_more_noise_leaves_more_chance():
    quiet = np.array([[0.5, 0.5, 0.51], [0.5, 0.51, 0.5], [0.51, 0.5, 0.5], [0.45, np.nan, np.nan]])
    loud = quiet + np.array([[0.1, -0.1, 0], [-0.1, 0.1, 0], [0, 0.1, -0.1], [0, 0, 0]])
    assert chances(quiet, ONE_FAMILY[:4])[3] < 0.02 < chances(loud, ONE_FAMILY[:4])[3]


def test_recipes_compete_within_their_family():
    scores = np.array([[0.9, 0.9, 0.91], [0.9, 0.91, 0.9], [0.5, 0.5, 0.51], [0.5, np.nan, np.nan]])
    assert chances(scores, np.array(["a", "a", "b", "b"]))[3] > 0.2
    assert chances(scores, np.array(["a", "a", "b", "a"]))[3] < 0.02
    assert chances(scores, np.array(["a", "a", "b", "c"]))[3] == 1, "no complete recipe to reach"


def test_nothing_is_told_before_the_noise_is_known():
    scores = np.array([[0.9, 0.9, 0.9], [0.9, 0.9, 0.9], [0.1, np.nan, np.nan]])
    assert chances(scores, ONE_FAMILY[:3]).tolist() == [1, 1, 1]
    assert chances(np.vstack([scores[:1], scores]), ONE_FAMILY[:4])[3] < 0.02


def test_recipes_without_a_fold_or_with_all_have_the_chance_one():
    scores = np.array([[0.9, 0.8, 0.9], [0.5, 0.6, 0.5], [0.7, 0.7, 0.8], [np.nan] * 3])
    assert chances(scores, ONE_FAMILY[:4]).tolist() == [1, 1, 1, 1]
    assert chances(np.full((3, 3), np.nan), ONE_FAMILY[:3]).tolist() == [1, 1, 1]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), shift=st.floats(-3, 3), scale=st.floats(0.01, 100))
def test_chances_depend_on_neither_unit_nor_origin_nor_order(seed, shift, scale):
    rng = np.random.default_rng(seed)
    _, scores = world(rng, num_recipes=9)
    scores[4:, 2], scores[6:, 1] = np.nan, np.nan
    families = np.repeat([0, 1], [5, 4])
    chance = chances(scores, families)
    assert ((chance >= 0) & (chance <= 1)).all()
    np.testing.assert_allclose(chances(scores * scale + shift, families), chance, atol=1e-6)
    order = rng.permutation(9)
    np.testing.assert_allclose(chances(scores[order], families[order]), chance[order], atol=1e-6)


def test_equal_scores_are_no_error():
    scores = np.full((4, 3), 0.5)
    scores[3, 1:] = np.nan
    assert chances(scores, ONE_FAMILY[:4])[3] == pytest.approx(0.5)
    scores[3, 0] = 0.4
    assert chances(scores, ONE_FAMILY[:4])[3] < 0.02
