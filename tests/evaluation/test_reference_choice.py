import numpy as np

from raysk.evaluation.reference_choice import chosen_scores
from raysk.records import ReferenceRecord


def record(fold, *scores, merits=None):
    return ReferenceRecord(
        recipe="r", fold=fold, seconds=1.0, heads=("first", "second"),
        scores=tuple((score, score / 10) for score in scores), merits=scores if merits is None else merits,
    )  # fmt: skip


def test_a_fold_alone_is_scored_with_the_first_head():
    assert chosen_scores([record(0, 0.2, 0.9)], 3).tolist() == [[0.2, 0.02]]


def test_each_fold_is_scored_with_the_head_that_the_others_choose():
    records = [record(0, 0.2, 0.9), record(1, 0.5, 0.4), record(2, 0.3, 0.1)]
    # Others of fold 0: 0.8 against 0.5. Of fold 1: 0.5 against 1.0. Of fold 2: 0.7 against 1.3.
    np.testing.assert_allclose(chosen_scores(records, 3)[:, 0], [0.2, 0.4, 0.1])


def test_merits_choose_and_scores_are_returned():
    records = [record(0, 0.2, 0.9, merits=(0.2, -1.0)), record(1, 0.5, 0.6, merits=(0.5, -1.0))]
    np.testing.assert_allclose(chosen_scores(records, 2)[:, 0], [0.2, 0.5])


def test_folds_of_another_division_do_not_choose_since_they_share_rows():
    records = [record(0, 0.2, 0.9), record(1, 0.3, 0.8), record(2, 0.5, 0.6)]
    np.testing.assert_allclose(chosen_scores(records, 2)[:, 0], [0.9, 0.8, 0.5])


def test_the_choice_of_a_null_world_gains_nothing():
    """All heads are worth the same: the best of ten would gain, a cross-fitted choice does not."""
    rng, chosen, best = np.random.default_rng(0), [], []
    for _ in range(400):
        scores = rng.normal(0.5, 0.03, (3, 10))
        records = [
            ReferenceRecord(
                recipe="r", fold=fold, seconds=0.0, heads=tuple("abcdefghij"),
                scores=tuple((value,) for value in row), merits=tuple(row),
            )
            for fold, row in enumerate(scores.tolist())
        ]  # fmt: skip
        chosen.append(chosen_scores(records, 3).mean())
        best.append(scores.mean(axis=0).max())
    assert abs(np.mean(chosen) - 0.5) < 0.004
    assert np.mean(best) > 0.52
