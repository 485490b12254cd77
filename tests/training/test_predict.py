import numpy as np
import pytest
import torch

from raysk.data.folds.dividing import FoldSettings, make_folds
from raysk.data.manifest import make_manifest
from raysk.data.views import DIHEDRAL, test_time_views
from raysk.errors import ArtifactError
from raysk.run import Run
from raysk.training.checkpoints import ClassifierCheckpoint
from raysk.training.classifying import log_shares, probabilities_of
from raysk.training.job import run_job
from raysk.training.networks import Classifier
from raysk.training.predict import predict
from raysk.training.stage_one import load_encoder
from tests.run_facts import run_facts


def classifier_of(job, run) -> Classifier:
    """Joins the head of a frozen job to the encoder of its stage one."""
    classifier = Classifier(load_encoder(job, run), job.recipe.stage_two.head, len(run.manifest.class_names))
    tensors = ClassifierCheckpoint.read(run.classifier_file(job), job.recipe.key, job.fold).tensors
    classifier.head.load_state_dict(tensors)
    return classifier.eval()


def test_held_out_rows_are_predicted_in_all_views(finished, frozen_job):
    predictions = finished.predictions(frozen_job.recipe.key, 0)
    assert predictions.views == DIHEDRAL
    assert np.array_equal(predictions.rows, finished.folds.held_out_rows(0))
    assert predictions.probabilities.shape == (8, len(predictions.rows), 7)
    np.testing.assert_allclose(predictions.probabilities.sum(axis=2), 1, atol=1e-6)
    assert (predictions.recipe_key, predictions.fold, predictions.part) == (frozen_job.recipe.key, 0, "held_out")
    predictions.check(finished.folds)


def test_each_view_is_a_plain_forward_pass_of_its_images(finished, frozen_job):
    predictions = finished.predictions(frozen_job.recipe.key, 0)
    classifier, store = classifier_of(frozen_job, finished), finished.store(32)
    for view, actual in zip(predictions.views, predictions.probabilities, strict=True):
        images = np.ascontiguousarray(test_time_views[view](store.pixels[predictions.rows]))
        with torch.no_grad():
            expected = classifier(torch.from_numpy(images)[:, None]).softmax(dim=1)
        np.testing.assert_allclose(actual, expected.numpy(), atol=1e-6)
    assert np.ptp(predictions.probabilities, axis=0).max() > 1e-5  # The predictions differ between views.


def test_a_test_job_predicts_the_test_part_and_trains_nothing(finished, frozen_job, alone, diary):
    job, report = frozen_job.for_test(), diary()
    before = finished.classifier_file(frozen_job).stat().st_mtime_ns
    held_out = finished.predictions_file(frozen_job.recipe.key, 0, "held_out").stat().st_mtime_ns
    assert not finished.predictions_file(frozen_job.recipe.key, 0, "test").exists()
    run_job(job, finished, alone, report)
    assert report.calls == []
    predictions = finished.predictions(frozen_job.recipe.key, 0, "test")
    assert np.array_equal(predictions.rows, finished.folds.test_rows)
    assert (predictions.part, len(predictions.views)) == ("test", 8)
    predictions.check(finished.folds)
    assert finished.classifier_file(frozen_job).stat().st_mtime_ns == before
    assert finished.predictions_file(frozen_job.recipe.key, 0, "held_out").stat().st_mtime_ns == held_out


def test_a_test_job_without_its_classifier_is_refused(run, frozen_job, alone, diary):
    with pytest.raises(ArtifactError, match="must be a whole safetensors file"):
        run_job(frozen_job.for_test(), run, alone, diary())
    assert not run.is_done(frozen_job.for_test())


def test_a_broken_classifier_is_refused(run, finished, frozen_job, alone):
    path = run.classifier_file(frozen_job)
    path.parent.mkdir(parents=True)
    path.write_bytes(finished.classifier_file(frozen_job).read_bytes()[:-1000])
    with pytest.raises(ArtifactError, match="must be a whole safetensors file"):
        predict(frozen_job, run, alone)


@pytest.mark.parametrize("head", ["mlp", "cosine"])
def test_a_one_stage_recipe_on_two_classes(head, manifest, cache, tmp_path, make_job, alone, diary):
    names = ["nevus" if label == manifest.class_names.index("nv") else "other" for label in manifest.labels]
    groups = manifest.table.column("group").to_pylist()
    images = manifest.table.column("image").to_pylist()
    binary = make_manifest(images, names, root=manifest.root, groups=groups)
    folds = make_folds(binary, FoldSettings(k=2, seed=0, test_share=0.2))
    run = Run.create(tmp_path / "run", binary, folds, run_facts(binary, folds, cache))
    job = make_job(
        {
            "stage_one": None,
            "stage_two.frozen": False,
            "stage_two.epochs": 1,
            "stage_two.head": {"name": head},
            "stage_two.loss": {"name": "focal", "weights": "balanced"},
        }
    )
    run_job(job, run, alone, diary())
    predictions = run.predictions(job.recipe.key, 0)
    assert predictions.views == ("identity",)
    assert predictions.probabilities.shape == (1, len(folds.held_out_rows(0)), 2)
    np.testing.assert_allclose(predictions.probabilities.sum(axis=2), 1, atol=1e-6)
    record = run.record(job)
    assert (record.stage_one, record.stage_two is None) == (None, False)


def test_probabilities_are_those_of_evaluation_mode():
    head = torch.nn.Sequential(torch.nn.Dropout(0.9), torch.nn.Linear(4, 3)).train()
    features = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0))
    actual = probabilities_of(head, features, torch.zeros(3))
    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual, head[1](features).softmax(dim=2).detach().numpy(), atol=1e-6)


def test_the_shift_is_subtracted_from_the_logits_of_every_row():
    head = torch.nn.Linear(4, 3)
    features = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0))
    shift = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
    odds = probabilities_of(head, features, torch.zeros(3)) * np.exp(-shift.numpy())
    np.testing.assert_allclose(
        probabilities_of(head, features, shift), odds / odds.sum(axis=2, keepdims=True), atol=1e-6
    )


def test_log_shares_are_those_of_the_counts():
    np.testing.assert_allclose(log_shares(np.array([6, 3, 1])).exp(), [0.6, 0.3, 0.1], rtol=1e-12)


@pytest.mark.parametrize("frozen", [True, False])
def test_an_adjustment_divides_by_the_class_shares_of_the_training_rows(frozen, finished, make_job, alone, diary):
    changes = {"model.backbone": "test_resnet", "test_views": "dihedral" if frozen else "none"}
    changes |= {} if frozen else {"stage_one": None, "stage_two.frozen": False, "stage_two.epochs": 1}
    plain, shifted = make_job(changes), make_job({**changes, "stage_two.adjustment": 0.5})
    for job in (plain, shifted):
        run_job(job, finished, alone, diary())
    before, after = (finished.predictions(job.recipe.key, 0).probabilities for job in (plain, shifted))
    labels = finished.manifest.labels[finished.folds.train_rows(0)]
    odds = before / np.bincount(labels) ** 0.5
    np.testing.assert_allclose(after, odds / odds.sum(axis=2, keepdims=True), atol=1e-5)
    rarest = np.bincount(labels).argmin()
    assert (after[..., rarest] > before[..., rarest]).all()
