"""SupCon and SimCLR against their formula in plain loops, and against the published numbers."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from raysk.parts.losses import losses
from raysk.parts.losses.contrastive import contrastive_formula

COUNTS = torch.tensor([3, 2, 3])
LABELS = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2])


def loss_of(name, embeddings, labels, temperature):
    return losses[name](temperature=temperature).build(COUNTS, 4)(embeddings, labels).item()


def contrastive_in_loops(embeddings, keys, temperature):
    """Means over views; two views are positives when their keys are equal."""
    views = [(view, key) for image, key in zip(embeddings.tolist(), keys, strict=True) for view in image]
    terms = []
    for i, (anchor, key) in enumerate(views):
        scores = [sum(a * b for a, b in zip(anchor, other, strict=True)) / temperature for other, _ in views]
        positives = [j for j in range(len(views)) if j != i and views[j][1] == key]
        if not positives:
            continue
        log_denominator = math.log(sum(math.exp(scores[j]) for j in range(len(views)) if j != i))
        terms.append(-sum(scores[j] - log_denominator for j in positives) / len(positives))
    return sum(terms) / len(terms) if terms else 0.0


@pytest.mark.parametrize(
    ("name", "temperature", "expected"),
    [
        ("supcon", 0.07, 12.965676189542),
        ("supcon", 0.1, 9.128042731276),
        ("supcon", 0.5, 3.053244226156),
        ("simclr", 0.07, 7.575115009618),
    ],
)
def test_published_numbers(features, name, temperature, expected):
    assert loss_of(name, features(8, 2, 4), LABELS, temperature) == pytest.approx(expected, abs=1e-11)


@pytest.mark.parametrize("name", ["supcon", "simclr"])
@pytest.mark.parametrize("num_images", [2, 8])
def test_equal_features_give_the_logarithm_of_the_others(name, num_images):
    embeddings = F.normalize(torch.ones(num_images, 2, 5, dtype=torch.float64), dim=2)
    labels = torch.zeros(num_images, dtype=torch.long)
    assert loss_of(name, embeddings, labels, 0.07) == pytest.approx(math.log(2 * num_images - 1), rel=1e-12)


@settings(max_examples=25, deadline=None)
@given(
    labels=st.lists(st.integers(0, 3), min_size=1, max_size=6),
    num_views=st.integers(1, 3),
    temperature=st.sampled_from([0.07, 0.5, 2.0]),
    seed=st.integers(0, 99),
)
def test_both_are_their_formula(labels, num_views, temperature, seed):
    values = np.random.default_rng(seed).normal(size=(len(labels), num_views, 4))
    embeddings = F.normalize(torch.from_numpy(values), dim=2)
    of_labels = contrastive_in_loops(embeddings, labels, temperature)
    of_images = contrastive_in_loops(embeddings, range(len(labels)), temperature)
    assert loss_of("supcon", embeddings, torch.tensor(labels), temperature) == pytest.approx(of_labels, abs=1e-9)
    assert loss_of("simclr", embeddings, torch.tensor(labels), temperature) == pytest.approx(of_images, abs=1e-9)


@pytest.mark.parametrize("name", ["supcon", "simclr"])
def test_a_rotation_of_all_embeddings_changes_nothing(features, name):
    rotation, _ = torch.linalg.qr(features(4, 1, 4).squeeze(1))
    embeddings = features(8, 2, 4)
    expected = loss_of(name, embeddings, LABELS, 0.1)
    assert loss_of(name, embeddings @ rotation, LABELS, 0.1) == pytest.approx(expected, rel=1e-12)


def test_an_anchor_without_positives_is_only_a_negative(features):
    embeddings = features(3, 1, 4)
    embeddings.requires_grad_()
    loss = losses["supcon"]().build(COUNTS, 4)(embeddings, torch.tensor([0, 0, 1]))
    loss.backward()
    assert loss.item() == pytest.approx(contrastive_in_loops(embeddings.detach(), [0, 0, 1], 0.07), rel=1e-12)
    assert embeddings.grad[2].abs().max() > 0


def test_without_any_positive_the_loss_is_zero_and_so_is_its_gradient(features):
    embeddings = features(4, 1, 3).requires_grad_()
    loss = losses["supcon"]().build(COUNTS, 4)(embeddings, torch.arange(4))
    loss.backward()
    assert loss.item() == 0.0
    assert embeddings.grad.abs().max() == 0.0


def test_simclr_does_not_read_the_labels(features):
    embeddings = features(8, 2, 4)
    assert loss_of("simclr", embeddings, LABELS, 0.5) == loss_of("simclr", embeddings, LABELS.flip(0), 0.5)


@settings(max_examples=25, deadline=None)
@given(
    labels=st.lists(st.integers(0, 3), min_size=2, max_size=7),
    num_views=st.integers(2, 3),
    temperature=st.sampled_from([0.05, 0.1, 1.0]),
)
def test_the_training_loss_has_the_value_and_gradient_of_the_formula(labels, num_views, temperature):
    random = torch.Generator().manual_seed(len(labels))
    values = F.normalize(torch.randn(len(labels), num_views, 5, generator=random, dtype=torch.float64), dim=2)
    for name, keys in (("supcon", torch.tensor(labels)), ("simclr", torch.arange(len(labels)))):
        both = [values.clone().requires_grad_() for _ in range(2)]
        trained = losses[name](temperature=temperature).build(COUNTS, 5)(both[0], torch.tensor(labels))
        written = contrastive_formula(both[1], keys, temperature)
        assert trained.item() == pytest.approx(written.item(), rel=1e-10, abs=1e-10)
        trained.backward()
        written.backward()
        torch.testing.assert_close(both[0].grad, both[1].grad, rtol=1e-8, atol=1e-10)
