import numpy as np
import pytest

from raysk.evaluation.metrics import macro_f1_score
from raysk.search.racing import may_still_win


def predictions(labels, accuracy, rng):
    """Probabilities (N, 3) that are right on a share of the rows."""
    wrong = (labels + rng.integers(1, 3, len(labels))) % 3
    said = np.where(rng.random(len(labels)) < accuracy, labels, wrong)
    return np.eye(3)[said] * 0.8 + 0.2 / 3


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.fixture
def labels(rng):
    return rng.choice(3, size=300, p=[0.7, 0.2, 0.1])


@pytest.fixture
def groups(labels):
    return np.arange(len(labels)) // 2


def test_an_equal_recipe_goes_on(labels, groups, rng):
    said = predictions(labels, 0.7, rng)
    assert may_still_win(said, said.copy(), labels, groups)


def test_a_recipe_as_good_goes_on(labels, groups, rng):
    assert may_still_win(predictions(labels, 0.7, rng), predictions(labels, 0.7, rng), labels, groups)


def test_a_better_recipe_goes_on_and_a_clearly_worse_one_does_not(labels, groups, rng):
    good, bad = predictions(labels, 0.9, rng), predictions(labels, 0.5, rng)
    assert may_still_win(good, bad, labels, groups)
    assert not may_still_win(bad, good, labels, groups)


def test_few_rows_stop_nobody_for_a_small_difference(labels, groups, rng):
    good = predictions(labels, 0.8, rng)
    worse = good.copy()
    worse[:2] = worse[:2, [1, 2, 0]]
    assert may_still_win(worse[:40], good[:40], labels[:40], groups[:40])


def test_the_comparison_is_paired():
    """A small difference decides where both err on the same rows, though each score alone varies far more."""
    labels = np.tile([0, 1], 200)
    groups = np.arange(400)
    right = np.eye(2)[labels]
    incumbent = right.copy()
    incumbent[:160] = 1 - incumbent[:160]
    candidate = incumbent.copy()
    candidate[160:172] = 1 - candidate[160:172]
    gap = macro_f1_score(incumbent, labels) - macro_f1_score(candidate, labels)
    spread = np.sqrt(0.6 * 0.4 / 400)
    assert gap < 1.96 * np.sqrt(2) * spread, "two intervals would overlap"
    assert not may_still_win(candidate, incumbent, labels, groups)


def test_photographs_of_one_lesion_do_not_count_as_independent(labels, rng):
    """What decides over 300 lesions does not decide over a handful with many photographs each."""
    labels = np.tile([0, 1, 2], 100)
    incumbent = np.eye(3)[labels]
    candidate = incumbent.copy()
    candidate[:12] = candidate[:12, [1, 2, 0]]
    alone, one_lesion = np.arange(300), np.minimum(np.arange(300) // 12, 4)
    assert not may_still_win(candidate, incumbent, labels, alone)
    assert may_still_win(candidate, incumbent, labels, one_lesion)
