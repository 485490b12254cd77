"""Triplets, contrastive pairs and n-pair against their formulas in plain loops, and against the published numbers."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from raysk.parts.losses import losses

NAMES = ["batch_hard", "centre_triplet", "pairs", "npair"]
COUNTS = torch.tensor([3, 3, 3])


def module_of(name, width, **settings):
    return losses[name](**settings).build(COUNTS, width)


def loss_of(name, embeddings, labels, **settings):
    return module_of(name, embeddings.shape[2], **settings)(embeddings, torch.tensor(labels)).item()


def distance(first, second):
    return math.sqrt(sum((a - b) ** 2 for a, b in zip(first, second, strict=True)))


def views_of(embeddings, labels):
    return [(view, label) for image, label in zip(embeddings.tolist(), labels, strict=True) for view in image]


def mean(values):
    return sum(values) / len(values) if values else 0.0


def batch_hard_in_loops(embeddings, labels, margin, soft):
    views, terms = views_of(embeddings, labels), []
    for a, (anchor, label) in enumerate(views):
        positives = [distance(anchor, z) for p, (z, other) in enumerate(views) if other == label and p != a]
        negatives = [distance(anchor, z) for z, other in views if other != label]
        if positives and negatives:
            gap = max(positives) - min(negatives)
            terms.append(math.log1p(math.exp(gap)) if soft else max(0.0, gap + margin))
    return mean(terms)


def centre_triplet_in_loops(embeddings, labels, margin):
    views = views_of(embeddings, labels)
    centres = {}
    for label in set(labels):
        members = [z for z, other in views if other == label]
        centres[label] = [mean(values) for values in zip(*members, strict=True)]
    if len(centres) == 1:
        return 0.0
    terms = []
    for z, label in views:
        others = [distance(z, centre) for other, centre in centres.items() if other != label]
        terms.append(max(0.0, distance(z, centres[label]) - min(others) + margin))
    return mean(terms)


def pairs_in_loops(embeddings, labels, margin):
    views, positives, negatives = views_of(embeddings, labels), [], []
    for i, (view, label) in enumerate(views):
        for other, other_label in views[i + 1 :]:
            if label == other_label:
                positives.append(distance(view, other) ** 2 / 2)
            else:
                negatives.append(max(0.0, margin - distance(view, other)) ** 2 / 2)
    return mean(positives) + mean(negatives)


def npair_in_loops(embeddings, labels, temperature):
    views, terms = views_of(embeddings, labels), []
    for a, (anchor, label) in enumerate(views):
        scores = [sum(x * y for x, y in zip(anchor, z, strict=True)) / temperature for z, _ in views]
        positives = [scores[p] for p, (_, other) in enumerate(views) if other == label and p != a]
        negatives = [scores[n] for n, (_, other) in enumerate(views) if other != label]
        if positives and negatives:
            total = sum(math.exp(score) for score in negatives)
            terms.append(mean([math.log(math.exp(score) + total) - score for score in positives]))
    return mean(terms)


@pytest.mark.parametrize(("soft", "expected"), [(False, 1.242701914510), (True, 1.280617434803)])
def test_published_numbers_of_batch_hard(features, soft, expected):
    labels = [i % 3 for i in range(9)]
    actual = loss_of("batch_hard", features(9, 1, 3), labels, margin=0.3, soft=soft)
    assert actual == pytest.approx(expected, abs=1e-11)


@settings(max_examples=25, deadline=None)
@given(labels=st.lists(st.integers(0, 2), min_size=1, max_size=6), num_views=st.integers(1, 3), seed=st.integers(0, 99))
def test_each_is_its_formula(labels, num_views, seed):
    values = np.random.default_rng(seed).normal(size=(len(labels), num_views, 3))
    embeddings = F.normalize(torch.from_numpy(values), dim=2)
    for expected, name, chosen in [
        (batch_hard_in_loops(embeddings, labels, 0.2, False), "batch_hard", {"margin": 0.2}),
        (batch_hard_in_loops(embeddings, labels, 0.2, True), "batch_hard", {"soft": True}),
        (centre_triplet_in_loops(embeddings, labels, 0.7), "centre_triplet", {"margin": 0.7}),
        (pairs_in_loops(embeddings, labels, 1.3), "pairs", {"margin": 1.3}),
        (npair_in_loops(embeddings, labels, 0.2), "npair", {"temperature": 0.2}),
    ]:
        assert loss_of(name, embeddings, labels, **chosen) == pytest.approx(expected, abs=1e-9), name


@pytest.mark.parametrize("name", ["batch_hard", "centre_triplet"])
def test_the_triplets_of_equal_embeddings_give_the_margin(name):
    equal = F.normalize(torch.ones(6, 2, 3), dim=2).requires_grad_()
    loss = module_of(name, 3, margin=0.3)(equal, torch.tensor([0, 0, 1, 1, 2, 2]))
    loss.backward()
    assert loss.item() == pytest.approx(0.3, abs=1e-6)
    assert torch.isfinite(equal.grad).all()


@pytest.mark.parametrize("name", ["batch_hard", "centre_triplet", "npair"])
def test_a_batch_of_one_class_has_no_loss_and_no_gradient(features, name):
    embeddings = features(4, 2, 3).requires_grad_()
    loss = module_of(name, 3)(embeddings, torch.tensor([1, 1, 1, 1]))
    loss.backward()
    assert loss.item() == 0
    assert embeddings.grad.abs().max() == 0


@pytest.mark.parametrize("name", ["batch_hard", "npair"])
def test_an_anchor_without_positives_is_a_negative_to_the_others(features, name):
    embeddings = features(3, 1, 4).requires_grad_()
    module_of(name, 4)(embeddings, torch.tensor([0, 0, 1])).backward()
    assert embeddings.grad[2].abs().max() > 0


@pytest.mark.parametrize("name", NAMES)
def test_a_rotation_of_all_embeddings_changes_nothing(features, name):
    rotation, _ = torch.linalg.qr(features(4, 1, 4).squeeze(1))
    labels = [0, 0, 0, 1, 1, 2, 2, 2]
    expected = loss_of(name, features(8, 2, 4), labels)
    assert loss_of(name, features(8, 2, 4) @ rotation, labels) == pytest.approx(expected, rel=1e-12)


def test_nearly_equal_pairs_have_a_bounded_gradient():
    """In single precision |a|^2 + |b|^2 - 2 a.b has no correct digit here, and the root has a huge slope."""
    base = F.normalize(torch.randn(1, 1, 64, generator=torch.Generator().manual_seed(0)), dim=2)
    noise = 1e-5 * torch.randn(6, 2, 64, generator=torch.Generator().manual_seed(1))
    embeddings = F.normalize(base + noise, dim=2).requires_grad_()
    module_of("pairs", 64)(embeddings, torch.tensor([0, 0, 1, 1, 2, 2])).backward()
    assert embeddings.grad.norm(dim=2).max() < 1
