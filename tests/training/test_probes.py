"""Probes against their formulas in plain loops, and on features whose classes are known."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from raysk.training.probes import ProbedRows, class_mean_probe, linear_probe, neighbour_probe

PROBES = [class_mean_probe, linear_probe, neighbour_probe]


def rows_of(num_classes, per_class, width, spread, seed=0):
    """Returns rows around a random centre of each class; class k has k fewer rows than class 0."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(num_classes, width))
    labels = [np.repeat(np.arange(num_classes), np.maximum(1, n - np.arange(num_classes))) for n in (per_class, 7)]
    features = [torch.from_numpy(centres[of] + spread * random.normal(size=(len(of), width))) for of in labels]
    return ProbedRows(features[0], torch.from_numpy(labels[0]), features[1], labels[1], num_classes)


@pytest.mark.parametrize("probe", PROBES)
@pytest.mark.parametrize("width", [4, 200])
def test_separate_classes_score_one_and_noise_scores_little(probe, width):
    assert probe(rows_of(4, 20, width, 0.05)) == 1.0
    noise = rows_of(4, 20, width, 0.05)
    shuffled = np.random.default_rng(0).permutation(noise.held_out_labels)
    assert probe(ProbedRows(noise.train, noise.train_labels, noise.held_out, shuffled, 4)) < 0.5


@pytest.mark.parametrize("probe", PROBES)
def test_equal_features_predict_one_class(probe):
    rows = rows_of(3, 9, 5, 1.0)
    same = ProbedRows(
        torch.ones_like(rows.train), rows.train_labels, torch.ones_like(rows.held_out), rows.held_out_labels, 3
    )
    shares = np.bincount(rows.held_out_labels) / len(rows.held_out_labels)
    assert any(probe(same) == pytest.approx(2 * share / (1 + share) / 3) for share in shares)


@settings(max_examples=10, deadline=None)
@given(num_classes=st.integers(2, 4), width=st.sampled_from([3, 40]), seed=st.integers(0, 99))
def test_the_linear_probe_minimises_its_sum_of_squares(num_classes, width, seed):
    """Against gradient steps on the formula, in double precision."""
    rows = rows_of(num_classes, 9, width, 1.0, seed)
    counts = torch.bincount(rows.train_labels)
    weights = torch.tensor([1 / (num_classes * counts[label].item()) for label in rows.train_labels]).double()
    targets = torch.eye(num_classes).double()[rows.train_labels]
    x = rows.train - sum(w * row for w, row in zip(weights, rows.train, strict=True))
    y = targets - 1 / num_classes
    variances = sum(w * row.square().sum() for w, row in zip(weights, x, strict=True))
    penalty = 0.1 * variances / min(x.shape)
    stacked = torch.cat([weights.sqrt()[:, None] * x, penalty.sqrt() * torch.eye(width).double()])
    wanted = torch.cat([weights.sqrt()[:, None] * y, torch.zeros(width, num_classes).double()])
    solution = torch.linalg.lstsq(stacked, wanted).solution
    mean = rows.train - x
    predicted = ((rows.held_out - mean[0]) @ solution).argmax(dim=1).numpy()
    assert linear_probe(rows) == pytest.approx(f1_score(rows.held_out_labels, predicted, average="macro"))


@settings(max_examples=10, deadline=None)
@given(num_classes=st.integers(2, 4), per_class=st.integers(2, 9), seed=st.integers(0, 99))
def test_the_neighbour_probe_is_a_weighted_vote(num_classes, per_class, seed):
    rows = rows_of(num_classes, per_class, 5, 1.0, seed)
    predicted = []
    for query in rows.held_out.tolist():
        cosines = [
            sum(a * b for a, b in zip(query, other, strict=True)) / (math.hypot(*query) * math.hypot(*other))
            for other in rows.train.tolist()
        ]
        votes = [0.0] * num_classes
        for place in sorted(range(len(cosines)), key=lambda place: -cosines[place])[:10]:
            votes[rows.train_labels[place]] += math.exp(cosines[place] / 0.07)
        predicted.append(votes.index(max(votes)))
    assert neighbour_probe(rows) == pytest.approx(f1_score(rows.held_out_labels, predicted, average="macro"))


def test_a_class_weighs_the_same_however_many_rows_it_has():
    """A linear classifier without the weights would give the border between two classes to the larger one."""
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1], [300, 10])
    train = torch.from_numpy(labels[:, None] * 2.0 + random.normal(size=(310, 1)))
    held_out_labels = np.repeat([0, 1], 500)
    held_out = torch.from_numpy(held_out_labels[:, None] * 2.0 + random.normal(size=(1000, 1)))
    assert linear_probe(ProbedRows(train, torch.from_numpy(labels), held_out, held_out_labels, 2)) > 0.8
