import numpy as np
import pytest
import torch

from raysk.parts.encoder import Encoder
from raysk.parts.heads import heads
from raysk.parts.losses.classification import CrossEntropy
from raysk.parts.losses.contrastive import SupCon
from raysk.recipe import Model
from raysk.training.networks import Classifier, StageOneLoss, StageOneNetwork, blank_encoder, new_encoder

IMAGES = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 2, 32, 32, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    torch.manual_seed(0)
    return new_encoder(Model(backbone="test_convnext"), 32).eval()


def test_images_are_normalised_as_the_weights_expect(encoder):
    cfg_mean, cfg_std = encoder.backbone.mean, encoder.backbone.std
    pixels = IMAGES[:, 0].numpy() / 255.0
    normalised = ((pixels - np.array(cfg_mean)) / np.array(cfg_std)).transpose(0, 3, 1, 2)
    expected = encoder.backbone(torch.from_numpy(normalised).float())
    torch.testing.assert_close(encoder(IMAGES[:, 0]), expected)
    assert expected.shape == (3, encoder.num_features)


def test_normalisation_is_not_in_the_state_dict(encoder):
    assert not {"mean", "std"} & encoder.state_dict().keys()


def test_a_blank_encoder_fetches_nothing_and_reads_no_file(tmp_path):
    blank = blank_encoder(Model(backbone="resnet18", pretrained=True, checkpoint=str(tmp_path / "missing")), 32)
    assert blank.num_features == 512


def test_each_view_of_each_image_has_its_own_unit_embedding(encoder):
    model = StageOneNetwork(encoder, 8).eval()
    embeddings = model(IMAGES)
    assert embeddings.shape == (3, 2, 8)
    torch.testing.assert_close(embeddings.norm(dim=2), torch.ones(3, 2))
    for image in range(3):
        for view in range(2):
            alone = model(IMAGES[image : image + 1, view : view + 1])
            torch.testing.assert_close(embeddings[image, view], alone[0, 0])


def test_embeddings_that_are_not_normalised_have_the_same_directions(encoder):
    torch.manual_seed(1)
    unit = StageOneNetwork(encoder, 8).eval()
    torch.manual_seed(1)
    embeddings = StageOneNetwork(encoder, 8, normalise=False).eval()(IMAGES)
    lengths = embeddings.norm(dim=2, keepdim=True)
    assert (lengths - 1).abs().min() > 1e-3
    torch.testing.assert_close(embeddings / lengths, unit(IMAGES))


@pytest.mark.parametrize("name", list(heads))
def test_a_classifier_is_its_head_on_its_encoder(name, encoder):
    model = Classifier(encoder, heads[name](), 5).eval()
    logits = model(IMAGES[:, :1])
    assert logits.shape == (3, 5)
    torch.testing.assert_close(logits, model.head(encoder(IMAGES[:, 0])))


# The losses of stage one.


@pytest.mark.parametrize(("projection", "num_classes"), [(8, 5), (8, None), (None, 5)])
def test_embeddings_and_logits_are_side_by_side(projection, num_classes, encoder):
    model = StageOneNetwork(encoder, projection, num_classes).eval()
    outputs = model(IMAGES)
    features = encoder(IMAGES.flatten(0, 1))
    parts = [model.projection(features)] if projection else []
    parts += [model.classifier(features)] if num_classes else []
    torch.testing.assert_close(outputs, torch.cat(parts, dim=1).view(3, 2, -1))


def test_the_combined_loss_is_the_weighted_sum_over_all_views():
    counts, labels = torch.tensor([4, 2, 1]), torch.tensor([0, 2, 1, 0])
    outputs = torch.randn(4, 2, 8, generator=torch.Generator().manual_seed(0))
    outputs[..., :5] = torch.nn.functional.normalize(outputs[..., :5], dim=2)
    on_embeddings, on_logits = SupCon().build(counts, 5), CrossEntropy(weights="balanced").build(counts)
    first = on_embeddings(outputs[..., :5], labels)
    second = on_logits(
        torch.stack([outputs[row, view, 5:] for row in range(4) for view in range(2)]),
        torch.tensor([labels[row] for row in range(4) for _ in range(2)]),
    )
    both = StageOneLoss(on_embeddings, 0.3, on_logits, 5)
    torch.testing.assert_close(both(outputs, labels), 0.3 * first + second)
    torch.testing.assert_close(StageOneLoss(on_embeddings, 0.3, None, 5)(outputs[..., :5], labels), 0.3 * first)
    torch.testing.assert_close(StageOneLoss(None, 0.3, on_logits, 0)(outputs[..., 5:], labels), second)
