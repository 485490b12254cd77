"""The most work left: what has a record is done, whichever driver did it."""

import pytest
from optuna.trial import TrialState

from raysk.artifacts import write_json
from raysk.search.jobs import Outcome
from raysk.search.remaining import most_work_left
from raysk.search.searcher import SearchProgress, StudySearcher
from raysk.search.trial_records import TrialReport
from raysk.spaces.space import load_space
from raysk.spaces.stage_two_search import StageTwoSearch

USER = ["data.size=150", "image_size=32"]
NUM_FOLDS = 3


@pytest.fixture
def search(other_run):
    return lambda *words, num_trials=4: StudySearcher(
        load_space("supcon", [*USER, *words]), other_run, num_trials, "broker", SearchProgress(say=lambda line: None), 2
    )


def finish(run, work):
    """Writes the record of a job or a search."""
    folder = "searches" if isinstance(work, StageTwoSearch) else "jobs"
    write_json(run.folder / folder / f"{work.id}.json", {})


def test_a_new_search_has_all_its_folds_and_searches_left(search):
    assert most_work_left(search()) == 4 * (NUM_FOLDS + 1)


def test_without_searches_of_stage_two_only_folds_are_left(search):
    assert most_work_left(search("stage_two.search=0")) == 4 * NUM_FOLDS


def test_a_finished_fold_or_search_is_not_left(search, other_run):
    searcher = search()
    searcher.suggest("t0")  # the paper's setting, with a search
    work = searcher.trials["t0"].work(NUM_FOLDS)
    for done, piece in enumerate(work, start=1):
        finish(other_run, piece)
        assert most_work_left(searcher) == 4 * (NUM_FOLDS + 1) - done


def test_an_ended_recipe_leaves_nothing_whatever_it_skipped(search):
    searcher = search("stage_two.search=0", num_trials=2)
    searcher.suggest("t0")
    searcher.suggest("t1")
    failed = TrialReport(outcome=Outcome.FAILED, reason="no", folds=0).to_result()
    searcher.on_trial_complete("t0", failed)
    assert most_work_left(searcher) == NUM_FOLDS
    searcher.on_trial_complete("t1", failed)
    assert most_work_left(searcher) == 0


def test_folds_of_an_earlier_driver_are_not_left_after_resume(search, other_run):
    first = search(num_trials=1)
    first.suggest("t0")
    for job in first.trials["t0"].work(NUM_FOLDS)[:2]:
        finish(other_run, job)
    before = most_work_left(first)
    # The driver dies: the trial stays RUNNING, and the next driver proposes it again.
    second = search(num_trials=1)
    assert len(second.study.get_trials(states=(TrialState.FAIL,))) == 1
    assert most_work_left(second) == before == NUM_FOLDS + 1 - 2
    second.suggest("t0")
    assert most_work_left(second) == before


def test_a_study_that_only_the_time_ends_has_no_bound(other_run):
    space = load_space("supcon", USER)
    timed = StudySearcher(space, other_run, None, "broker", SearchProgress(say=lambda line: None), 2, is_timed=True)
    assert timed.suggest("t0") is not None
    assert most_work_left(timed) is None
