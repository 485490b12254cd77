"""Unlabelled rows and shares of labels, from the rows to the weights."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from raysk.data.folds.assignment import WHOLE
from raysk.errors import ConfigError
from raysk.recipe import Job
from raysk.run import Run
from raysk.training.batches import ImageBatches
from raysk.training.job import run_job
from raysk.training.stage_one import load_encoder, train_stage_one
from tests.run_facts import run_facts

SIMCLR = {"stage_one.loss": {"name": "simclr"}, "stage_one.epochs": 1}


@pytest.fixture
def half_labelled(new_unlabelled_run, tmp_path) -> Run:
    return new_unlabelled_run(tmp_path / "half")


def rows_seen(monkeypatch, job, run, alone, diary) -> np.ndarray:
    """Trains stage one, and returns the rows whose images it drew."""
    seen = []
    drawn = ImageBatches.epoch

    def epoch(self, number):
        seen.extend(self.rows[share.rows] for share in self.plan.shares(number))
        return drawn(self, number)

    monkeypatch.setattr(ImageBatches, "epoch", epoch)
    train_stage_one(job, run, alone, diary())
    monkeypatch.undo()
    return np.unique(np.concatenate(seen))


def test_a_stage_one_without_need_for_labels_sees_all_rows_but_those_of_held_out_cases(
    half_labelled, make_job, alone, diary, monkeypatch
):
    run, job = half_labelled, make_job(SIMCLR | {"stage_one.epochs": 3})
    left_out = np.setdiff1d(run.manifest.unlabelled_rows, run.folds.unlabelled_rows(0))
    assert left_out.size, "a lesion of fold 0 has unlabelled photographs"
    seen = rows_seen(monkeypatch, job, run, alone, diary)
    assert np.isin(run.folds.unlabelled_rows(0), seen).mean() > 0.5, "the last rows of an epoch are dropped"
    assert not np.intersect1d(seen, [*left_out, *run.folds.held_out_rows(0), *run.folds.test_rows]).size


@pytest.mark.parametrize("changes", [{}, {"stage_one.classifier_loss": {"name": "cross_entropy"}} | SIMCLR])
def test_a_stage_one_that_needs_labels_sees_labelled_rows_only(
    half_labelled, make_job, alone, diary, monkeypatch, changes
):
    job = make_job(changes)
    seen = rows_seen(monkeypatch, job, half_labelled, alone, diary)
    assert set(seen.tolist()) <= set(half_labelled.folds.train_rows(0).tolist())


def test_the_probe_and_stage_two_read_labelled_rows_only(half_labelled, make_job, alone, diary):
    run, job = half_labelled, make_job(SIMCLR | {"stage_two.sampler": {"name": "class_balanced"}})
    run_job(job, run, alone, diary())
    assert 0 < run.record(job).stage_one.health[0].probe <= 1
    predictions = run.predictions(job.recipe.key, 0)
    assert set(predictions.rows.tolist()) == set(run.folds.held_out_rows(0).tolist())
    assert run.class_counts(job).tolist() == run.manifest.count_classes(run.folds.train_rows(0)).tolist()


def test_labels_have_no_part_in_a_stage_one_that_needs_none(half_labelled, make_job, alone, diary, cache, tmp_path):
    """Other labels of the same rows give the same encoder, bit for bit."""
    run, job = half_labelled, make_job(SIMCLR)
    train_stage_one(job, run, alone, diary())
    manifest = run.manifest
    swapped = [{"nv": "mel", "mel": "nv"}.get(name, name) for name in manifest.table.column("label").to_pylist()]
    column = manifest.table.column_names.index("label")
    other = type(manifest)(
        manifest.table.set_column(column, "label", pa.array(swapped, pa.string())),
        manifest.root, manifest.class_names, manifest.grouped,
    )  # fmt: skip
    folds = type(run.folds)(run.folds.divisions, run.folds.k, 0, other.digest, run.folds.cases)
    copy = Run.create(tmp_path / "other", other, folds, run_facts(other, folds, cache))
    train_stage_one(job, copy, alone, diary())
    first, second = (load_encoder(job, each).state_dict() for each in (run, copy))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_shares_of_labels_share_an_encoder_that_reads_none(run, make_job, alone, diary):
    whole, few = make_job(SIMCLR), make_job(SIMCLR | {"label_share": 0.3})
    run_job(whole, run, alone, diary())
    report = diary()
    run_job(few, run, alone, report)
    assert not [call for call in report.calls if call[0] == "stage one"]
    assert run.encoder_file(few) == run.encoder_file(whole)
    assert run.classifier_file(few) != run.classifier_file(whole)
    assert len(run.train_rows(few)) < len(run.train_rows(whole)) / 2


@pytest.mark.parametrize(
    "changes",
    [{}, SIMCLR | {"stage_one.patience": 1}, SIMCLR | {"stage_one.classifier_loss": {"name": "cross_entropy"}}],
)
def test_an_encoder_that_reads_labels_belongs_to_its_share(make_job, changes):
    whole, few = make_job(changes), make_job(changes | {"label_share": 0.3})
    assert few.recipe.encoder_key != whole.recipe.encoder_key
    assert few.recipe.key != whole.recipe.key


def test_a_share_of_labels_trains_on_its_rows_and_is_scored_on_all(run, make_job, alone, diary, monkeypatch):
    job = make_job({"label_share": 0.3})
    seen = rows_seen(monkeypatch, job, run, alone, diary)
    assert set(seen.tolist()) <= set(run.train_rows(job).tolist())
    run_job(job, run, alone, diary())
    assert run.predictions(job.recipe.key, 0).rows.tolist() == run.folds.held_out_rows(0).tolist()
    assert run.class_counts(job).sum() == len(run.train_rows(job)) < len(run.folds.train_rows(0)) / 2


@pytest.mark.parametrize("head", ["lws", "linear"])
def test_heads_of_a_share_are_fitted_to_its_rows_whichever_share_came_first(
    run, new_run, tmp_path, make_job, alone, diary, head
):
    few, whole = (make_job(SIMCLR | {"stage_two.head": {"name": head}, "label_share": share}) for share in (0.3, 1.0))
    other = new_run(tmp_path / "other")
    run_job(few, run, alone, diary())
    for job in (whole, few):
        run_job(job, other, alone, diary())
    predictions = [each.predictions(few.recipe.key, 0).probabilities for each in (run, other)]
    assert np.array_equal(*predictions)


def test_an_interrupted_stage_one_with_unlabelled_rows_ends_bit_for_bit_the_same(
    half_labelled, new_unlabelled_run, tmp_path, make_job, alone, diary
):
    job = make_job({"stage_one.loss": {"name": "simclr"}, "label_share": 0.5})
    train_stage_one(job, half_labelled, alone, diary())
    other = new_unlabelled_run(tmp_path / "other")
    with pytest.raises(diary.Leave):
        train_stage_one(job, other, alone, diary(leave_after=("stage one", 1)))
    train_stage_one(job, other, alone, diary())
    first, second = (load_encoder(job, each).state_dict() for each in (half_labelled, other))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_samplers_by_class_are_refused_where_unlabelled_rows_take_part(half_labelled, run, make_job):
    balanced = make_job(SIMCLR | {"stage_one.sampler": {"name": "class_balanced"}})
    run.check(balanced.recipe)
    rule = (
        r"^stage_one.sampler.name must be instance where \d+ unlabelled rows take part, .* but got class_balanced: ch"
    )
    with pytest.raises(ConfigError, match=rule):
        half_labelled.check(balanced.recipe)
    few = make_job(SIMCLR | {"stage_one.sampler": {"name": "class_balanced"}, "label_share": 0.5})
    with pytest.raises(ConfigError, match=rule):
        run.check(few.recipe)
    half_labelled.check(make_job({"stage_one.sampler": {"name": "class_balanced"}}).recipe)
    half_labelled.check(make_job(SIMCLR).recipe)


def test_the_whole_of_the_rows_leaves_out_unlabelled_copies_of_the_test_part(half_labelled, make_job):
    rows = half_labelled.stage_one_rows(Job(make_job(SIMCLR).recipe, WHOLE))
    cases = half_labelled.folds.cases
    assert not np.isin(cases[rows], cases[half_labelled.folds.test_rows]).any()
    assert set(half_labelled.folds.train_rows(WHOLE).tolist()) < set(rows.tolist())
