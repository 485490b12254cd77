import json

import numpy as np
import pytest
import torch

from raysk.artifacts import read_json
from raysk.evaluation.reference_choice import chosen_scores
from raysk.recipe import Job, Recipe
from raysk.records import ReferenceRecord
from raysk.spaces.reference_heads import reference_heads
from raysk.stage import Optimizer
from raysk.stage_two import StageTwo
from raysk.training.job import run_job
from raysk.training.stage_two_search import references
from raysk.training.work import work_from_plain
from raysk.training.world import World

ALONE = World(0, 1, torch.device("cpu"))


@pytest.fixture
def job(small_recipe):
    return Job(Recipe.from_plain(small_recipe()), 0, has_references=True)


def train(job, run):
    run_job(job, run, ALONE, lambda progress: None)


def test_the_heads_are_the_same_for_all_recipes_of_a_space(small_recipe):
    first, second = (
        reference_heads(Recipe.from_plain(small_recipe({"stage_two.head": {"name": head}})).stage_two)
        for head in ("linear", "cosine")
    )
    assert first == second
    assert len(first) == 10
    assert len({json.dumps(stage.to_plain()) for stage in first.values()}) == 10


def test_a_head_scores_what_the_same_recipe_scores_alone(job, run):
    train(job, run)
    record = ReferenceRecord.read(run.references_file(job))
    heads = reference_heads(job.recipe.stage_two)
    assert record.heads == tuple(heads)
    for name in ("balanced softmax, lr 0.01", "adjusted, lr 0.1"):
        alone = Job(Recipe.from_plain(job.recipe.to_plain() | {"stage_two": heads[name].to_plain()}), 0)
        train(alone, run)
        place = record.heads.index(name)
        assert record.scores[place][0] == pytest.approx(run.record(alone).score, abs=1e-6)
        assert record.merits[place] == record.scores[place][0]


def test_a_job_without_a_search_has_none_and_is_completed_when_a_search_follows(job, run):
    plain = Job(job.recipe, 0)
    train(plain, run)
    assert run.is_done(plain)
    assert not run.is_done(job)
    before = run.record_file(plain).read_bytes()
    train(job, run)
    assert run.is_done(job)
    assert run.record_file(plain).read_bytes() == before, "what was done is not repeated"
    assert job.id == plain.id


def test_a_recipe_races_by_its_reference_heads(job, run):
    for fold in range(2):
        train(Job(job.recipe, fold, has_references=True), run)
    records = [ReferenceRecord.read(run.folder / "references" / job.recipe.key / f"fold{fold}.json") for fold in (0, 1)]
    np.testing.assert_array_equal(run.raced_scores(job.recipe.key, 2), chosen_scores(records, 2).T)
    np.testing.assert_array_equal(run.raced_scores(job.recipe.key, 1), [[records[0].scores[0][0]]])


def test_a_recipe_without_reference_heads_races_by_its_own_scores(job, run):
    train(Job(job.recipe, 0), run)
    np.testing.assert_array_equal(run.raced_scores(job.recipe.key, 1), run.fold_scores(job.recipe.key, 1))


def test_the_job_travels_with_its_references(job):
    assert work_from_plain(json.loads(json.dumps(job.to_plain()))) == job
    assert not job.for_test().has_references


def test_a_head_that_diverged_has_the_worst_score(job, run, monkeypatch):
    train(Job(job.recipe, 0), run)
    # Adam's steps have the size of the rate, so only features that are enormous overflow.
    monkeypatch.setattr(references, "reference_heads", lambda stage: {
        "fine": reference_heads(stage)["balanced softmax, lr 0.01"],
        "wild": StageTwo(epochs=300, optimizer=Optimizer(name="sgd", lr=100, weight_decay=10, schedule="constant")),
    })  # fmt: skip
    train(job, run)
    plain = read_json(run.references_file(job))
    assert plain["merits"][0] > 0
    assert (plain["scores"][1], plain["merits"][1]) == ([0.0], 0.0)
