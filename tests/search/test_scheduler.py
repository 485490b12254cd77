import numpy as np
import pytest
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from raysk.evaluation.predictions import Predictions
from raysk.search.progress import SearchProgress
from raysk.search.scheduler import FoldRacing
from raysk.search.searcher import StudySearcher
from raysk.spaces.space import load_space

NUM_NAMED = len(load_space("supcon").named_points())


@pytest.fixture
def searcher(run):
    return StudySearcher(load_space("supcon"), run, NUM_NAMED + 3, "broker", SearchProgress(lambda line: None), 100)


def begin(searcher, name):
    searcher.suggest(name)
    return searcher.trials[name]


def predict(run, key, fold, accuracy):
    """Writes held-out predictions that are right on a share of the rows."""
    rows = run.folds.held_out_rows(fold)
    rng = np.random.default_rng(fold)
    labels, num_classes = run.manifest.labels[rows], len(run.manifest.class_names)
    said = np.where(rng.random(len(rows)) < accuracy, labels, (labels + 1) % num_classes)
    probabilities = np.eye(num_classes, dtype=np.float32)[said][None]
    Predictions(rows, ("identity",), probabilities, key, fold, run.folds.digest, "held_out").write(
        run.predictions_file(key, fold, "held_out")
    )


def result(score, folds=1, searched=False):
    complete = searched
    return {
        "outcome": "done", "score": score, "folds": folds, "searched": searched, "complete": complete, "done": complete,
    }  # fmt: skip


def finish_folds(searcher, name, score):
    """Tells the searcher of all folds of a trial, one after the other."""
    for folds in (1, 2, 3):
        searcher.on_trial_result(name, result(score, folds))


@pytest.fixture
def racing(searcher, run):
    """All named recipes at work; the first of them, the paper's, complete with nine rows in ten right."""
    named = [begin(searcher, f"named{number}") for number in range(NUM_NAMED)]
    paper = named[0].recipe.key
    for fold in range(3):
        predict(run, paper, fold, 0.9)
    finish_folds(searcher, "named0", 0.9)
    searcher.on_trial_complete("named0", result(0.9, 3, searched=True))
    return FoldRacing(searcher, run, lambda trial: None)


def verdict(racing, name, answer):
    return racing.on_trial_result(None, Trial("RecipeTrial", trial_id=name, stub=True), answer)


@pytest.mark.parametrize(("accuracy", "may_still_win"), [(0.1, False), (0.9, True), (1.0, True)])
def test_a_drawn_recipe_goes_on_if_it_may_be_the_better_one(racing, searcher, run, accuracy, may_still_win):
    drawn = begin(searcher, "drawn")
    predict(run, drawn.recipe.key, 0, accuracy)
    expected = TrialScheduler.CONTINUE if may_still_win else TrialScheduler.STOP
    assert verdict(racing, "drawn", result(accuracy)) == expected


def test_controls_and_starts_run_all_folds_however_bad(racing, searcher, run):
    for name in ("named1", f"named{NUM_NAMED - 1}"):
        predict(run, searcher.trials[name].recipe.key, 0, 0.0)
        assert verdict(racing, name, result(0.0)) == TrialScheduler.CONTINUE


def test_a_rival_is_met_on_the_folds_that_both_have_and_need_not_have_all(searcher, run):
    racing = FoldRacing(searcher, run, lambda trial: None)
    named = [begin(searcher, f"named{number}") for number in range(NUM_NAMED)]
    drawn = begin(searcher, "drawn")
    for fold in range(3):
        predict(run, drawn.recipe.key, fold, 0.0)
    assert verdict(racing, "drawn", result(0.0)) == TrialScheduler.CONTINUE, "nobody has this fold"
    predict(run, named[0].recipe.key, 0, 0.9)
    searcher.on_trial_result("named0", result(0.9, 1))
    searcher.on_trial_result("drawn", result(0.0, 2))
    assert searcher.rival(drawn) == (named[0].recipe.key, 1)
    assert verdict(racing, "drawn", result(0.0, 2)) == TrialScheduler.STOP


def test_the_rival_is_who_leads_by_most_and_none_that_was_stopped_or_is_behind(searcher):
    for number in range(NUM_NAMED):
        begin(searcher, f"named{number}")
    worse, middle, better = (begin(searcher, name) for name in ("worse", "middle", "better"))
    assert searcher.rival(worse) is None
    for name, score in (("worse", 0.2), ("middle", 0.4), ("better", 0.5)):
        searcher.on_trial_result(name, result(score))
    assert searcher.rival(worse) == (better.recipe.key, 1)
    assert searcher.rival(middle) == (better.recipe.key, 1)
    assert searcher.rival(better) is None
    searcher.on_trial_complete("better", result(0.5))
    assert searcher.rival(worse) == (middle.recipe.key, 1)


def race(searcher, run, racing, name, accuracy):
    """Begins a recipe, and reports its first fold."""
    drawn = begin(searcher, name)
    for fold in (0, 1):
        predict(run, drawn.recipe.key, fold, accuracy)
    assert verdict(racing, name, result(accuracy)) == TrialScheduler.CONTINUE
    return drawn


def test_a_score_ends_the_race_of_another_whose_work_is_left_and_which_counts_as_stopped(searcher, run):
    left = []
    racing = FoldRacing(searcher, run, left.append)
    for number in range(NUM_NAMED):
        begin(searcher, f"named{number}")
    worse = race(searcher, run, racing, "worse", 0.1)
    race(searcher, run, racing, "better", 0.9)
    assert left == [worse]
    searcher.on_trial_complete("worse", {"outcome": "cancelled", "reason": "", "folds": 1, "done": True})
    assert searcher.study.get_trials()[worse.asked.number].state.name == "PRUNED"


def test_one_that_was_beaten_between_two_jobs_stops_with_its_next_fold(searcher, run):
    racing = FoldRacing(searcher, run, lambda trial: None)
    for number in range(NUM_NAMED):
        begin(searcher, f"named{number}")
    race(searcher, run, racing, "worse", 0.1)
    race(searcher, run, racing, "better", 0.9)
    assert verdict(racing, "worse", result(0.1, 2)) == TrialScheduler.STOP
    assert verdict(racing, "better", result(0.9, 2)) == TrialScheduler.CONTINUE


def test_a_trial_without_a_score_is_left_to_end_as_it_does(racing, searcher):
    begin(searcher, "drawn")
    failed = {"outcome": "failed", "reason": "the loss is nan", "folds": 0, "done": True}
    assert verdict(racing, "drawn", failed) == TrialScheduler.CONTINUE


def test_nobody_is_stopped_by_what_a_search_of_stage_two_answers(racing, searcher, run):
    drawn = begin(searcher, "drawn")
    finish_folds(searcher, "drawn", 0.0)
    for fold in range(3):
        predict(run, drawn.recipe.key, fold, 0.0)
    assert verdict(racing, "drawn", result(0.0, 3)) == TrialScheduler.STOP
    assert verdict(racing, "drawn", result(0.0, 3, searched=True)) == TrialScheduler.CONTINUE


def test_a_recipe_races_with_those_of_its_family_only(run, tmp_path):
    path = tmp_path / "two.yaml"
    path.write_text("about: Two families.\nfamilies: [focal, decouple]\n")
    searcher = StudySearcher(load_space(str(path)), run, 12, "broker", SearchProgress(lambda line: None), 100)
    begun = {name: begin(searcher, name) for name in (f"trial{number}" for number in range(10))}
    paper, ours, other = (begun[name] for name in ("trial0", "trial6", "trial9"))
    assert [(one.point.family, one.point.kind) for one in (paper, ours, other)] == [
        ("focal", "start"), ("focal", "drawn"), ("decouple", "drawn"),
    ]  # fmt: skip
    for fold in range(3):
        predict(run, paper.recipe.key, fold, 0.9)
        predict(run, ours.recipe.key, fold, 0.1)
        predict(run, other.recipe.key, fold, 0.1)
    finish_folds(searcher, "trial0", 0.9)
    racing = FoldRacing(searcher, run, lambda trial: None)
    assert verdict(racing, "trial6", result(0.1)) == TrialScheduler.STOP
    assert verdict(racing, "trial9", result(0.1)) == TrialScheduler.CONTINUE, "no recipe of decouple has a fold yet"
