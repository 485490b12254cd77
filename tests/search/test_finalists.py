"""The finalists are chosen on the held-out folds, and trained again with other seeds."""

from dataclasses import replace

import numpy as np
import pytest

from raysk.recipe import Job
from raysk.search.candidates import read_candidates
from raysk.search.finalists import finalists_tables, jobs_of_repeats, lost_repeats, pick_finalists, worth
from raysk.spaces.space import load_space
from tests.search.conftest import pretend


def space_with(search, *texts):
    return load_space(str(search.run.folder.parent / "two.yaml"), texts)


@pytest.fixture(scope="module")
def candidates(finished_search):
    return read_candidates(finished_search.run, finished_search.complete)


@pytest.fixture(scope="module")
def finalists(finished_search, candidates):
    return pick_finalists(finished_search.run, space_with(finished_search, "finalists=2", "seeds=4"), candidates)


def test_there_are_no_finalists_unless_asked_for(finished_search, candidates):
    assert pick_finalists(finished_search.run, finished_search.space, candidates) == []


def test_each_family_sends_its_best_recipe_and_the_best_come_first(finished_search, candidates):
    space = space_with(finished_search, "finalists=100")
    found = pick_finalists(finished_search.run, space, candidates)
    merits = {candidate.name: worth(finished_search.run, candidate) for candidate in candidates}
    families = {candidate.name: candidate.family for candidate in candidates}
    assert sorted(families[finalist.name] for finalist in found) == ["", "decouple", "focal"]
    for finalist in found:
        of_family = [name for name in families if families[name] == families[finalist.name]]
        assert merits[finalist.name] == max(merits[name] for name in of_family)
    assert [merits[finalist.name] for finalist in found] == sorted((merits[f.name] for f in found), reverse=True)


def test_a_recipe_that_its_folds_chose_counts_with_its_honest_score(finished_search, candidates):
    (chosen,) = [candidate for candidate in candidates if candidate.name == "decouple: crt + stage two 1"]
    assert worth(finished_search.run, chosen) == pytest.approx(chosen.crossfit)


def test_a_finalist_is_trained_with_the_next_seeds(finished_search, finalists):
    run = finished_search.run
    for finalist in finalists:
        assert [recipe.seed - finalist.recipe.seed for recipe in finalist.repeats] == [1, 2, 3]
        assert all(replace(recipe, seed=finalist.recipe.seed) == finalist.recipe for recipe in finalist.repeats)
    jobs = jobs_of_repeats(finalists, run)
    assert len(jobs) == len(set(jobs)) == 2 * 3 * len(run.folds)
    assert all(run.recipe(job.recipe.key) == job.recipe for job in jobs), "a resumed study and the board read them"


def test_the_tables_show_the_spread_over_seeds_and_name_a_training_that_failed(finished_search, finalists):
    run = finished_search.run
    for job in jobs_of_repeats(finalists, run):
        pretend(run, job, 0.7)
        pretend(run, job.for_test(), 0.7)
    failed = {finalists[0].repeats[1].key: "the loss was no number"}
    scores, differences = finalists_tables(finalists, failed, run)
    assert [line[:2] for line in scores.cells] == [(finalists[0].name, "3"), (finalists[1].name, "4")]
    second = [run.fold_scores(recipe.key)[0].mean() for recipe in (finalists[1].recipe, *finalists[1].repeats)]
    assert scores.cells[1][2:4] == (pytest.approx(np.mean(second)), pytest.approx(np.std(second, ddof=1)))
    assert differences.cells[0][2] == pytest.approx(scores.cells[0][4] - scores.cells[1][4])
    (note,) = lost_repeats(finalists, failed).items()
    assert note == (
        f"not in the table of finalists: {finalists[0].name}, seed {finalists[0].recipe.seed + 2}",
        "failed: the loss was no number",
    )


def test_one_finalist_is_compared_with_nobody(finished_search, finalists):
    assert [table.label for table in finalists_tables(finalists[:1], {}, finished_search.run)] == ["finalists"]


def test_a_score_that_the_test_part_does_not_define_is_left_out(finished_search, finalists, monkeypatch):
    metric = type(finished_search.run.goal.metric)
    monkeypatch.setattr(metric, "__call__", lambda self, probabilities, labels: np.nan)
    (scores,) = finalists_tables(finalists[:2], {}, finished_search.run)
    assert [line[4:] for line in scores.cells] == [(None, None), (None, None)]


def test_jobs_of_a_finalist_train_the_whole_recipe_again(finished_search, finalists):
    (first, *_) = jobs_of_repeats(finalists, finished_search.run)
    assert first == Job(finalists[0].repeats[0], 0)
