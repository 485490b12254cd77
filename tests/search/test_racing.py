import numpy as np
import pytest
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from raysk.evaluation.goals import Goal
from raysk.evaluation.predictions import Predictions
from raysk.search.jobs import Outcome
from raysk.search.racing import FoldRacing, may_still_win
from raysk.search.searcher import SearchProgress, StudySearcher
from raysk.search.trial_records import TrialReport
from raysk.spaces.space import load_space

GOAL = Goal.parse("macro_f1", (), ())
MACRO_F1 = GOAL.metric
NUM_NAMED = len(load_space("supcon", ["controls=all"]).named_points())


@pytest.fixture
def searcher(run):
    return StudySearcher(
        load_space("supcon", ["controls=all"]), run, NUM_NAMED + 3, "broker", SearchProgress(lambda line: None), 100
    )


def rival(searcher, trial):
    return searcher.standings.rival(trial.asked.number, trial.point.family)


def begin(searcher, name):
    searcher.suggest(name)
    return searcher.trials[name]


def predict(run, key, fold, accuracy):
    """Writes held-out predictions that are right on a share of the rows."""
    rows = run.folds.held_out_rows(fold)
    rng = np.random.default_rng(fold)
    labels, num_classes = run.manifest.labels[rows], len(run.manifest.class_names)
    predicted = np.where(rng.random(len(rows)) < accuracy, labels, (labels + 1) % num_classes)
    probabilities = np.eye(num_classes, dtype=np.float32)[predicted][None]
    Predictions.of_fold(
        run.manifest,
        run.folds,
        fold=fold,
        part="held_out",
        recipe_key=key,
        views=("identity",),
        probabilities=probabilities,
    ).write(run.predictions_file(key, fold, "held_out"))


def result(score, folds=1, searched=False):
    return TrialReport(
        outcome=Outcome.DONE, score=score, folds=folds, is_searched=searched, is_complete=searched
    ).to_result()


def finish_folds(searcher, name, score):
    """Reports all folds of a trial to the searcher, one after another."""
    for folds in (1, 2, 3):
        searcher.on_trial_result(name, result(score, folds))


@pytest.fixture
def racing(searcher, run):
    """All named recipes run; the first of them, the paper's, is complete with 90 % of its rows right."""
    named = [begin(searcher, f"named{number}") for number in range(NUM_NAMED)]
    paper = named[0].recipe.key
    for fold in range(3):
        predict(run, paper, fold, 0.9)
    finish_folds(searcher, "named0", 0.9)
    searcher.on_trial_complete("named0", result(0.9, 3, searched=True))
    return FoldRacing(searcher, run, lambda trial: None)


def verdict(racing, name, answer):
    return racing.on_trial_result(None, Trial("RecipeTrial", trial_id=name, stub=True), answer)


@pytest.mark.parametrize(("accuracy", "goes_on"), [(0.1, False), (0.9, True), (1.0, True)])
def test_a_drawn_recipe_goes_on_if_it_may_be_the_better_one(racing, searcher, run, accuracy, goes_on):
    drawn = begin(searcher, "drawn")
    predict(run, drawn.recipe.key, 0, accuracy)
    expected = TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP
    assert verdict(racing, "drawn", result(accuracy)) == expected


def test_controls_and_starts_run_all_folds_however_bad(racing, searcher, run):
    for name in ("named1", f"named{NUM_NAMED - 1}"):
        predict(run, searcher.trials[name].recipe.key, 0, 0.0)
        assert verdict(racing, name, result(0.0)) == TrialScheduler.CONTINUE


def test_a_recipe_races_on_the_folds_that_both_have(searcher, run):
    racing = FoldRacing(searcher, run, lambda trial: None)
    named = [begin(searcher, f"named{number}") for number in range(NUM_NAMED)]
    drawn = begin(searcher, "drawn")
    for fold in range(3):
        predict(run, drawn.recipe.key, fold, 0.0)
    assert verdict(racing, "drawn", result(0.0)) == TrialScheduler.CONTINUE, "no rival has this fold"
    predict(run, named[0].recipe.key, 0, 0.9)
    searcher.on_trial_result("named0", result(0.9, 1))
    searcher.on_trial_result("drawn", result(0.0, 2))
    assert rival(searcher, drawn) == (named[0].recipe.key, 1)
    assert verdict(racing, "drawn", result(0.0, 2)) == TrialScheduler.STOP


def test_the_rival_leads_by_most_and_was_not_stopped(searcher):
    for number in range(NUM_NAMED):
        begin(searcher, f"named{number}")
    worse, middle, better = (begin(searcher, name) for name in ("worse", "middle", "better"))
    assert rival(searcher, worse) is None
    for name, score in (("worse", 0.2), ("middle", 0.4), ("better", 0.5)):
        searcher.on_trial_result(name, result(score))
    assert rival(searcher, worse) == (better.recipe.key, 1)
    assert rival(searcher, middle) == (better.recipe.key, 1)
    assert rival(searcher, better) is None
    searcher.on_trial_complete("better", result(0.5))
    assert rival(searcher, worse) == (middle.recipe.key, 1)


def race(searcher, run, racing, name, accuracy):
    """Begins a recipe, and reports its first fold."""
    drawn = begin(searcher, name)
    for fold in (0, 1):
        predict(run, drawn.recipe.key, fold, accuracy)
    assert verdict(racing, name, result(accuracy)) == TrialScheduler.CONTINUE
    return drawn


def test_a_score_stops_another_trial_and_cancels_its_jobs(searcher, run):
    cancelled = []
    racing = FoldRacing(searcher, run, cancelled.append)
    for number in range(NUM_NAMED):
        begin(searcher, f"named{number}")
    worse = race(searcher, run, racing, "worse", 0.1)
    race(searcher, run, racing, "better", 0.9)
    assert cancelled == [worse]
    searcher.on_trial_complete("worse", TrialReport(outcome=Outcome.CANCELLED, folds=1).to_result())
    assert searcher.study.get_trials()[worse.asked.number].state.name == "PRUNED"


def test_a_trial_that_was_beaten_between_two_jobs_stops_at_its_next_fold(searcher, run):
    racing = FoldRacing(searcher, run, lambda trial: None)
    for number in range(NUM_NAMED):
        begin(searcher, f"named{number}")
    race(searcher, run, racing, "worse", 0.1)
    race(searcher, run, racing, "better", 0.9)
    assert verdict(racing, "worse", result(0.1, 2)) == TrialScheduler.STOP
    assert verdict(racing, "better", result(0.9, 2)) == TrialScheduler.CONTINUE


def test_a_trial_without_a_score_is_not_stopped(racing, searcher):
    begin(searcher, "drawn")
    failed = TrialReport(outcome=Outcome.FAILED, reason="the loss is nan", folds=0).to_result()
    assert verdict(racing, "drawn", failed) == TrialScheduler.CONTINUE


def test_the_result_of_a_stage_two_search_stops_no_trial(racing, searcher, run):
    drawn = begin(searcher, "drawn")
    finish_folds(searcher, "drawn", 0.0)
    for fold in range(3):
        predict(run, drawn.recipe.key, fold, 0.0)
    assert verdict(racing, "drawn", result(0.0, 3)) == TrialScheduler.STOP
    assert verdict(racing, "drawn", result(0.0, 3, searched=True)) == TrialScheduler.CONTINUE


def test_a_recipe_races_only_with_its_family(run, tmp_path):
    path = tmp_path / "two.yaml"
    path.write_text("about: Two families.\nfamilies: [focal, decouple]\n")
    searcher = StudySearcher(load_space(str(path)), run, 12, "broker", SearchProgress(lambda line: None), 100)
    begun = {name: begin(searcher, name) for name in (f"trial{number}" for number in range(12))}
    origins = {name: (trial.point.family, trial.point.kind) for name, trial in begun.items()}
    names = {origin: name for name, origin in reversed(origins.items())}  # the first of each
    first, same, other = (names[origin] for origin in [("focal", "start"), ("focal", "drawn"), ("decouple", "drawn")])
    paper, same_family, other_family = (begun[name] for name in (first, same, other))
    for fold in range(3):
        predict(run, paper.recipe.key, fold, 0.9)
        predict(run, same_family.recipe.key, fold, 0.1)
        predict(run, other_family.recipe.key, fold, 0.1)
    finish_folds(searcher, first, 0.9)
    racing = FoldRacing(searcher, run, lambda trial: None)
    assert verdict(racing, same, result(0.1)) == TrialScheduler.STOP
    assert verdict(racing, other, result(0.1)) == TrialScheduler.CONTINUE, "no recipe of decouple has a fold yet"


def predictions(labels, accuracy, rng):
    """Probabilities (N, 3) that are right on a share of the rows."""
    wrong = (labels + rng.integers(1, 3, len(labels))) % 3
    predicted = np.where(rng.random(len(labels)) < accuracy, labels, wrong)
    return np.eye(3)[predicted] * 0.8 + 0.2 / 3


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.fixture
def labels(rng):
    return rng.choice(3, size=300, p=[0.7, 0.2, 0.1])


@pytest.fixture
def groups(labels):
    return np.arange(len(labels)) // 2


def test_an_identical_recipe_goes_on(labels, groups, rng):
    probabilities = predictions(labels, 0.7, rng)
    assert may_still_win(probabilities, probabilities.copy(), labels, groups, GOAL)


def test_an_equally_good_recipe_goes_on(labels, groups, rng):
    assert may_still_win(predictions(labels, 0.7, rng), predictions(labels, 0.7, rng), labels, groups, GOAL)


def test_a_better_recipe_goes_on_and_a_clearly_worse_one_does_not(labels, groups, rng):
    good, bad = predictions(labels, 0.9, rng), predictions(labels, 0.5, rng)
    assert may_still_win(good, bad, labels, groups, GOAL)
    assert not may_still_win(bad, good, labels, groups, GOAL)


def test_a_small_difference_on_few_rows_stops_no_recipe(labels, groups, rng):
    good = predictions(labels, 0.8, rng)
    worse = good.copy()
    worse[:2] = worse[:2, [1, 2, 0]]
    assert may_still_win(worse[:40], good[:40], labels[:40], groups[:40], GOAL)


def test_the_comparison_is_paired():
    """A small difference is decisive if both err on the same rows, although each score alone varies far more."""
    labels = np.tile([0, 1], 200)
    groups = np.arange(400)
    right = np.eye(2)[labels]
    incumbent = right.copy()
    incumbent[:160] = 1 - incumbent[:160]
    candidate = incumbent.copy()
    candidate[160:172] = 1 - candidate[160:172]
    gap = MACRO_F1(incumbent, labels) - MACRO_F1(candidate, labels)
    spread = np.sqrt(0.6 * 0.4 / 400)
    assert gap < 1.96 * np.sqrt(2) * spread, "two intervals would overlap"
    assert not may_still_win(candidate, incumbent, labels, groups, GOAL)


def test_photographs_of_one_lesion_do_not_count_as_independent(labels, rng):
    """A difference that is decisive on 300 lesions is not on a handful with many photographs each."""
    labels = np.tile([0, 1, 2], 100)
    incumbent = np.eye(3)[labels]
    candidate = incumbent.copy()
    candidate[:12] = candidate[:12, [1, 2, 0]]
    alone, one_lesion = np.arange(300), np.minimum(np.arange(300) // 12, 4)
    assert not may_still_win(candidate, incumbent, labels, alone, GOAL)
    assert may_still_win(candidate, incumbent, labels, one_lesion, GOAL)


def test_the_only_recipe_that_meets_a_requirement_is_not_stopped_for_a_better_score(labels, groups, rng):
    """One recipe finds all rows of the rare class and errs elsewhere; the other is better, but finds none of them."""
    names = ("common", "some", "rare")
    careful = predictions(labels, 0.6, rng)
    careful[labels == 2] = np.eye(3)[2]
    better = np.eye(3)[np.where(labels == 2, 0, labels)]
    strict = Goal.parse("accuracy", ("sensitivity@rare>=0.9",), names)
    accuracy = Goal.parse("accuracy", (), names)
    assert not may_still_win(careful, better, labels, groups, accuracy)
    assert may_still_win(careful, better, labels, groups, strict)
    assert not may_still_win(better, careful, labels, groups, strict)


def test_a_smaller_loss_wins(labels, groups, rng):
    good, bad = (0.9 * predictions(labels, share, rng) + 0.1 / 3 for share in (0.9, 0.5))
    loss = Goal.parse("log_loss", (), ())
    assert may_still_win(good, bad, labels, groups, loss)
    assert not may_still_win(bad, good, labels, groups, loss)


def test_resamples_without_a_score_decide_nothing():
    labels, groups = np.zeros(6, dtype=int), np.arange(6)
    auc = Goal.parse("auc@b", (), ("a", "b"))
    assert may_still_win(np.eye(2)[labels], np.eye(2)[1 - labels], labels, groups, auc)
