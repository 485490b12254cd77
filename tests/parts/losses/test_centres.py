"""BCL and PaCo against their formulas in plain loops, and against the published number and identity."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from raysk.parts.losses import losses

LABELS = [0, 0, 0, 1, 1, 2, 2, 2]
COUNTS = torch.tensor([30, 5, 1])
PACO = {"alpha": 0.3, "beta": 0.7, "gamma": 0.4, "supt": 0.6, "temperature": 0.2}


def loss_of(name, embeddings, labels, centres, **settings):
    module = losses[name](**settings).build(COUNTS, embeddings.shape[2])
    module.centres.data = centres
    return module(embeddings, torch.tensor(labels)).item()


def dot(first, second):
    return sum(a * b for a, b in zip(first, second, strict=True))


def bcl_in_loops(embeddings, labels, centres, temperature):
    """The members of a class are its views, then its centre."""
    num_views = embeddings.shape[1]
    members = [[] for _ in centres]
    for image, label in zip(embeddings.tolist(), labels, strict=True):
        members[label] += image
    for of_class, centre in zip(members, centres.tolist(), strict=True):
        of_class.append([value / math.sqrt(dot(centre, centre)) for value in centre])
    total = 0.0
    for label, of_class in enumerate(members):
        for number, anchor in enumerate(of_class[:-1]):
            denominator = 0.0
            for other, of_other in enumerate(members):
                rest = [a for j, a in enumerate(of_other) if (other, j) != (label, number)]
                denominator += sum(math.exp(dot(anchor, a) / temperature) for a in rest) / len(rest)
            positives = [p for j, p in enumerate(of_class) if j != number]
            logs = [dot(anchor, p) / temperature - math.log(denominator) for p in positives]
            total -= sum(logs) / len(logs)
    return total / (len(labels) * num_views)


def paco_in_loops(embeddings, labels, centres, alpha, beta, gamma, supt, temperature):
    views = [(view, label) for image, label in zip(embeddings.tolist(), labels, strict=True) for view in image]
    shares = (COUNTS / COUNTS.sum()).tolist()
    total = 0.0
    for i, (anchor, label) in enumerate(views):
        logits = [(dot(anchor, c) + math.log(pi)) / supt for c, pi in zip(centres.tolist(), shares, strict=True)]
        scores = [dot(anchor, other) / temperature for other, _ in views]
        others = [j for j in range(len(views)) if j != i]
        denominator = sum(math.exp(z) for z in logits) + gamma * sum(math.exp(scores[j]) for j in others)
        positives = [scores[j] for j in others if views[j][1] == label]
        weighted = beta * (logits[label] - math.log(denominator))
        weighted += alpha * sum(score - math.log(denominator) for score in positives)
        total -= weighted / (beta + alpha * len(positives))
    return total / len(views)


def test_published_number_of_bcl(features):
    actual = loss_of("bcl", features(8, 2, 4), LABELS, features(3, 1, 4)[:, 0], temperature=0.1)
    assert actual == pytest.approx(7.786118975, abs=1e-9)


@settings(max_examples=20, deadline=None)
@given(labels=st.lists(st.integers(0, 2), min_size=1, max_size=5), num_views=st.integers(1, 3), seed=st.integers(0, 99))
def test_both_are_their_formula(labels, num_views, seed):
    random = np.random.default_rng(seed)
    embeddings = F.normalize(torch.from_numpy(random.normal(size=(len(labels), num_views, 4))), dim=2)
    centres = torch.from_numpy(random.normal(size=(3, 4)))
    expected = bcl_in_loops(embeddings, labels, centres, 0.2)
    assert loss_of("bcl", embeddings, labels, centres, temperature=0.2) == pytest.approx(expected, rel=1e-6)
    expected = paco_in_loops(embeddings, labels, centres, **PACO)
    assert loss_of("paco", embeddings, labels, centres, **PACO) == pytest.approx(expected, rel=1e-6)


def test_paco_without_its_views_is_balanced_softmax(features):
    embeddings, centres = features(8, 2, 4), 3 * features(3, 1, 4)[:, 0]
    logits = embeddings.flatten(0, 1) @ centres.T
    expected = losses["balanced_softmax"]().build(COUNTS)(logits, torch.tensor(LABELS).repeat_interleave(2)).item()
    actual = loss_of("paco", embeddings, LABELS, centres, alpha=0, gamma=0, beta=1, supt=1)
    assert actual == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", ["bcl", "paco"])
def test_the_gradient_of_the_centres_is_the_slope(features, name):
    module = losses[name]().build(COUNTS, 4).double()
    embeddings, labels = features(4, 2, 4).requires_grad_(), torch.tensor([0, 0, 1, 2])

    def loss(embeddings, centres):
        return torch.func.functional_call(module, {"centres": centres}, (embeddings, labels))

    assert torch.autograd.gradcheck(loss, (embeddings, module.centres))


@pytest.mark.parametrize("name", ["bcl", "paco"])
def test_every_centre_learns_from_a_batch_that_lacks_its_class(features, name):
    module = losses[name]().build(COUNTS, 4)
    module(features(3, 2, 4), torch.tensor([0, 0, 1])).backward()
    assert (module.centres.grad.abs().amax(dim=1) > 0).all()
    assert torch.isfinite(module.centres.grad).all()


@pytest.mark.parametrize("name", ["bcl", "paco"])
def test_centres_are_the_same_on_every_worker(name):
    torch.manual_seed(1)
    first = losses[name]().build(COUNTS, 4)
    torch.manual_seed(2)
    second = losses[name]().build(COUNTS, 4)
    assert torch.equal(first.centres, second.centres)
    assert first.centres.requires_grad
    torch.testing.assert_close(first.centres.norm(dim=1), torch.ones(3))
