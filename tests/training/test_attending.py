"""CARE's training step against the method in plain loops, and what it must not depend on."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, interpolate

from raysk.data.regions import box_of
from raysk.data.views import TrainingView, view_seed
from raysk.errors import ConfigError
from raysk.initial_weights import check_networks
from raysk.parts.attention import Care
from raysk.parts.heads import LinearHead
from raysk.parts.maps import grid, last_maps, pooled
from raysk.recipe import Model, Recipe
from raysk.training.attending import AttendingClassifier, CareLoss
from raysk.training.batches import Plan
from raysk.training.checkpoints import ClassifierCheckpoint
from raysk.training.guided import Guide, Guided
from raysk.training.job import run_job
from raysk.training.loop import hash_seed
from raysk.training.networks import Classifier, new_encoder
from raysk.training.stage_one import fresh_encoder
from raysk.training.stage_two import train_stage_two

CLASSES = 4
SIZE = 64  # maps of 2 by 2 positions
CARE = {
    "image_size": SIZE,
    "stage_one": None,
    "stage_two.frozen": False,
    "stage_two.attention": {"name": "care", "weight": 0.2, "rare": 0.3},
    "stage_two.view": "light",
    "stage_two.epochs": 1,
    "stage_two.batch_size": 24,  # more than half of the rows: the epoch is one step
    "stage_two.optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.0},
}


def maps_of(encoder, images):
    return last_maps(encoder.backbone, encoder.normalised(images))


def network(backbone="test_resnet", care=None, **model):
    torch.manual_seed(0)
    classifier = Classifier(new_encoder(Model(backbone=backbone, **model), SIZE), LinearHead(), CLASSES)
    return AttendingClassifier(classifier, care or Care())


def drawn(num_images=6, seed=0):
    random = np.random.default_rng(seed)
    regions = np.zeros((num_images, SIZE, SIZE), np.uint8)
    for region in regions:
        top, left = random.integers(0, 40, 2)
        region[top : top + 19, left : left + 23] = 255
    images = torch.from_numpy(random.integers(0, 256, (num_images, 1, SIZE, SIZE, 3), dtype=np.uint8))
    targets = torch.tensor([0, -1, 3, 1, -1, 2][:num_images])
    return Guided(images, torch.from_numpy(regions), targets)


def loss_in_loops(classifier, image, region, target, threshold=0.5):
    """L_a of one image: Zhuang et al. 2019, with the map scaled to the size of the image."""
    classifier.eval()
    maps = maps_of(classifier.encoder, image[None])[0]
    scores = classifier.head(pooled(classifier.encoder.backbone, maps[None]))[0]
    (gradient,) = torch.autograd.grad(scores[target], maps, retain_graph=True)
    attention = sum(gradient[k].mean() * maps[k] for k in range(len(maps)))
    attention = (attention - attention.min()) / (attention.max() - attention.min())
    scaled = interpolate(attention[None, None], size=region.shape, mode="bilinear", align_corners=False)[0, 0]
    return scaled[region == 0].mean() - torch.clamp(scaled[region > 0].mean(), max=threshold)


@pytest.mark.parametrize(("backbone", "pooling"), [("test_resnet", "network"), ("test_convnext", "avg")])
def test_the_losses_are_those_of_the_method_in_loops(backbone, pooling):
    attending, batch = network(backbone, pooling=pooling).eval(), drawn()
    outputs = attending(batch)
    logits = attending.classifier(batch.images)
    torch.testing.assert_close(outputs[:, :CLASSES], logits)
    assert outputs[:, -1].tolist() == [1, 0, 1, 1, 0, 1]
    for place, target in enumerate(batch.targets.tolist()):
        expected = 0.0
        if target >= 0:
            image, region = batch.images[place, 0], batch.regions[place]
            expected = loss_in_loops(attending.classifier, image, region, target).item()
        assert outputs[place, CLASSES].item() == pytest.approx(expected, abs=1e-5)


def test_with_mean_pooling_and_a_linear_head_alpha_is_the_weight_of_the_class():
    attending, batch = network(pooling="avg").eval(), drawn()
    last = maps_of(attending.classifier.encoder, batch.images.squeeze(1))
    rows = torch.tensor([0, 2, 3, 5])
    alphas = attending._alphas(last, batch.targets, rows)
    weight = attending.classifier.head.weight[batch.targets[rows]]
    torch.testing.assert_close(alphas, weight / last.shape[2] / last.shape[3])


def test_alpha_is_each_images_own_where_the_head_has_batch_norm_and_dropout():
    attending, batch = network(), drawn()
    width = attending.classifier.encoder.num_features
    attending.classifier.head = nn.Sequential(nn.BatchNorm1d(width), nn.Dropout(0.5), nn.Linear(width, CLASSES))
    attending.train()
    before = torch.get_rng_state()
    last = maps_of(attending.classifier.encoder, batch.images.squeeze(1))
    together = attending._alphas(last, batch.targets, torch.tensor([0, 3]))
    alone = attending._alphas(last[3:4], batch.targets[3:4], torch.tensor([0]))
    torch.testing.assert_close(together[1:], alone)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(module.training for module in attending.modules())


def test_an_image_without_a_lesion_in_its_view_is_not_guided():
    batch = drawn()
    batch.regions[0] = 0
    outputs = network().eval()(batch)
    assert outputs[0, CLASSES:].tolist() == [0, 0]
    assert CareLoss(nn.CrossEntropyLoss(), 0.5)(outputs[:1], torch.tensor([1])).item() == pytest.approx(
        0.5 * cross_entropy(outputs[:1, :CLASSES], torch.tensor([1])).item()
    )


@pytest.mark.parametrize("pooling", ["network", "token", "avg", "gem", "both"])
def test_a_network_of_tokens_attends_to_its_patches(pooling):
    attending = network("test_vit", pooling=pooling)
    batch = drawn()
    last = maps_of(attending.classifier.encoder, batch.images.squeeze(1))
    maps = grid(attending.classifier.encoder.backbone, last)
    assert maps.shape[2:] == (4, 4)
    attending.eval()
    torch.testing.assert_close(attending(batch)[:, :CLASSES], attending.classifier(batch.images))
    losses = attending(batch)[:, CLASSES]
    losses.sum().backward()
    assert torch.isfinite(losses).all() and losses.abs().max() > 0


@pytest.mark.parametrize(
    ("model", "size", "message"),
    [
        (
            {"backbone": "test_convnext"},
            32,
            "image_size must give a map of attention more than one .* gives 1 by 1 at 32",
        ),
        (
            {"backbone": "test_resnet", "pooling": "avg", "layers": 2},
            64,
            "model.layers must be 1 for a map of attention",
        ),
    ],
)
def test_a_network_without_maps_is_refused_before_the_start(small_recipe, model, size, message):
    changes = {f"model.{name}": value for name, value in model.items()}
    recipe = Recipe.from_plain(small_recipe(CARE | changes | {"image_size": size}))
    with pytest.raises(ConfigError, match=message):
        check_networks([recipe])
    check_networks([Recipe.from_plain(small_recipe(CARE))])


def fresh_classifier(job, run, world):
    encoder = fresh_encoder(job, world)
    torch.manual_seed(hash_seed(job.recipe.seed, job.fold, 2))
    return Classifier(encoder, job.recipe.stage_two.head, len(run.manifest.class_names))


def step_by_hand(job, run, world):
    """Returns the loss of the only batch, and the weights after one step of gradient descent, in double precision."""
    recipe, rows = job.recipe, run.train_rows(job)
    labels = run.manifest.labels[rows]
    counts = np.bincount(labels)
    rare = np.flatnonzero(counts <= 0.3 * counts.sum())
    classifier = fresh_classifier(job, run, world).double().train()
    (draws,) = Plan(labels, recipe.stage_two, recipe.seed, world).shares(0)
    store, boxes = run.store(recipe.image_size), run.regions(recipe.image_size).boxes
    view, total = TrainingView("light", recipe.image_size), 0.0
    images = []
    for row in rows[draws.rows].tolist():
        image, region = store.pixels[row], np.zeros(store.pixels.shape[1:3], np.uint8)
        left, top, right, bottom = boxes[row]
        region[int(np.floor(top)) : int(np.ceil(bottom)), int(np.floor(left)) : int(np.ceil(right))] = 255
        images.append((*view.with_region(image, region, view_seed(recipe.seed, 0, row, 0)), row))
    pixels = torch.from_numpy(np.stack([image for image, _, _ in images]))
    maps = maps_of(classifier.encoder, pixels)
    logits = classifier.head(pooled(classifier.encoder.backbone, maps))
    targets = torch.from_numpy(labels[draws.rows])
    for place, (_, region, row) in enumerate(images):
        label = run.manifest.labels[row]
        if label not in rare or not region.any():
            continue
        classifier.eval()
        leaf = maps[place : place + 1].detach().requires_grad_()
        score = classifier.head(pooled(classifier.encoder.backbone, leaf))[0, label]
        (gradient,) = torch.autograd.grad(score, leaf)
        classifier.train()
        attention = (gradient[0].mean(dim=(1, 2))[:, None, None] * maps[place]).sum(dim=0)
        attention = (attention - attention.min()) / (attention.max() - attention.min())
        scaled = interpolate(attention[None, None], size=region.shape, mode="bilinear", align_corners=False)[0, 0]
        inside = torch.from_numpy(region > 0)
        total = total + scaled[~inside].mean() - torch.clamp(scaled[inside].mean(), max=0.5)
    loss = 0.8 * cross_entropy(logits, targets) + 0.2 * total
    loss.backward()
    return loss.item(), {name: (w - 0.1 * w.grad).detach() for name, w in classifier.named_parameters()}, total


@pytest.mark.parametrize("backbone", ["test_convnext", "test_resnet"])
def test_a_step_is_that_of_the_method_in_loops(run, make_job, alone, diary, backbone):
    job = make_job(CARE | {"model.backbone": backbone})
    loss, after, attention = step_by_hand(job, run, alone)
    assert attention != 0
    record = train_stage_two(job, run, alone, diary())
    assert record.losses[0] == pytest.approx(loss, abs=1e-4)
    trained = ClassifierCheckpoint.read(run.classifier_file(job), job.recipe.key, 0).tensors
    before = {name: weight.double() for name, weight in fresh_classifier(job, run, alone).named_parameters()}
    for name, weight in after.items():
        step, expected = trained[name].double() - before[name], weight - before[name]
        assert (step - expected).norm() < 5e-3 * expected.norm() + 1e-6, name  # single precision


def test_pieces_give_the_step_of_the_whole_batch(run, make_job, alone, diary):
    whole, pieces = (make_job(CARE | {"stage_two.accumulate": number}) for number in (1, 3))
    for job in (whole, pieces):
        train_stage_two(job, run, alone, diary())
    first, second = (
        ClassifierCheckpoint.read(run.classifier_file(job), job.recipe.key, 0).tensors for job in (whole, pieces)
    )
    for name, weight in first.items():
        torch.testing.assert_close(second[name], weight, rtol=1e-3, atol=1e-5)


def test_half_precision_gives_the_loss_to_two_digits(run, make_job, alone, diary):
    whole, half = (make_job(CARE | {"model.precision": precision}) for precision in ("float32", "bfloat16"))
    one, other = (train_stage_two(job, run, alone, diary()).losses[0] for job in (whole, half))
    assert other != one
    assert other == pytest.approx(one, rel=0.02)


@pytest.mark.parametrize("region", ["box", "mask", "spectral_residual", "fine_grained"])
def test_a_job_is_guided_by_each_kind_of_region_and_predicts_without_it(run, make_job, alone, diary, region):
    job = make_job(CARE | {"stage_two.attention": {"name": "care", "region": region, "margin": 0.1, "rare": 0.3}})
    guide = Guide.of(job, run, job.recipe.stage_two.care)
    assert (guide.targets >= 0).sum() > 5
    size = job.recipe.image_size
    assert (guide.boxes >= 0).all() and (guide.boxes <= size).all()
    guided = guide.targets >= 0
    assert (guide.boxes[guided, 2:] > guide.boxes[guided, :2]).all()
    run_job(job, run, alone, diary())
    assert 0 <= run.record(job).score <= 1


def test_boxes_of_masks_are_those_of_the_table(run, make_job):
    """The drawn lesions have both: the box of a scaled mask is the scaled box, to a pixel."""
    regions = run.regions(32)
    assert regions.masks.any(axis=(1, 2)).all()
    for mask, box in zip(regions.masks, regions.boxes, strict=True):
        np.testing.assert_allclose(box_of(mask), box, atol=1.01)
