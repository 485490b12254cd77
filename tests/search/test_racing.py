"""Fold racing with the searcher and real records; tests/evaluation/test_fold_model.py has the statistics."""

import pytest
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from raysk.recipe import Job
from raysk.records import JobRecord, ReferenceRecord
from raysk.search.jobs import Outcome
from raysk.search.racing import FoldRacing
from raysk.search.searcher import SearchProgress, StudySearcher
from raysk.search.trial_records import TrialReport
from raysk.spaces.space import load_space

NUM_NAMED = len(load_space("supcon", ["controls=all"]).named_points())
# Two named recipes have these scores on the three folds, so that the noise of a fold is about 0.03.
GOOD, FAIR = (0.86, 0.9, 0.94), (0.84, 0.8, 0.76)


@pytest.fixture
def searcher(run):
    return StudySearcher(
        load_space("supcon", ["controls=all"]), run, NUM_NAMED + 3, "broker", SearchProgress(lambda line: None), 100
    )


def begin(searcher, name):
    searcher.suggest(name)
    return searcher.trials[name]


def write(run, recipe, fold, score, required=()):
    """Writes the record of a job, and the scores of two reference heads, of which the first is the one that counts."""
    job = Job(recipe, fold, has_references=True)
    JobRecord(
        recipe=recipe.key, fold=fold, part="held_out", seconds=1.0, workers=1, threads=1,
        metric=run.goal.metric.name, score=0.123, required=tuple(required),
    ).write(run.record_file(job))  # fmt: skip
    merit = score if not run.goal.requirements or required[0] >= 0.5 else required[0] - 0.5
    ReferenceRecord(
        recipe=recipe.key, fold=fold, seconds=1.0, heads=("first", "second"),
        scores=((score, *required), (0.0, *required)), merits=(merit, -9.0),
    ).write(run.references_file(job))  # fmt: skip


def result(score, folds=1, searched=False):
    return TrialReport(
        outcome=Outcome.DONE, score=score, folds=folds, num_tried=5 if searched else None, is_complete=searched
    ).to_result()


def report(racing, name, *scores, first=0, required=()):
    """Writes and reports one fold after another; returns the last verdict."""
    trial = racing.searcher.trials[name]
    for fold, score in enumerate(scores, start=first):
        write(racing.run, trial.recipe, fold, score, required)
        verdict = racing.on_trial_result(None, Trial("RecipeTrial", trial_id=name, stub=True), result(score, fold + 1))
    return verdict


@pytest.fixture
def cancelled():
    return []


@pytest.fixture
def racing(searcher, run, cancelled):
    """All named recipes run; the first two are complete."""
    for number in range(NUM_NAMED):
        begin(searcher, f"named{number}")
    racing = FoldRacing(searcher, run, cancelled.append)
    for name, scores in (("named0", GOOD), ("named1", FAIR)):
        report(racing, name, *scores)
    for number in range(2, NUM_NAMED):
        report(racing, f"named{number}", 0.5, 0.51)
    return racing


def test_the_search_of_stage_two_follows_each_recipe_of_this_space(searcher):
    assert begin(searcher, "named0").search is not None


@pytest.mark.parametrize(("score", "goes_on"), [(0.1, False), (0.88, True), (0.95, True)])
def test_a_drawn_recipe_goes_on_if_it_may_become_the_best(racing, searcher, score, goes_on):
    begin(searcher, "drawn")
    assert report(racing, "drawn", score) == (TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP)


def test_controls_and_starts_run_all_folds_however_bad(racing):
    assert report(racing, f"named{NUM_NAMED - 1}", 0.0, first=2) == TrialScheduler.CONTINUE


def test_a_recipe_goes_on_while_no_other_is_complete(searcher, run):
    racing = FoldRacing(searcher, run, lambda trial: None)
    for number in range(NUM_NAMED):
        begin(searcher, f"named{number}")
    begin(searcher, "drawn")
    assert report(racing, "drawn", 0.0) == TrialScheduler.CONTINUE
    report(racing, "named0", *GOOD)
    report(racing, "named1", *FAIR)
    assert report(racing, "drawn", 0.0, first=1) == TrialScheduler.CONTINUE, "the noise of a fold is not known yet"
    report(racing, "named2", *FAIR)
    assert searcher.trials["drawn"].is_beaten


def test_a_score_stops_another_trial_and_cancels_its_jobs(racing, searcher, cancelled):
    worse = begin(searcher, "worse")
    report(racing, "worse", 0.87)
    assert not worse.is_beaten
    begin(searcher, "better")
    report(racing, "better", 0.99, 0.99, 0.99)
    assert cancelled[0] is worse
    searcher.on_trial_complete("worse", TrialReport(outcome=Outcome.CANCELLED, folds=1).to_result())
    assert searcher.study.get_trials()[worse.asked.number].state.name == "PRUNED"


def test_a_trial_that_was_beaten_between_two_jobs_stops_at_its_next_fold(racing, searcher):
    begin(searcher, "worse").is_beaten = True
    assert report(racing, "worse", 0.9) == TrialScheduler.STOP


def test_a_trial_without_a_score_is_not_stopped(racing, searcher):
    begin(searcher, "drawn")
    failed = TrialReport(outcome=Outcome.FAILED, reason="the loss is nan", folds=0).to_result()
    trial = Trial("RecipeTrial", trial_id="drawn", stub=True)
    assert racing.on_trial_result(None, trial, failed) == TrialScheduler.CONTINUE


def test_a_recipe_with_all_folds_keeps_its_search_of_stage_two(racing, searcher):
    begin(searcher, "drawn")
    assert report(racing, "drawn", 0.93, 0.93, 0.1) == TrialScheduler.CONTINUE
    trial = Trial("RecipeTrial", trial_id="drawn", stub=True)
    assert racing.on_trial_result(None, trial, result(0.0, 3, searched=True)) == TrialScheduler.CONTINUE


def test_a_recipe_races_only_with_its_family(run, tmp_path):
    path = tmp_path / "two.yaml"
    path.write_text("about: Two families.\nfamilies: [focal, decouple]\n")
    searcher = StudySearcher(load_space(str(path)), run, 12, "broker", SearchProgress(lambda line: None), 100)
    begun = {name: begin(searcher, name) for name in (f"trial{number}" for number in range(12))}
    names = {}
    for name, trial in begun.items():
        names.setdefault((trial.point.family, trial.point.kind), []).append(name)
    racing = FoldRacing(searcher, run, lambda trial: None)
    for name in names["focal", "start"]:
        report(racing, name, *GOOD)
    for name in names["decouple", "start"]:
        report(racing, name, *FAIR[:2])
    same, other = names["focal", "drawn"][0], names["decouple", "drawn"][0]
    assert report(racing, other, 0.1) == TrialScheduler.CONTINUE, "no recipe of decouple is complete"
    assert report(racing, same, 0.1) == TrialScheduler.STOP


def test_the_only_recipe_that_meets_a_requirement_is_not_stopped_for_a_better_score(tmp_path, new_run):
    run = new_run(tmp_path / "strict", requirements=["accuracy>=0.5"])
    searcher = StudySearcher(
        load_space("supcon", ["controls=all"]), run, NUM_NAMED + 3, "broker", SearchProgress(lambda line: None), 100
    )
    racing = FoldRacing(searcher, run, lambda trial: None)
    for number in range(NUM_NAMED):
        begin(searcher, f"named{number}")
        report(racing, f"named{number}", *GOOD, required=(0.2,))
    begin(searcher, "meets")
    assert report(racing, "meets", 0.3, required=(0.6,)) == TrialScheduler.CONTINUE


def test_less_of_a_loss_wins(tmp_path, new_run):
    run = new_run(tmp_path / "by_loss", metric="log_loss")
    searcher = StudySearcher(
        load_space("supcon", ["controls=all"]), run, NUM_NAMED + 3, "broker", SearchProgress(lambda line: None), 100
    )
    racing = FoldRacing(searcher, run, lambda trial: None)
    for number in range(NUM_NAMED):
        begin(searcher, f"named{number}")
        trial = searcher.trials[f"named{number}"]
        for fold, score in enumerate(GOOD):
            write_loss(run, trial.recipe, fold, score)
            racing.on_trial_result(
                None, Trial("RecipeTrial", trial_id=f"named{number}", stub=True), result(score, fold + 1)
            )
    for name, loss, expected in (("less", 0.5, TrialScheduler.CONTINUE), ("more", 2.0, TrialScheduler.STOP)):
        trial = begin(searcher, name)
        write_loss(run, trial.recipe, 0, loss)
        verdict = racing.on_trial_result(None, Trial("RecipeTrial", trial_id=name, stub=True), result(loss))
        assert verdict == expected


def write_loss(run, recipe, fold, loss):
    """Writes the scores of one reference head by the log loss."""
    ReferenceRecord(
        recipe=recipe.key, fold=fold, seconds=1.0, heads=("only",), scores=((loss,),), merits=(-loss,)
    ).write(run.references_file(Job(recipe, fold)))
