"""The order of trials by a goal: their scores in Optuna's journal, and the records of their jobs."""

import pytest
from optuna.trial import TrialState

from raysk.recipe import Job
from raysk.records import JobRecord, SearchRecord
from raysk.search.jobs import Outcome
from raysk.search.searcher import SearchProgress, StudySearcher
from raysk.search.trial_records import TrialReport
from raysk.spaces.space import load_space
from raysk.spaces.stage_two_search import StageTwoSearch

USER = ["data.size=150", "image_size=32", "stage_two.search=0", "controls=all"]
NUM_NAMED = len(load_space("supcon", USER).named_points())
STRICT = ["accuracy>=0.5", "kappa>=0"]


class Study:
    """A study by a goal, whose trials are told their scores."""

    def __init__(self, run):
        self.run, self.lines = run, []
        self.progress = SearchProgress(self.lines.append)
        space = load_space("supcon", USER)
        self.searcher = StudySearcher(space, run, NUM_NAMED + 9, "broker", self.progress, num_lanes=100)

    def begin(self, name):
        self.searcher.suggest(name)
        return self.searcher.trials[name]

    def named(self):
        """Begins the named points, and leaves them without a score."""
        return [self.begin(f"named{number}") for number in range(NUM_NAMED)]

    def score(self, name, *scores, required=()):
        """Reports one fold after another, each with a record; completes a trial with three."""
        trial = self.searcher.trials[name]
        for fold, score in enumerate(scores):
            job = Job(trial.recipe, fold)
            write_record(self.run, job, score, required)
            mean, is_complete = sum(scores[: fold + 1]) / (fold + 1), fold == 2
            report = TrialReport(outcome=Outcome.DONE, score=mean, folds=fold + 1, is_complete=is_complete)
            done = self.searcher.on_trial_complete if is_complete else self.searcher.on_trial_result
            done(name, report.to_result())
        return trial

    def trial(self, number):
        return self.searcher.study.get_trials(deepcopy=False)[number]

    def order(self):
        return [trial.value for trial in self.searcher.standings.complete()]


def write_record(run, job, score, required):
    JobRecord(
        recipe=job.recipe.key, fold=job.fold, part="held_out", seconds=1.0, workers=1, threads=1,
        metric=run.goal.metric.name, score=score, required=tuple(required),
    ).write(run.record_file(job))  # fmt: skip


@pytest.fixture
def by_loss(tmp_path, new_run):
    return Study(new_run(tmp_path / "run", metric="log_loss"))


@pytest.fixture
def strict(tmp_path, new_run):
    return Study(new_run(tmp_path / "run", requirements=STRICT))


def test_a_study_by_a_loss_minimises_it(by_loss):
    assert by_loss.searcher.study.direction.name == "MINIMIZE"
    by_loss.named()
    for name, loss in (("named0", 0.7), ("named1", 0.5), ("named2", 0.9)):
        by_loss.score(name, loss, loss, loss)
    assert by_loss.order() == pytest.approx([0.5, 0.7, 0.9])
    assert by_loss.progress.best[1] == pytest.approx(0.5)
    assert by_loss.lines[0].endswith("fold 1 of 3, log loss 0.700")
    assert by_loss.trial(0).constraints == {}


def test_optuna_is_told_how_far_each_trial_is_from_each_requirement(strict):
    strict.named()
    strict.score("named0", 0.9, 0.9, 0.9, required=(0.4, 0.2))
    assert strict.trial(0).value == pytest.approx(0.9)
    assert strict.trial(0).constraints == pytest.approx({"accuracy>=0.5": 0.1, "kappa>=0": -0.2}, abs=1e-6)
    drawn = strict.begin("drawn")
    strict.score("drawn", 0.3, required=(0.1, 0.0))
    drawn.is_beaten = True
    strict.searcher.on_trial_complete("drawn", TrialReport(outcome=Outcome.CANCELLED, folds=1).to_result())
    assert strict.trial(drawn.asked.number).state is TrialState.PRUNED
    assert strict.trial(drawn.asked.number).constraints["accuracy>=0.5"] == pytest.approx(0.4)


def test_trials_that_meet_the_requirements_come_first_then_the_closest(strict):
    strict.named()
    strict.score("named0", 0.9, 0.9, 0.9, required=(0.4, 0.2))
    strict.score("named1", 0.8, 0.8, 0.8, required=(0.1, 0.2))
    strict.score("named2", 0.3, 0.3, 0.3, required=(0.5, 0.0))
    strict.score("named3", 0.4, 0.4, 0.4, required=(0.6, 0.1))
    assert strict.order() == pytest.approx([0.4, 0.3, 0.9, 0.8])
    assert strict.progress.best[1] == pytest.approx(0.4)


def test_a_searched_trial_counts_as_the_best_recipe_that_its_search_kept(tmp_path, new_run):
    study = Study(new_run(tmp_path / "run", requirements=STRICT))
    trial = study.begin("named0")
    trial.search = StageTwoSearch(trial.recipe, (), 5)
    other = study.begin("named1").recipe
    for fold in range(3):
        write_record(study.run, Job(trial.recipe, fold), 0.4, (0.1, 0.1))
        write_record(study.run, Job(other, fold), 0.7, (0.9, 0.5))
    crossfit = {"crossfit_scores": (0.6, 0.6), "crossfit_merits": (0.6, 0.6)}
    SearchRecord(recipe=trial.recipe.key, kept=(other.key,), score=0.7, **crossfit, seconds=1.0, tried=()).write(
        study.run.search_file(trial.search.id)
    )
    report = TrialReport(outcome=Outcome.DONE, score=0.7, folds=3, num_tried=5, is_complete=True)
    study.searcher.on_trial_complete("named0", report.to_result())
    assert study.trial(0).constraints["accuracy>=0.5"] == pytest.approx(-0.4, abs=1e-6)
