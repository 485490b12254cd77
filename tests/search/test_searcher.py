import json
from collections import Counter

import optuna
import pytest
from optuna.trial import TrialState
from ray.tune.search import Searcher

from raysk.recipe import Job
from raysk.search.jobs import Outcome
from raysk.search.searcher import SearchProgress, StudySearcher
from raysk.search.storage import open_study
from raysk.search.trial_records import TrialOrder, TrialRecord, TrialReport, origin
from raysk.spaces.space import load_space
from raysk.spaces.stage_two_search import StageTwoSearch
from raysk.training.work import work_from_plain

USER = ["data.size=150", "image_size=32", "controls=all"]
PAPER = "paper, 10 epochs"
NAMED = [PAPER, "from_scratch", "cross_entropy", "balanced_softmax", "logit_adjustment", "weighted_cross_entropy",
         "focal", "over_sampling", "under_sampling"]  # fmt: skip
TWO_FAMILIES = """
about: Two methods that compete.
include: [controls]
families: [decouple, focal]
"""


def order_of(config):
    return TrialOrder.from_plain(json.loads(config["order"]), "an order")


def work_of(config):
    return [work_from_plain(step.request.work) for step in order_of(config).steps]


def ending(outcome, reason="", folds=0):
    """Returns the result of a trial without a score."""
    return TrialReport(outcome=outcome, reason=reason, folds=folds).to_result()


class Driver:
    """A driver of a study: calls a searcher as Tune does, in the order of the test."""

    def __init__(self, run, num_trials, space="supcon", user=USER):
        self.lines = []
        self.progress = SearchProgress(self.lines.append)
        self.searcher = StudySearcher(load_space(space, user), run, num_trials, "broker", self.progress, num_lanes=100)
        self.begun = 0

    def suggest(self):
        """Begins a trial; returns (its name in Tune, its name in the study, its recipe), or None at the end."""
        name = f"tune{self.begun}"
        self.begun += 1
        config = self.searcher.suggest(name)
        if config == Searcher.FINISHED:
            return None
        return name, self.searcher.trials[name].point.name, work_of(config)[0].recipe

    def folds(self, name, scores, k=3):
        """Reports fold after fold; returns the last result."""
        for number in range(1, len(scores) + 1):
            mean = sum(scores[:number]) / number
            result = self.result(mean, number, complete=number == k and self.searcher.trials[name].search is None)
            if not result["done"]:
                self.searcher.on_trial_result(name, result)
        return result

    def result(self, score, folds, searched=False, complete=False):
        report = TrialReport(
            outcome=Outcome.DONE, score=score, folds=folds, num_tried=5 if searched else None, is_complete=complete
        )
        return report.to_result()

    def complete(self, name, score=0.5, best_found=None):
        """Completes a trial; its search of stage two finds `best_found`, or nothing better than the trial."""
        result = self.folds(name, [score] * 3)
        if not result["done"]:
            result = self.result(score if best_found is None else best_found, 3, searched=True, complete=True)
        self.searcher.on_trial_complete(name, result)

    def stop(self, name, score=0.1):
        self.searcher.on_trial_complete(name, self.folds(name, [score]))

    def fail(self, name, reason):
        self.searcher.on_trial_complete(name, ending(Outcome.FAILED, reason))

    def rest(self):
        """Completes all remaining trials; returns their names."""
        names = []
        while trial := self.suggest():
            names.append(trial[1])
            self.complete(trial[0])
        return names


def by_point(run):
    """Returns the trials that no later driver repeats, by the name of their point."""
    study = open_study(run.folder / "study.journal")
    return {
        t.user_attrs["point"]: t
        for t in study.get_trials()
        if t.state is not TrialState.FAIL or "reason" in t.user_attrs
    }


def test_the_starts_come_first_then_all_controls_if_asked_for_then_the_search(run):
    driver = Driver(run, 11)
    assert driver.rest() == [*NAMED, "trial 9", "trial 10"]
    assert (driver.progress.begun, driver.progress.complete) == (11, 11)


def test_fewer_trials_than_named_points_begin_with_the_paper(run):
    assert Driver(run, 2).rest() == NAMED[:2]


def test_a_trial_gets_what_its_actor_needs_and_its_recipe_is_kept(run):
    config = Driver(run, 1).searcher.suggest("tune0")
    *jobs, search = work_of(config)
    recipe = jobs[0].recipe
    assert jobs == [Job(recipe, fold, has_references=True) for fold in range(3)]
    assert run.recipe(recipe.key) == recipe
    order = order_of(config)
    assert (order.broker, order.num_folds, order.num_lanes, order.is_raced) == ("broker", 3, 100, False)
    assert [step.request.priority for step in order.steps] == [(0, step) for step in range(4)]
    assert [step.request.title for step in order.steps][2:] == [f"{PAPER}, fold 3", f"{PAPER}, stage two"]
    assert order.steps[3].request.needs == tuple(job.id for job in jobs)
    assert [step.record for step in order.steps] == [
        *(str(run.references_file(job)) for job in jobs),
        str(run.search_file(search.id)),
    ]
    assert isinstance(search, StageTwoSearch)
    assert (search.recipe, search.num_settings) == (recipe, 256)
    assert not any(isinstance(value, list | dict) for value in config.values()), "Tune would take these for a space"


def test_drawn_recipes_are_raced_and_named_ones_are_not(run):
    searcher = Driver(run, len(NAMED) + 1).searcher
    raced = [order_of(searcher.suggest(f"tune{number}")).is_raced for number in range(len(NAMED) + 1)]
    assert raced == [*[False] * len(NAMED), True]


def test_a_trial_without_a_frozen_encoder_has_folds_only(run):
    driver = Driver(run, 3)
    driver.suggest()
    driver.suggest()
    assert [type(work) for work in work_of(driver.searcher.suggest("control"))] == [Job] * 3
    assert driver.searcher.trials["control"].point.name == "cross_entropy"


def test_without_a_search_of_stage_two_the_trial_draws_its_settings(run):
    driver = Driver(run, 1, user=[*USER, "stage_two.search=0"])
    assert [type(work) for work in work_of(driver.searcher.suggest("paper"))] == [Job] * 3
    (trial,) = driver.searcher.study.get_trials()
    (rate,) = (value for name, value in trial.params.items() if name.startswith("stage_two.optimizer.lr"))
    assert rate == 0.0005


def test_optuna_receives_the_best_score_of_the_stage_two_search(run):
    driver = Driver(run, 1)
    name, *_ = driver.suggest()
    search = driver.searcher.trials[name].search
    driver.complete(name, 0.4, best_found=0.6)
    (trial,) = driver.searcher.study.get_trials()
    assert (trial.value, trial.user_attrs["search"]) == (0.6, search.id)
    assert trial.intermediate_values == pytest.approx({1: 0.4, 2: 0.4, 3: 0.4, 4: 0.6})
    assert not any(key.startswith("stage_two") for key in trial.params), "it tried many settings, so Optuna learns none"
    assert driver.lines[2:] == [
        f"{PAPER}: fold 3 of 3, macro-F1 0.400",
        f"{PAPER}: best of 5 stage-two settings, macro-F1 0.600",
    ]
    assert driver.progress.best == (PAPER, 0.6)


def test_optuna_receives_the_end_of_every_trial(run):
    driver = Driver(run, 8)
    for _ in range(2):
        driver.complete(driver.suggest()[0], 0.4)
    driver.searcher.on_trial_complete((failed := driver.suggest())[0], ending(Outcome.FAILED, "the loss is nan"))
    driver.stop((stopped := driver.suggest())[0], 0.1)
    driver.searcher.on_trial_complete((dead := driver.suggest())[0], None, error=True)
    driver.searcher.on_trial_complete((scored := driver.suggest())[0], driver.folds("tune5", [0.3, 0.6, 0.9]))
    trials = by_point(run)
    assert [trials[name].state for name in NAMED[:2]] == [TrialState.COMPLETE] * 2
    assert (trials[failed[1]].state, trials[failed[1]].user_attrs["reason"]) == (TrialState.FAIL, "the loss is nan")
    assert (trials[stopped[1]].state, trials[stopped[1]].intermediate_values) == (TrialState.PRUNED, {1: 0.1})
    assert trials[dead[1]].state is TrialState.RUNNING, "--resume proposes it again"
    assert f"{dead[1]}: its process died, see logs/ray.log: --resume tries it again" in driver.lines
    assert trials[scored[1]].value == pytest.approx(0.6)
    assert trials[scored[1]].intermediate_values == pytest.approx({1: 0.3, 2: 0.45, 3: 0.6})
    assert (driver.progress.complete, driver.progress.stopped, driver.progress.failed) == (3, 1, 1)
    assert driver.progress.best == (scored[1], pytest.approx(0.6))
    assert [t.value for t in driver.searcher.standings.complete()] == pytest.approx([0.6, 0.4, 0.4])
    assert f"{failed[1]}: failed: the loss is nan" in driver.lines


def test_a_trial_has_all_folds_before_its_search_is_done(run):
    driver = Driver(run, 11)
    named = driver.suggest()
    driver.folds(named[0], [0.3, 0.4])
    assert driver.searcher.standings.complete() == []
    driver.searcher.on_trial_result(named[0], driver.result(0.35, 3))
    assert [trial.user_attrs["point"] for trial in driver.searcher.standings.complete()] == [named[1]]
    driver.searcher.on_trial_complete(named[0], ending(Outcome.CANCELLED, folds=3))
    assert by_point(run)[named[1]].state is TrialState.RUNNING, "--resume searches it"
    assert [trial.user_attrs["point"] for trial in driver.searcher.standings.complete()] == [named[1]]


def test_every_drawn_point_teaches_optuna_its_values(run):
    driver = Driver(run, 11)
    seen = {}
    while trial := driver.suggest():
        seen[trial[1]] = trial[2]
        driver.complete(trial[0])
    trials = by_point(run)
    for name in (PAPER, "from_scratch", "trial 9", "trial 10"):
        params, recipe = trials[name].params, seen[name]
        assert params["stage_one.loss.temperature"] == recipe.stage_one.loss.temperature
        assert params["stage_one.optimizer.lr"] == recipe.stage_one.optimizer.lr
        assert trials[name].user_attrs["recipe"] == recipe.key
    assert trials["cross_entropy"].params == {}
    kinds = [trials[name].user_attrs["kind"] for name in (PAPER, "focal", "trial 9")]
    assert kinds == ["start", "control", "drawn"]


def test_a_start_outside_a_sweep_of_the_command_line_runs_with_drawn_values(run):
    driver = Driver(
        run, 1, user=[*USER, "stage_one.loss.temperature=interval(0.2,0.3)", "stage_one.epochs=choice(1,2)"]
    )
    _, name, recipe = driver.suggest()
    (trial,) = driver.searcher.study.get_trials()
    assert name == PAPER
    assert 0.2 <= recipe.stage_one.loss.temperature <= 0.3
    assert recipe.stage_one.optimizer.lr == 0.003, "the rest of the paper's setting stays"
    assert trial.params["stage_one.loss.temperature"] == recipe.stage_one.loss.temperature
    assert trial.params["stage_one.epochs"] == recipe.stage_one.epochs


def test_the_trials_of_a_killed_driver_are_proposed_again(run):
    first = Driver(run, 11)
    for _ in range(9):
        name, *_ = first.suggest()
        first.complete(name)
    drawn = [first.suggest() for _ in range(2)]
    first.searcher.on_trial_result(drawn[0][0], first.folds(drawn[0][0], [0.3]))
    # Here the driver dies, without further reports.
    second = Driver(run, 11)
    again = [second.suggest() for _ in range(2)]
    assert [trial[1:] for trial in again] == [trial[1:] for trial in drawn], "the same names and recipes"
    assert second.suggest() is None
    for name, *_ in again:
        second.complete(name)
    states = [trial.state for trial in second.searcher.study.get_trials()]
    assert (states.count(TrialState.FAIL), states.count(TrialState.COMPLETE)) == (2, 11)
    assert states.count(TrialState.RUNNING) == 0
    assert (second.progress.begun, second.progress.complete, second.progress.failed) == (11, 11, 0)


def test_repeated_kills_lose_and_repeat_no_trial(run):
    first = Driver(run, 8)
    begun = {trial[1:] for trial in (first.suggest() for _ in range(3))}
    for _ in range(3):
        driver = Driver(run, 8)
        begun |= {trial[1:] for trial in (driver.suggest() for _ in range(8))}
    assert len(begun) == 8, "each driver asks for the points of those before it"
    last = Driver(run, 8)
    assert sorted(last.rest()) == sorted(name for name, _ in begun)
    origins = [origin(trial) for trial in last.searcher.standings.complete()]
    assert len(origins) == len(set(origins)) == 8


def test_a_start_that_a_kill_left_half_drawn_keeps_the_papers_values(run):
    first = Driver(run, 1)
    assert first.searcher._queue_next()
    asked = first.searcher.study.ask()
    asked.suggest_float("stage_one.loss.temperature", 0.03, 0.5, log=True)
    _, name, recipe = Driver(run, 1).suggest()
    assert name == PAPER
    assert recipe.stage_two.optimizer.lr == 0.0005


def test_a_larger_number_of_trials_continues_the_study(run):
    assert Driver(run, 2).rest() == NAMED[:2]
    assert Driver(run, 2).rest() == []
    more = Driver(run, 11)
    assert more.rest() == [*NAMED[2:], "trial 9", "trial 10"], "the controls that the first driver did not come to"
    keys = [trial.user_attrs["recipe"] for trial in more.searcher.standings.complete()]
    assert len(keys) == len(set(keys)) == 11
    assert Driver(run, 3).rest() == [], "a smaller one takes nothing away"


def test_a_second_driver_draws_other_points_than_the_first(run):
    first = Driver(run, 11)
    first.rest()
    second = Driver(run, 13)
    second.rest()
    trials = second.searcher.standings.complete()
    values = [trial.params["stage_one.optimizer.lr"] for trial in trials if trial.user_attrs["kind"] == "drawn"]
    assert len(values) == len(set(values)) == 4


@pytest.mark.parametrize("lost", [1, 20])
def test_an_unfinished_line_of_the_journal_loses_only_itself(run, lost):
    first = Driver(run, 11)
    for _ in range(10):
        name, *_ = first.suggest()
        first.complete(name)
    path = run.folder / "study.journal"
    path.write_bytes(path.read_bytes()[:-lost])
    second = Driver(run, 11)
    second.rest()
    third = Driver(run, 11)
    assert third.rest() == []
    assert (third.progress.begun, third.progress.complete) == (11, 11)


@pytest.mark.parametrize("how", ["its process died", "a file could not be written"])
def test_trials_that_the_machine_ended_are_proposed_again(run, how):
    first = Driver(run, 8)
    name, point, recipe = first.suggest()
    if how == "its process died":
        first.searcher.on_trial_complete(name, None, error=True)
        assert first.suggest()[1] == NAMED[1], "the others go on"
        assert "--resume tries it again" in first.lines[-1]
    else:
        reason = "classifiers must be writable, but No space left on device: free space"
        first.searcher.on_trial_complete(name, ending(Outcome.BROKEN, reason))
        assert first.searcher.broken == reason
        assert first.suggest() is None, "every other trial would fail too"
    second = Driver(run, 8)
    again = []
    while trial := second.suggest():
        again.append(trial)
        second.complete(trial[0])
    assert (point, recipe) in [trial[1:] for trial in again]
    assert (second.progress.begun, second.progress.complete, second.progress.failed) == (8, 8, 0)


def drawn_recipes(driver):
    """Completes all remaining trials; returns the recipes of the drawn points."""
    recipes = []
    while trial := driver.suggest():
        if driver.searcher.trials[trial[0]].point.kind == "drawn":
            recipes.append(trial[2])
        driver.complete(trial[0])
    return recipes


def test_a_resumed_study_draws_like_an_uninterrupted_one(run, other_run):
    whole = drawn_recipes(Driver(run, 13))
    parts = [drawn_recipes(Driver(other_run, number)) for number in (10, 11, 13)]
    assert [len(part) for part in parts] == [1, 1, 2]
    assert [recipe.key for part in parts for recipe in part] == [recipe.key for recipe in whole]


def test_encoders_are_the_same_with_and_without_a_search_of_stage_two(run, other_run):
    # Two starts: the first draws are at random; later ones learn from all parameters.
    searched = drawn_recipes(Driver(run, 11))
    flat = drawn_recipes(Driver(other_run, 11, user=[*USER, "stage_two.search=0"]))
    assert len({recipe.encoder_key for recipe in searched}) == 2
    assert [recipe.encoder_key for recipe in flat] == [recipe.encoder_key for recipe in searched]
    assert {recipe.key for recipe in flat}.isdisjoint(recipe.key for recipe in searched)


def test_an_interrupted_search_proposes_nothing_and_keeps_running_trials(run):
    first = Driver(run, 10)
    name, point, recipe = first.suggest()
    first.searcher.close()
    assert first.suggest() is None
    first.searcher.on_trial_complete(name, ending(Outcome.CANCELLED, folds=1))
    assert open_study(run.folder / "study.journal").get_trials()[0].state is TrialState.RUNNING
    second = Driver(run, 10)
    queued = [second.suggest()[1:] for _ in range(9)]
    assert (point, recipe) in queued
    assert len({name for name, _ in queued}) == 9


def test_a_trial_that_completes_after_the_search_was_closed_counts(run):
    driver = Driver(run, 8)
    name, *_ = driver.suggest()
    driver.searcher.close()
    driver.complete(name, 0.7)
    assert driver.progress.best == (PAPER, pytest.approx(0.7))


def test_incompatible_settings_fail_only_their_trial(run, tmp_path):
    path = tmp_path / "awkward.yaml"
    path.write_text("about: Half of it cannot be.\nsearch:\n  stage_two.accumulate: choice(1, 3, 2, 5)\n")
    driver = Driver(run, 4, space=str(path))
    names = driver.rest()
    failed = [t for t in driver.searcher.study.get_trials() if "reason" in t.user_attrs]
    assert (len(names), len(failed)) == (2, 2)
    failed.sort(key=lambda trial: trial.params["stage_two.accumulate"])
    assert "accumulate must divide batch_size 256, but got 3" in failed[0].user_attrs["reason"]


@pytest.mark.parametrize("name", ["tpe", "gp", "random", "sobol"])
def test_the_study_opens_with_optunas_own_tools(name, run):
    Driver(run, 6, user=[*USER[:2], f"search.sampler={name}"]).rest()
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(run.folder / "study.journal"))
    )
    study = optuna.load_study(study_name="raysk", storage=storage)
    assert study.direction is optuna.study.StudyDirection.MAXIMIZE
    assert study.best_value == 0.5
    for trial in study.get_trials():
        assert trial.params.keys() == trial.distributions.keys()
        assert bool(trial.params) is (trial.user_attrs["kind"] != "control"), "each draw with its values"
        steps = 4 if trial.params else 3
        assert (trial.value, trial.intermediate_values) == (0.5, dict.fromkeys(range(1, steps + 1), 0.5))


@pytest.fixture
def two_families(tmp_path):
    path = tmp_path / "two.yaml"
    path.write_text(TWO_FAMILIES)
    return str(path)


def test_families_have_equal_budgets_and_names_of_their_own(run, two_families):
    driver = Driver(run, 14, space=two_families)
    names = driver.rest()
    assert names == [
        "decouple: crt", "focal: paper", "decouple: lws", "focal: no_weights", "decouple: disalign",
        "cross_entropy", "balanced_softmax", "logit_adjustment", "focal: trial 8", "decouple: tau_norm",
        "focal: trial 10", "decouple: ncm", "focal: trial 12",
    ]  # fmt: skip
    trials = by_point(run)
    families = Counter(TrialRecord.of(trial).family for trial in trials.values())
    assert families == {"": 3, "decouple": 5, "focal": 5}, "14 is not divisible among two families: one trial is left"
    for name, trial in trials.items():
        prefix = name.partition(": ")[0] if ": " in name else "none"
        assert all(key.startswith(f"{prefix}: ") for key in trial.params), name
        assert trial.params or prefix == "none"


def test_a_killed_drivers_trial_keeps_its_family_its_name_and_its_values(run, two_families):
    first = Driver(run, 13, space=two_families)
    for _ in range(10):
        first.complete(first.suggest()[0])
    killed = first.suggest()
    second = Driver(run, 13, space=two_families)
    assert second.suggest()[1:] == killed[1:]
    assert second.searcher.trials["tune0"].point.family == "focal"
    second.complete("tune0")
    second.rest()
    families = Counter(TrialRecord.of(trial).family for trial in by_point(run).values())
    assert families == {"": 3, "decouple": 5, "focal": 5}


def test_a_draw_that_a_kill_cut_short_counts_for_its_family(run, two_families, tmp_path):
    first = Driver(run, 13, space=two_families)
    for _ in range(10):
        first.complete(first.suggest()[0])
    assert first.searcher._queue_next()
    asked = first.searcher.study.ask()
    assert asked.user_attrs["family"] == "focal"
    asked.suggest_categorical("focal: stage_two.loss.gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
    second = Driver(run, 13, space=two_families)
    second.rest()
    families = Counter(TrialRecord.of(trial).family for trial in second.searcher.standings.complete())
    assert families == {"": 3, "decouple": 5, "focal": 5}


def test_a_family_pays_for_its_own_failures(run, tmp_path):
    """Otherwise a family whose settings are often incompatible would use the budget of the others."""
    (tmp_path / "good.yaml").write_text("about: Good.\nsearch: {stage_one.epochs: 'choice(1, 2, 3, 4)'}\n")
    (tmp_path / "bad.yaml").write_text("about: Bad.\nsearch: {stage_two.accumulate: 'choice(3, 5, 6, 7)'}\n")
    space = tmp_path / "two.yaml"
    space.write_text(f"about: Both.\nfamilies: ['{tmp_path}/bad.yaml', '{tmp_path}/good.yaml']\n")
    driver = Driver(run, 8, space=str(space))
    assert len(driver.rest()) == 4
    assert driver.progress.failed == 4


def test_controls_and_other_families_change_no_draw_of_a_family(run, other_run, tmp_path):
    """Scores differ: controls are good, and the other family is better still."""
    alone = Driver(run, 11, space="focal", user=USER[:2])
    drawn = {}
    for driver, folder in ((alone, "alone"), (Driver(other_run, 27, space=in_competition(tmp_path)), "competing")):
        recipes = drawn[folder] = []
        while trial := driver.suggest():
            point = driver.searcher.trials[trial[0]].point
            if point.family == "focal" and point.kind == "drawn":
                recipes.append(trial[2].key)
            scores = {"": 0.7, "focal": 0.3 + 0.02 * len(recipes), "decouple": 0.9}
            driver.complete(trial[0], scores[point.family])
    assert len(drawn["alone"]) >= 7, "it has begun to learn"
    num_shared = min(map(len, drawn.values()))
    assert num_shared >= 7
    assert drawn["alone"][:num_shared] == drawn["competing"][:num_shared]


def in_competition(folder):
    path = folder / "two.yaml"
    path.write_text(TWO_FAMILIES)
    return str(path)


FEW = """
about: A space of four recipes.
search:
  stage_one.epochs: choice(1, 2)
  seed: choice(0, 1)
starts:
  first: [stage_one.epochs=1, seed=0]
"""


@pytest.mark.parametrize("sampler", ["tpe", "gp", "random", "sobol"])
def test_a_recipe_is_tried_once_and_an_exhausted_space_ends_the_study(sampler, run, tmp_path):
    path = tmp_path / "few.yaml"
    path.write_text(FEW)
    driver = Driver(run, 9, space=str(path), user=[f"search.sampler={sampler}"])
    recipes = []
    while trial := driver.suggest():
        recipes.append((trial[2].stage_one.epochs, trial[2].seed))
        driver.complete(trial[0])
    assert sorted(recipes) == [(1, 0), (1, 1), (2, 0), (2, 1)]
    assert driver.lines[-1] == "few: all that it can draw has been tried"
    assert Driver(run, 9, space=str(path), user=[f"search.sampler={sampler}"]).rest() == []


def test_starts_that_an_override_makes_equal_are_tried_once(run):
    same = ["head.name=linear", "loss.name=cross_entropy", "sampler.name=instance", "optimizer.lr=0.02"]
    driver = Driver(run, 3, space="decouple", user=[*USER, *(f"stage_two.{text}" for text in same)])
    assert driver.rest() == ["crt", "cross_entropy", "balanced_softmax"]
    assert "lws: its recipe has been tried" in driver.lines


def test_a_family_that_starts_like_another_family_has_a_trial_of_its_own(run, tmp_path):
    for name in ("one", "two"):
        (tmp_path / f"{name}.yaml").write_text(FEW)
    space = tmp_path / "both.yaml"
    space.write_text(f"about: Both.\nfamilies: ['{tmp_path}/one.yaml', '{tmp_path}/two.yaml']\n")
    driver = Driver(run, 4, space=str(space))
    first, second = driver.suggest(), driver.suggest()
    assert first[2] == second[2]
    numbers = [driver.searcher.trials[name].asked.number for name, *_ in (first, second)]
    orders = [driver.searcher._order(driver.searcher.trials[name]) for name, *_ in (first, second)]
    assert [{step.request.trial for step in order.steps} for order in orders] == [{number} for number in numbers]
    driver.complete(first[0]), driver.complete(second[0])
    third, fourth = driver.suggest(), driver.suggest()
    assert third[2] != fourth[2], "a draw is new to the whole study"


def test_a_short_study_names_the_controls_that_it_left_out_and_a_later_driver_can_run_them(run):
    short = Driver(run, None, space="metric", user=USER[:2])
    assert short.rest() == ["batch_hard", "centre_triplet", "cross_entropy", "trial 3", "trial 4", "trial 5"]
    assert short.searcher.left_out_controls() == "balanced_softmax, logit_adjustment (controls=all runs them)"
    later = Driver(run, None, space="metric")
    assert later.rest() == ["balanced_softmax", "logit_adjustment"]
    assert later.searcher.left_out_controls() == ""


def test_an_ablation_proposes_only_its_rows(run):
    driver = Driver(run, 20, space="focal_ablation")
    assert driver.rest() == list(load_space("focal_ablation").grid)


def test_one_recipe_more_than_there_are_lanes_runs_and_more_when_lanes_join(run):
    driver = Driver(run, 8)
    driver.searcher.num_lanes = 1
    first, second = driver.suggest(), driver.suggest()
    assert driver.searcher.suggest("too early") is None
    assert driver.searcher.suggest("still too early") is None
    driver.complete(first[0])
    assert driver.suggest()
    driver.searcher.num_lanes = 2
    assert driver.suggest()
    assert driver.searcher.suggest("too early again") is None
    driver.searcher.close()
    assert driver.suggest() is None, "a study that ends proposes nothing"
    assert second[1] != first[1]
