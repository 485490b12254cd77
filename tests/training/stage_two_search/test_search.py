"""A search of stage two on the encoders of a tiny recipe, with folds that are trained once for all tests."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from raysk.artifacts import read_json, write_json
from raysk.errors import TrainingError
from raysk.evaluation.comparison import cross_fitted_choice
from raysk.overrides import parse_overrides
from raysk.recipe import Job
from raysk.run import Run
from raysk.spaces.reference_heads import reference_heads
from raysk.spaces.stage_two_search import StageTwoSearch
from raysk.spaces.sweeps import Parameter, distribution
from raysk.training.job import run_job
from raysk.training.stage_two_search import search as search_module
from raysk.training.stage_two_search.search import NUM_KEPT, search_stage_two
from raysk.training.work import do_work, work_from_plain

TRAINED = (("stage_two.head.name", ("linear", "cosine", "lws")),)
PARAMETERS = (
    Parameter("stage_two.head.name", CategoricalDistribution(["linear", "cosine", "lws", "tau_norm", "ncm"])),
    Parameter("stage_two.head.tau", FloatDistribution(0.0, 2.0), (("stage_two.head.name", ("tau_norm",)),)),
    # LDAM does not fit every head.
    Parameter("stage_two.loss.name", CategoricalDistribution(["cross_entropy", "balanced_softmax", "ldam"]), TRAINED),
    Parameter("stage_two.optimizer.lr", FloatDistribution(0.001, 0.3, log=True), TRAINED),
    Parameter("stage_two.view", CategoricalDistribution(["none", "light"])),
    Parameter("stage_two.passes", IntDistribution(1, 2), (("stage_two.view", ("light",)),)),
    Parameter("stage_two.adjustment", CategoricalDistribution([0.0, 1.0])),
)


@pytest.fixture(scope="module")
def recipe(make_job):
    return make_job({"model.backbone": "test_resnet", "test_views": "dihedral", "stage_two.epochs": 3}).recipe


@pytest.fixture(scope="module")
def trained(tmp_path_factory, new_run, recipe, alone, diary) -> Run:
    """A run with the encoders of both folds; no test writes to it."""
    run = new_run(tmp_path_factory.mktemp("trained") / "run")
    for fold in range(run.folds.k):
        run_job(Job(recipe, fold), run, alone, diary())
    return run


@pytest.fixture(scope="module")
def search(recipe) -> StageTwoSearch:
    return StageTwoSearch(recipe, PARAMETERS, 12)


def copy(run: Run, folder) -> Run:
    shutil.copytree(run.folder, folder)
    return Run(folder, run.cache)


@pytest.fixture(scope="module")
def searched(tmp_path_factory, trained, search, alone, diary) -> Run:
    run = copy(trained, tmp_path_factory.mktemp("searched") / "run")
    do_work(work_from_plain(json.loads(json.dumps(search.to_plain()))), run, alone, diary())
    return run


@pytest.fixture(scope="module")
def record(searched, search):
    return searched.search(search.id)


def test_a_search_survives_json_with_its_id(search, recipe):
    back = StageTwoSearch.from_plain(json.loads(json.dumps(search.to_plain())))
    assert (back, back.id) == (search, search.id)
    others = [
        StageTwoSearch(recipe, PARAMETERS, 13),
        StageTwoSearch(recipe, PARAMETERS[:-1], 12),
        StageTwoSearch(recipe, PARAMETERS, 12, "kappa"),
        StageTwoSearch(recipe, PARAMETERS, 12, require=("kappa>=0.5",)),
    ]
    assert len({search.id, *(other.id for other in others)}) == 5
    back = StageTwoSearch.from_plain(json.loads(json.dumps(others[-1].to_plain())))
    assert (back, back.id) == (others[-1], others[-1].id)


def test_work_from_json_is_a_job_or_a_search(recipe):
    assert work_from_plain(Job(recipe, 1).to_plain()) == Job(recipe, 1)


def test_the_first_setting_is_that_of_the_recipe(record, recipe):
    assert record.tried[0].recipe == record.recipe == recipe.key
    assert record.tried[0].stage_two == recipe.stage_two.to_plain()


def test_the_best_settings_are_kept_as_recipes_with_all_folds(searched, record):
    best = {}
    for setting in sorted(record.tried, key=lambda setting: -np.mean(setting.scores)):
        best.setdefault(tuple(setting.scores), setting.recipe)
    assert record.kept == tuple(best.values())[:NUM_KEPT], (
        "of settings with equal scores on every fold only one is kept"
    )
    assert record.score == pytest.approx(max(np.mean(scores) for scores in best))
    for key in record.kept:
        recipe = searched.recipe(key)
        assert recipe.key == key
        for fold in range(searched.folds.k):
            assert searched.is_done(Job(recipe, fold))
            assert len(searched.predictions(key, fold).views) == 8


def test_the_scores_are_those_of_the_jobs(searched, record):
    """The jobs fit each head alone, and read its probabilities from a file."""
    scores = {setting.recipe: setting.scores for setting in record.tried}
    for key in record.kept:
        for fold in range(searched.folds.k):
            predictions = searched.predictions(key, fold)
            expected = searched.goal.metric(predictions.mean(), searched.manifest.labels[predictions.rows])
            assert scores[key][fold] == pytest.approx(expected, abs=1e-6)
            assert searched.record(Job(searched.recipe(key), fold)).score == expected


def test_the_score_of_the_choice_is_cross_fitted(searched, record):
    scores = np.array([setting.scores for setting in record.tried])
    assert scores.shape[1] == 2
    assert record.crossfit == pytest.approx(cross_fitted_choice(scores, searched.folds.k).mean())
    assert record.crossfit <= record.score + 1e-12


def with_goal(run: Run, folder, metric: str, *requirements: str) -> Run:
    """Returns a copy of a run whose study has another goal."""
    changed = copy(run, folder)
    shutil.rmtree(folder / "jobs")  # its records have scores by the other metric
    goal = {"metric": metric, "requirements": list(requirements)}
    write_json(folder / "run.json", read_json(folder / "run.json") | goal)
    return changed


def test_a_search_by_a_loss_keeps_the_settings_with_the_smallest(tmp_path, trained, recipe, alone, diary):
    run = with_goal(trained, tmp_path / "run", "log_loss")
    search = StageTwoSearch(recipe, PARAMETERS, 12, "log_loss")
    search_stage_two(search, run, alone, diary())
    record = run.search(search.id)
    tried = {setting.recipe: setting.scores for setting in record.tried}
    means = {key: np.mean(tried[key]) for key in record.kept}
    others = [mean for key, mean in means.items() if key != recipe.key]
    assert others == sorted(others)
    assert min(means.values()) == min(np.mean(scores) for scores in tried.values())
    assert record.score == pytest.approx(means[record.kept[0]])
    assert record.crossfit >= record.score - 1e-12
    for key in record.kept:
        jobs = [run.record(Job(run.recipe(key), fold)) for fold in range(2)]
        assert tried[key] == pytest.approx([job.score for job in jobs], abs=1e-5)
        assert {job.metric for job in jobs} == {"log_loss"}


def test_settings_that_meet_a_requirement_are_kept_first_then_the_closest(tmp_path, trained, recipe, alone, diary):
    name = trained.manifest.class_names[int(np.argmin(trained.manifest.class_counts))]
    require = (f"sensitivity@{name}>=0.5",)
    run = with_goal(trained, tmp_path / "run", "macro_f1", *require)
    search = StageTwoSearch(recipe, PARAMETERS, 12, require=require)
    search_stage_two(search, run, alone, diary())
    ranks = []
    for key in run.search(search.id).kept:
        score, sensitivity = run.fold_scores(key).mean(axis=1)
        missing = max(0.0, 0.5 - sensitivity)
        ranks.append((round(missing, 6), round(-score, 6) if missing < 1e-6 else 0.0))
    assert ranks == sorted(ranks)
    assert len({missing for missing, _ in ranks}) > 1


def test_invalid_settings_are_left_out(record):
    stages = [setting.stage_two for setting in record.tried]
    assert 2 <= len(stages) <= 12
    assert all(stage["head"]["name"] == "cosine" for stage in stages if stage["loss"]["name"] == "ldam")
    assert len({stage["head"]["name"] for stage in stages}) > 1


def test_a_finished_search_does_not_run_again(searched, search, alone, diary):
    before = {path: path.stat().st_mtime_ns for path in searched.folder.rglob("*") if path.is_file()}
    report = diary()
    search_stage_two(search, searched, alone, report)
    assert report.calls == []
    assert {path: path.stat().st_mtime_ns for path in searched.folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("leave_after", [("stage-two search", 6), ("best settings", 1)])
def test_an_interrupted_search_ends_the_same(leave_after, tmp_path, trained, search, record, alone, diary):
    run = copy(trained, tmp_path / "run")
    with pytest.raises(diary.Leave):
        search_stage_two(search, run, alone, diary(leave_after=leave_after))
    assert not run.search_file(search.id).exists()
    report = diary()
    search_stage_two(search, run, alone, report)
    assert [epoch for stage, epoch in report.calls if stage == "stage-two search"][-1] == 12
    assert replace(run.search(search.id), seconds=record.seconds) == record


@pytest.mark.parametrize(("short_after", "num_tried"), [(0, 4), (4, 4), (6, 8)])
def test_a_search_whose_time_is_short_keeps_the_best_of_the_settings_so_far(
    short_after, num_tried, tmp_path, trained, search, record, alone, diary, monkeypatch
):
    monkeypatch.setattr(search_module, "_PART", 4)
    run = copy(trained, tmp_path / "run")
    search_stage_two(search, run, alone, diary(short_after=("stage-two search", short_after)))
    short = run.search(search.id)
    assert [setting.recipe for setting in short.tried] == [setting.recipe for setting in record.tried[:num_tried]]
    np.testing.assert_allclose(
        [setting.scores for setting in short.tried], [setting.scores for setting in record.tried[:num_tried]]
    )
    (kept,) = short.kept
    assert short.score == pytest.approx(run.fold_scores(kept)[0].mean())


def test_a_setting_that_diverges_alone_leaves_the_others(tmp_path, trained, search, record, alone):
    run, raised = copy(trained, tmp_path / "run"), []

    def report(progress):
        if progress.stage == "best settings" and not raised:
            raised.append(progress)
            raise TrainingError("the loss of stage two must be a number, but is nan after epoch 1")

    search_stage_two(search, run, alone, report)
    again = run.search(search.id)
    (lost,) = set(record.kept) - set(again.kept)
    assert again.kept == tuple(key for key in record.kept if key != lost)
    for before, after in zip(record.tried, again.tried, strict=True):
        assert after.scores == ((0.0, 0.0) if after.recipe == lost else before.scores)


def test_an_error_reports_that_every_setting_diverged(tmp_path, trained, recipe, alone):
    search = StageTwoSearch(recipe, only({"stage_two.optimizer.lr": [0.02, 0.2]}), 4)
    run = copy(trained, tmp_path / "run")

    def report(progress):
        if progress.stage == "best settings":
            raise TrainingError("the loss of stage two must be a number, but is nan after epoch 1")

    with pytest.raises(TrainingError, match=r"none of 4 qualifies: widen .* or lower its learning rates"):
        search_stage_two(search, run, alone, report)
    assert not run.search_file(search.id).exists()


def test_recipes_that_share_an_encoder_try_different_settings(
    tmp_path, trained, make_job, search, record, alone, diary
):
    other = {"model.backbone": "test_resnet", "test_views": "dihedral", "stage_two.epochs": 3}
    recipe = make_job(other | {"stage_two.optimizer.lr": 0.02}).recipe
    assert recipe.encoder_key == search.recipe.encoder_key
    run, again = copy(trained, tmp_path / "run"), StageTwoSearch(recipe, PARAMETERS, 12)
    search_stage_two(again, run, alone, diary())
    both = [{setting.recipe for setting in one_search.tried} for one_search in (record, run.search(again.id))]
    references = {replace(recipe, stage_two=stage).key for stage in reference_heads(recipe.stage_two).values()}
    assert both[0] & both[1] <= references
    assert both[1] - references, "some settings come from the sequence"


def only(values: dict) -> tuple[Parameter, ...]:
    return tuple(Parameter(key, CategoricalDistribution(choices)) for key, choices in values.items())


@pytest.mark.parametrize("head", ["lws", "tau_norm", "ncm"])
def test_heads_of_frozen_encoders_are_tried_and_kept(head, tmp_path, trained, recipe, alone, diary):
    search = StageTwoSearch(recipe, only({"stage_two.head.name": [head]}), 1)
    run = copy(trained, tmp_path / "run")
    search_stage_two(search, run, alone, diary())
    record = run.search(search.id)
    (key,) = record.kept
    assert run.recipe(key).stage_two.to_plain()["head"]["name"] == head
    scores = [run.record(Job(run.recipe(key), fold)).score for fold in range(2)]
    assert record.tried[0].scores == pytest.approx(scores, abs=1e-6)


def test_an_adjustment_changes_the_scores(tmp_path, trained, recipe, alone, diary):
    search = StageTwoSearch(recipe, only({"stage_two.adjustment": [0.0, 10.0]}), 8)
    run = copy(trained, tmp_path / "run")
    search_stage_two(search, run, alone, diary())
    scores = {setting.stage_two["adjustment"]: setting.scores for setting in run.search(search.id).tried}
    assert scores.keys() == {0.0, 10.0}
    assert scores[0.0] != scores[10.0]


def test_a_space_with_one_valid_setting_is_tried_once(tmp_path, trained, recipe, alone, diary):
    run = copy(trained, tmp_path / "run")
    lr = recipe.stage_two.optimizer.lr
    parameters = only({"stage_two.loss.name": ["cross_entropy", "ldam"], "stage_two.optimizer.lr": [lr]})
    search = StageTwoSearch(recipe, parameters, 4)  # LDAM does not fit the linear head.
    search_stage_two(search, run, alone, diary())
    record = run.search(search.id)
    assert record.kept == (recipe.key,)
    assert [setting.recipe for setting in record.tried] == [recipe.key]


def test_a_choice_may_be_a_list(recipe):
    (item,) = parse_overrides(["stage_two.loss.weights=choice(none,[1,2.5,3])"])
    parameter = Parameter("stage_two.loss.weights", distribution("test", item))
    search = StageTwoSearch.from_plain(StageTwoSearch(recipe, (parameter,), 2).to_plain())
    tried = [search.setting({parameter.key: place}, {}).recipe for place in (0.0, 0.9)]
    assert [recipe.stage_two.loss.weights for recipe in tried] == ["none", (1.0, 2.5, 3.0)]


def test_the_base_holds_the_searchable_settings_of_the_recipe(recipe):
    names = {parameter.name for parameter in PARAMETERS}
    base = StageTwoSearch(recipe, PARAMETERS, 1).base()
    assert base.keys() == names - {"stage_two.head.tau", "stage_two.passes"}
    assert (base["stage_two.head.name"], base["stage_two.loss.name"]) == ("linear", "cross_entropy")
    elsewhere = (Parameter("stage_two.optimizer.lr", FloatDistribution(1.0, 2.0)),)
    assert StageTwoSearch(recipe, elsewhere, 1).base() == {}
