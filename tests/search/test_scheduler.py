import numpy as np
import pytest
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from raysk.evaluation.predictions import Predictions
from raysk.search.scheduler import FoldRacing
from raysk.search.searcher import Listener, StudySearcher
from raysk.search.space import load_space


@pytest.fixture
def searcher(run):
    return StudySearcher(load_space("supcon"), run, 9, "broker", Listener(lambda line: None))


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


def result(score, folds=1):
    return {"outcome": "done", "score": score, "folds": folds, "done": folds == 3}


@pytest.fixture
def racing(searcher, run):
    """All named recipes at work; the first of them, the paper's, complete with nine rows in ten right."""
    named = [begin(searcher, f"named{number}") for number in range(6)]
    paper = named[0].recipe.key
    for fold in range(3):
        predict(run, paper, fold, 0.9)
    searcher.on_trial_complete("named0", result(0.9, 3))
    return FoldRacing(searcher, run)


def verdict(racing, name, answer):
    return racing.on_trial_result(None, Trial("RecipeTrial", trial_id=name, stub=True), answer)


@pytest.mark.parametrize(("accuracy", "goes_on"), [(0.1, False), (0.9, True), (1.0, True)])
def test_a_drawn_recipe_goes_on_if_it_may_be_the_better_one(racing, searcher, run, accuracy, goes_on):
    drawn = begin(searcher, "drawn")
    predict(run, drawn.recipe.key, 0, accuracy)
    expected = TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP
    assert verdict(racing, "drawn", result(accuracy)) == expected


def test_controls_and_starts_run_all_folds_however_bad(racing, searcher, run):
    for name in ("named1", "named5"):
        predict(run, searcher.trials[name].recipe.key, 0, 0.0)
        assert verdict(racing, name, result(0.0)) == TrialScheduler.CONTINUE


def test_nobody_is_stopped_before_a_recipe_is_complete(searcher, run):
    racing = FoldRacing(searcher, run)
    for number in range(6):
        begin(searcher, f"named{number}")
    drawn = begin(searcher, "drawn")
    predict(run, drawn.recipe.key, 0, 0.0)
    assert verdict(racing, "drawn", result(0.0)) == TrialScheduler.CONTINUE


def test_a_trial_without_a_score_is_left_to_end_as_it_does(racing, searcher):
    begin(searcher, "drawn")
    failed = {"outcome": "failed", "reason": "the loss is nan", "folds": 0, "done": True}
    assert verdict(racing, "drawn", failed) == TrialScheduler.CONTINUE
