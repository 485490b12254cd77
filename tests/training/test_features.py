import numpy as np
import pytest
import torch

from raysk.data.views import DIHEDRAL, TrainingView, test_time_views, view_seed
from raysk.errors import ArtifactError
from raysk.recipe import Job
from raysk.training.features import FrozenFeatures, encode
from raysk.training.images import plain_images
from raysk.training.stage_one import load_encoder


@pytest.fixture(scope="module")
def encoder(finished, frozen_job):
    return load_encoder(frozen_job, finished).eval()


@pytest.fixture(scope="module")
def pixels(finished) -> np.ndarray:
    return np.array(finished.store(32).pixels)


def by_hand(encoder, images: np.ndarray) -> torch.Tensor:
    with torch.no_grad():
        return torch.stack([encoder(torch.from_numpy(image.copy())[None])[0] for image in images])


def refuse(job, run):
    raise AssertionError("the features exist: no encoder is needed")


def test_encoding_leaves_the_encoder_unchanged_and_returns_plain_tensors(finished, frozen_job, pixels, alone):
    encoder = load_encoder(frozen_job, finished).train()
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    rows = np.array([5, 3, 3, 40])
    features = encode(encoder, rows, plain_images(finished.store(32)), alone)
    assert encoder.training
    assert all(torch.equal(before[name], tensor) for name, tensor in encoder.state_dict().items())
    torch.testing.assert_close(features, by_hand(encoder.eval(), pixels[rows]), atol=1e-5, rtol=1e-4)
    torch.nn.Linear(features.shape[1], 2)(features).sum().backward()  # Inference-mode tensors refuse this.


def test_rows_of_several_batches_stay_in_order(finished, encoder, pixels, alone):
    rows = np.tile(np.arange(len(pixels)), 3)[::-1]
    assert len(rows) > 256
    images = plain_images(finished.store(32))
    features, first = (encode(encoder, chosen, images, alone) for chosen in (rows, np.arange(len(pixels))))
    torch.testing.assert_close(features, first[torch.from_numpy(rows.copy())])


@pytest.mark.parametrize("part", ["held_out", "test"])
def test_a_part_is_encoded_in_every_test_time_view(part, finished, frozen_job, encoder, pixels, alone):
    encoded = FrozenFeatures(frozen_job, finished, alone, load_encoder).part(part)
    rows = finished.folds.test_rows if part == "test" else finished.folds.held_out_rows(0)
    assert encoded.shape == (8, len(rows), encoder.num_features)
    assert encoded.dtype == torch.float32
    for view, features in zip(DIHEDRAL, encoded, strict=True):
        expected = by_hand(encoder, test_time_views[view](pixels[rows]))
        torch.testing.assert_close(features, expected, atol=1e-5, rtol=1e-4)


def test_each_pass_draws_another_view_of_each_training_row(finished, frozen_job, encoder, pixels, alone):
    encoded = FrozenFeatures(frozen_job, finished, alone, load_encoder).training("light", 2)
    rows, draw = finished.folds.train_rows(0), TrainingView("light", 32)
    for number, features in enumerate(encoded):
        images = np.stack([draw(pixels[row], view_seed(0, number, row, 0)) for row in rows.tolist()])
        torch.testing.assert_close(features, by_hand(encoder, images), atol=1e-5, rtol=1e-4)
    assert not torch.equal(encoded[0], encoded[1])


def test_plain_passes_are_the_stored_images(finished, frozen_job, encoder, pixels, alone):
    encoded = FrozenFeatures(frozen_job, finished, alone, load_encoder).training("none", 2)
    assert torch.equal(encoded[0], encoded[1])
    rows = finished.folds.train_rows(0)
    torch.testing.assert_close(encoded[0], by_hand(encoder, pixels[rows]), atol=1e-5, rtol=1e-4)


def test_encoded_features_are_read_again(finished, frozen_job, alone):
    first = FrozenFeatures(frozen_job, finished, alone, load_encoder)
    expected = (first.part("held_out"), first.training("light", 1))
    # More passes extend the existing ones.
    assert torch.equal(first.training("light", 2)[:1], expected[1])
    again = FrozenFeatures(frozen_job, finished, alone, refuse)
    assert torch.equal(again.part("held_out"), expected[0])
    assert torch.equal(again.training("light", 2)[:1], expected[1])


def test_recipes_with_one_encoder_share_their_features(finished, frozen_job, make_job, alone):
    FrozenFeatures(frozen_job, finished, alone, load_encoder).part("held_out")
    other = make_job({"model.backbone": "test_resnet", "stage_two.loss": {"name": "focal"}, "test_views": "none"})
    encoded = FrozenFeatures(other, finished, alone, refuse).part("held_out")
    assert len(encoded) == 1


def test_the_features_of_another_encoder_or_fold_are_refused(finished, frozen_job, make_job, alone):
    key, name = frozen_job.recipe.encoder_key, "train-none-0"
    FrozenFeatures(frozen_job, finished, alone, load_encoder).training("none", 1)
    for job in (make_job({"model.backbone": "test_resnet", "seed": 3}), Job(make_job({"seed": 3}).recipe, 1)):
        path = finished.features_file(job, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.hardlink_to(finished.features_file(frozen_job, name))
        with pytest.raises(ArtifactError, match=f"must hold the features .* of fold {job.fold}, but holds .*{key}"):
            FrozenFeatures(job, finished, alone, load_encoder).training("none", 1)
