"""TSC against its formula in plain loops; its targets, and their assignment to classes."""

import math
from itertools import permutations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from raysk.parts.losses import losses
from raysk.parts.losses.targets import spread_targets

COUNTS = torch.tensor([6, 1, 2])


def dot(first, second):
    return sum(a * b for a, b in zip(first, second, strict=True))


def tsc_in_loops(embeddings, labels, targets, positives, temperature, weight):
    num_views = embeddings.shape[1]
    views, places = embeddings.flatten(0, 1).tolist(), targets.tolist()
    among_views, to_targets = [], []
    for i, anchor in enumerate(views):
        scores = [dot(anchor, other) / temperature for other in views]
        pulls = [dot(anchor, place) / temperature for place in places]
        total = sum(math.exp(score) for j, score in enumerate(scores) if j != i) + sum(math.exp(z) for z in pulls)
        label = labels[i // num_views]
        to_targets.append(math.log(total) - pulls[label])
        siblings = [scores[j] for j in range(len(views)) if j // num_views == i // num_views and j != i]
        others = [
            scores[j] for j in range(len(views)) if j // num_views != i // num_views and labels[j // num_views] == label
        ]
        drawn = min(positives, len(others))
        if siblings or others:
            mean = (sum(siblings) + (drawn / len(others) * sum(others) if others else 0)) / (len(siblings) + drawn)
            among_views.append(math.log(total) - mean)
    first = sum(among_views) / len(among_views) if among_views else 0.0
    return first + weight * sum(to_targets) / len(to_targets)


@settings(max_examples=20, deadline=None)
@given(labels=st.lists(st.integers(0, 2), min_size=1, max_size=6), num_views=st.integers(1, 3), seed=st.integers(0, 99))
def test_tsc_is_its_formula(labels, num_views, seed):
    values = np.random.default_rng(seed).normal(size=(len(labels), num_views, 4))
    embeddings = F.normalize(torch.from_numpy(values), dim=2)
    chosen = {"positives": 2, "temperature": 0.2, "weight": 0.6}
    module = losses["tsc"](**chosen).build(COUNTS, 4)
    expected = tsc_in_loops(embeddings, labels, module.targets, **chosen)
    assert module(embeddings, torch.tensor(labels)).item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("num_classes", "width"), [(2, 1), (2, 8), (4, 3), (7, 16), (5, 4)])
def test_few_targets_are_a_simplex(num_classes, width):
    targets = spread_targets(num_classes, width)
    expected = torch.full((num_classes, num_classes), -1 / (num_classes - 1), dtype=torch.float64).fill_diagonal_(1)
    torch.testing.assert_close(targets @ targets.T, expected)
    assert targets.shape == (num_classes, width)


# The optima: regular polygons, the octahedron and the icosahedron.
@pytest.mark.parametrize(
    ("num_classes", "width", "closest"),
    [(6, 2, math.cos(math.pi / 3)), (9, 2, math.cos(2 * math.pi / 9)), (6, 3, 0.0), (12, 3, 1 / math.sqrt(5))],
)
def test_many_targets_are_as_far_apart_as_possible(num_classes, width, closest):
    targets = spread_targets(num_classes, width)
    torch.testing.assert_close(targets.norm(dim=1), torch.ones(num_classes, dtype=torch.float64))
    assert (targets @ targets.T).fill_diagonal_(-1).max().item() == pytest.approx(closest, abs=0.01)
    assert torch.equal(targets, spread_targets(num_classes, width))


def test_targets_are_assigned_to_the_closest_classes():
    module = losses["tsc"]().build(torch.ones(5), 4)
    module.means.copy_(torch.randn(5, 4, generator=torch.Generator().manual_seed(0)))
    closeness = module.means @ module.targets.T
    module.begin_epoch(0.5)
    best = max(permutations(range(5)), key=lambda order: sum(closeness[k, j].item() for k, j in enumerate(order)))
    assert tuple(module.target_of_class.tolist()) == best
    assert best != tuple(range(5))


def test_the_loss_changes_between_epochs_only(features):
    embeddings, labels = features(6, 2, 4), torch.tensor([0, 0, 1, 1, 2, 2])
    module = losses["tsc"](momentum=0).build(COUNTS, 4)
    first = module(embeddings, labels)
    # Each class is at the target of the next.
    module(module.targets[[1, 2, 0]][labels][:, None].expand(6, 2, 4), labels)
    assert module.eval()(embeddings, labels) == first
    module.begin_epoch(0.1)
    assert module.target_of_class.tolist() == [1, 2, 0]
    assert module(embeddings, labels) != first


def test_class_means_follow_the_batches_in_training_only(features):
    embeddings, labels = features(4, 2, 4), torch.tensor([0, 0, 2, 2])
    module = losses["tsc"](momentum=0.9).build(COUNTS, 4)
    module(embeddings, labels)
    mean = F.normalize(embeddings[:2].mean(dim=(0, 1)), dim=0)
    torch.testing.assert_close(module.means[0], mean)
    assert module.means[1].tolist() == [0, 0, 0, 0]  # never seen

    other = F.normalize(embeddings[2:].mean(dim=(0, 1)), dim=0)
    kept = module.means[2].clone()
    module(embeddings.flip(0), torch.tensor([0, 0, 0, 0])[:2].repeat(2)[:4])
    assert torch.equal(module.means[2], kept)
    whole = F.normalize(embeddings.mean(dim=(0, 1)), dim=0)
    torch.testing.assert_close(module.means[0], F.normalize(0.9 * mean + 0.1 * whole, dim=0))
    torch.testing.assert_close(kept, other)

    before = module.means.clone()
    module.eval()(embeddings, labels)
    assert torch.equal(module.means, before)


def test_a_checkpoint_keeps_means_and_assignment_but_not_targets():
    module = losses["tsc"]().build(COUNTS, 4)
    assert set(module.state_dict()) == {"means", "target_of_class"}
