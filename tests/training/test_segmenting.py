"""A segmentation job: masks turn with their images, predictions turn back, workers and attempts agree."""

import numpy as np
import pytest
import torch

from raysk.data.views import DIHEDRAL, TrainingView, test_time_views, view_seed
from raysk.errors import ConfigError
from raysk.evaluation.goals import Goal
from raysk.evaluation.predictions import OutOfFold, Predictions
from raysk.run_checks import check_task
from raysk.training.checkpoints import ClassifierCheckpoint
from raysk.training.job import run_job
from raysk.training.networks import new_encoder
from raysk.training.segmenting import MaskBatches, Segmenter, load_segmenter, turned_back
from raysk.training.stage_one import load_encoder
from tests.conftest import OF_MASKS, SIZE


@pytest.fixture
def mask_run(tmp_path, new_mask_run):
    return new_mask_run(tmp_path / "run")


def test_a_job_learns_masks_and_predicts_them_out_of_fold(mask_run, make_job, alone, diary):
    job = make_job(OF_MASKS | {"test_views": "dihedral"})
    run_job(job, mask_run, alone, diary())
    record, predictions = mask_run.record(job), mask_run.predictions(job.recipe.key, 0)
    assert record.stage_two.losses[-1] < record.stage_two.losses[0]
    assert predictions.probabilities.shape == (1, len(predictions.rows), SIZE * SIZE)
    assert (predictions.class_names, predictions.probabilities.dtype) == ((), np.float16)
    truth = mask_run.truth[predictions.rows]
    assert record.score == mask_run.goal.metric(predictions.mean(), truth)
    assert record.score > mask_run.goal.metric(np.ones_like(predictions.mean()), truth)
    np.testing.assert_array_equal(mask_run.truth, mask_run.regions(SIZE).masks.reshape(len(mask_run.manifest), -1))


@pytest.mark.parametrize("view", DIHEDRAL)
def test_a_mask_is_turned_back(view):
    masks = np.random.default_rng(0).random((3, 6, 6))
    turned = test_time_views[view](masks[..., np.newaxis]).reshape(3, -1)
    np.testing.assert_array_equal(turned_back(turned, view), masks.reshape(3, -1))


def test_each_mask_is_turned_as_its_image(mask_run, make_job, alone):
    job = make_job(OF_MASKS)
    batches = MaskBatches(job, mask_run, alone)
    (images, masks), *_ = batches.epoch(1)
    draws, store, regions = batches.plan.shares(1)[0], mask_run.images(job.recipe), mask_run.regions(SIZE)
    view = TrainingView("medium", SIZE)
    for place in range(3):
        row = int(batches.rows[draws.rows[place]])
        seed = view_seed(job.recipe.seed, 1, row, 0, int(draws.occurrences[place]))
        image, mask = view.with_region(store.pixels[row], regions.masks[row], seed)
        assert np.array_equal(images[place, 0], image)
        assert np.array_equal(masks[place], mask)


def test_a_stopped_job_goes_on_to_the_same_weights(new_mask_run, tmp_path, make_job, alone, diary):
    job, whole, stopped = make_job(OF_MASKS), new_mask_run(tmp_path / "whole"), new_mask_run(tmp_path / "stopped")
    run_job(job, whole, alone, diary())
    with pytest.raises(diary.Leave):
        run_job(job, stopped, alone, diary(leave_after=("stage two", 2)))
    again = diary()
    run_job(job, stopped, alone, again)
    assert again.calls == [("stage two", 2), ("stage two", 3)]
    first, second = (
        ClassifierCheckpoint.read(run.classifier_file(job), job.recipe.key, 0).tensors for run in (whole, stopped)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not stopped.progress_file(job).exists()


def test_a_frozen_encoder_of_stage_one_keeps_its_weights_and_statistics(mask_run, make_job, alone, diary):
    job = make_job(
        {"model.backbone": "test_resnet", "task": OF_MASKS["task"], "stage_two.epochs": 1, "stage_one.epochs": 1}
    )
    run_job(job, mask_run, alone, diary())
    kept, used = load_encoder(job, mask_run).state_dict(), load_segmenter(job, mask_run).encoder.state_dict()
    assert all(torch.equal(kept[name], used[name]) for name in kept)


@pytest.mark.parametrize("backbone", ["mobilenetv3_small_050", "test_resnet", "test_vit", "vgg11"])
def test_each_weight_that_trains_has_a_gradient(backbone, make_job):
    recipe = make_job(OF_MASKS | {"model.backbone": backbone}).recipe
    segmenter = Segmenter(new_encoder(recipe.model, SIZE), recipe.task, SIZE, frozen=False)
    segmenter(torch.zeros(2, 1, SIZE, SIZE, 3, dtype=torch.uint8)).sum().backward()
    assert all(weight.grad is not None for weight in segmenter.parameters() if weight.requires_grad)


def test_masks_of_all_folds_are_read_together(mask_run, tmp_path):
    folds, rows = mask_run.folds, []
    for fold in range(len(folds)):
        held_out = folds.scored_rows(fold, "held_out")
        shares = np.repeat(held_out[:, np.newaxis] / 1000, 4, axis=1).astype(np.float16)[np.newaxis]
        predictions = Predictions.of_fold(
            mask_run.manifest, folds, fold=fold, part="held_out", recipe_key="a", views=["identity"],
            probabilities=shares, class_names=(),
        )  # fmt: skip
        predictions.write(tmp_path / f"{fold}.parquet")
        rows.append(Predictions.read(tmp_path / f"{fold}.parquet"))
    whole = OutOfFold.from_folds(rows, folds)
    expected = (whole.rows / 1000).astype(np.float16)
    np.testing.assert_array_equal(whole.mean(), np.repeat(expected[:, np.newaxis], 4, axis=1).astype(np.float32))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stage_two.head": {"name": "cosine"}}, "stage_two.head must be linear .* but got cosine"),
        ({"stage_two.loss": {"name": "focal"}}, "stage_two.loss must be cross_entropy .* but got focal"),
        ({"stage_two.adjustment": 1.0}, "stage_two.adjustment must be 0.0 .* but got 1.0"),
        ({"crop": {"region": "mask"}}, "crop.region must be none for task.name=segmentation"),
    ],
)
def test_settings_of_a_classifier_are_refused(changes, message, make_job):
    with pytest.raises(ConfigError, match=message):
        make_job(OF_MASKS | changes)


def test_a_metric_of_classes_and_several_sizes_are_refused(make_job):
    first, second = make_job(OF_MASKS).recipe, make_job(OF_MASKS | {"image_size": 48}).recipe
    with pytest.raises(ConfigError, match=r"metric must score masks, .* got macro_f1: set metric=dice"):
        check_task([first], Goal.parse("macro_f1", (), None))
    with pytest.raises(ConfigError, match="image_size must be the same"):
        check_task([first, second], Goal.parse("dice", (), None))
