import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from raysk.data.folds.dividing import FoldSettings, make_folds
from raysk.data.manifest import make_manifest
from raysk.parts.heads import heads
from raysk.run import Run
from raysk.training.checkpoints import ClassifierCheckpoint, EncoderCheckpoint
from raysk.training.features import FrozenFeatures
from raysk.training.linear_start import linear_start
from raysk.training.stage_one import load_encoder, train_stage_one
from raysk.training.stage_two import train_stage_two
from tests.run_facts import run_facts


def check_against_sklearn(job, run, world):
    """Compares the probabilities of the start to scikit-learn on features of unit variance."""
    weight, bias = linear_start(job, run, world)
    features = FrozenFeatures(job, run, world, load_encoder).training("none", 1)[0]
    labels = run.manifest.labels[run.folds.train_rows(job.fold)]
    double = features.double()
    # On uncentred features the oracle would stop before its optimum.
    scaled = ((double - double.mean(dim=0)) / double.std(dim=0).clamp_min(1e-6)).numpy()
    expected = LogisticRegression(max_iter=10_000, tol=1e-8).fit(scaled, labels).predict_proba(scaled)
    actual = (features @ weight.T + bias).softmax(dim=1)
    assert weight.shape == (len(run.manifest.class_names), features.shape[1])
    np.testing.assert_allclose(actual.numpy(), expected, atol=5e-3)
    assert (expected.argmax(axis=1) == labels).mean() > 0.5  # It has learnt something.


def test_without_a_classifier_of_stage_one_the_start_is_a_logistic_regression(finished, frozen_job, alone):
    check_against_sklearn(frozen_job, finished, alone)


def test_two_classes_have_a_weight_each(manifest, cache, tmp_path, make_job, alone, diary):
    names = ["nevus" if label == manifest.class_names.index("nv") else "other" for label in manifest.labels]
    images, groups = (manifest.table.column(name).to_pylist() for name in ("image", "group"))
    binary = make_manifest(images, names, root=manifest.root, groups=groups)
    folds = make_folds(binary, FoldSettings(k=2, seed=0, test_share=0.2))
    run = Run.create(tmp_path / "run", binary, folds, run_facts(binary, folds, cache))
    job = make_job({"stage_one.epochs": 1})
    train_stage_one(job, run, alone, diary())
    check_against_sklearn(job, run, alone)


def test_the_logistic_regression_is_fitted_once(finished, frozen_job, alone):
    expected = linear_start(frozen_job, finished, alone)
    written = finished.features_file(frozen_job, "linear-start-1.0").stat()
    again = linear_start(frozen_job, finished, alone)
    assert all(torch.equal(actual, before) for actual, before in zip(again, expected, strict=True))
    assert finished.features_file(frozen_job, "linear-start-1.0").stat().st_mtime_ns == written.st_mtime_ns


@pytest.fixture(scope="module")
def decoupled(tmp_path_factory, new_run, make_job, alone, diary):
    """A run with a classifier from stage one, and its job."""
    run = new_run(tmp_path_factory.mktemp("decoupled") / "run")
    job = make_job({"stage_one.loss": None, "stage_one.classifier_loss": {"name": "cross_entropy"}})
    train_stage_one(job, run, alone, diary())
    return run, job


def test_the_classifier_of_stage_one_comes_first(decoupled, alone):
    run, job = decoupled
    weight, bias = linear_start(job, run, alone)
    tensors = EncoderCheckpoint.read(run.encoder_file(job), job.recipe.encoder_key, 0).tensors
    assert torch.equal(weight, tensors["classifier/weight"])
    assert torch.equal(bias, tensors["classifier/bias"])
    assert not run.features_file(job, "linear-start-1.0").exists()


@pytest.mark.parametrize("head", ["lws", "tau_norm"])
def test_heads_start_from_the_linear_classifier(head, decoupled, make_job, alone, diary):
    run, job = decoupled
    changes = {"stage_one.loss": None, "stage_one.classifier_loss": {"name": "cross_entropy"}}
    other = make_job({**changes, "stage_two.head": {"name": head}})
    facts = train_stage_two(other, run, alone, diary())
    tensors = ClassifierCheckpoint.read(run.classifier_file(other), other.recipe.key, 0).tensors
    weight, bias = linear_start(job, run, alone)
    if head == "lws":
        assert torch.equal(tensors["weight"], weight)
        assert torch.equal(tensors["bias"], bias)
        assert len(facts.losses) == 2
        assert not torch.equal(tensors["scale"], torch.ones(7))
    else:
        torch.testing.assert_close(tensors["weight"], torch.nn.functional.normalize(weight, dim=1))
        assert facts.losses == ()


def test_class_means_are_those_of_the_training_features(decoupled, make_job, alone, diary):
    run, job = decoupled
    changes = {"stage_one.loss": None, "stage_one.classifier_loss": {"name": "cross_entropy"}}
    other = make_job({**changes, "stage_two.head": {"name": "ncm"}})
    facts = train_stage_two(other, run, alone, diary())
    tensors = ClassifierCheckpoint.read(run.classifier_file(other), other.recipe.key, 0).tensors
    features = FrozenFeatures(job, run, alone, load_encoder).training("none", 1)[0]
    expected = heads["ncm"]().build(features.shape[1], 7)
    labels = torch.from_numpy(run.manifest.labels[run.folds.train_rows(0)])
    expected.start_from(features, labels, *linear_start(job, run, alone))
    assert all(torch.equal(tensors[name], tensor) for name, tensor in expected.state_dict().items())
    assert (facts.losses, facts.images) == ((), 0)
