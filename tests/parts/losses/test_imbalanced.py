"""KCL against the mean over all its draws, and supervised minority against its formula."""

import math
from itertools import combinations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from raysk.parts.losses import losses

COUNTS = torch.tensor([6, 1, 2])
LABELS = [0, 0, 0, 1, 0, 2, 2]


def loss_of(name, embeddings, labels, counts=COUNTS, **settings):
    return losses[name](**settings).build(counts, embeddings.shape[2])(embeddings, torch.tensor(labels)).item()


def log_shares(embeddings, temperature):
    """Returns the logarithms of the softmax over the other views, for each view; -inf for the view itself."""
    views = embeddings.flatten(0, 1).tolist()
    if len(views) == 1:
        return [[-math.inf]]
    rows = []
    for i, anchor in enumerate(views):
        scores = [sum(a * b for a, b in zip(anchor, other, strict=True)) / temperature for other in views]
        log_denominator = math.log(sum(math.exp(score) for j, score in enumerate(scores) if j != i))
        rows.append([score - log_denominator if j != i else -math.inf for j, score in enumerate(scores)])
    return rows


def kcl_over_all_draws(embeddings, labels, positives, temperature):
    """Returns the mean over all draws of the loss with k drawn positives."""
    num_views = embeddings.shape[1]
    shares = log_shares(embeddings, temperature)
    image = [i // num_views for i in range(len(shares))]
    means = []
    for i, row in enumerate(shares):
        siblings = [j for j in range(len(row)) if image[j] == image[i] and j != i]
        others = [j for j in range(len(row)) if image[j] != image[i] and labels[image[j]] == labels[image[i]]]
        draws = [[*siblings, *drawn] for drawn in combinations(others, min(positives, len(others)))]
        if draws[0]:
            of_draws = [-sum(row[j] for j in draw) / len(draw) for draw in draws]
            means.append(sum(of_draws) / len(of_draws))
    return sum(means) / len(means) if means else 0.0


@settings(max_examples=20, deadline=None)
@given(
    labels=st.lists(st.integers(0, 2), min_size=1, max_size=5),
    num_views=st.integers(1, 2),
    positives=st.integers(1, 4),
    temperature=st.sampled_from([0.07, 0.5]),
    seed=st.integers(0, 99),
)
def test_kcl_is_the_mean_over_all_draws(labels, num_views, positives, temperature, seed):
    values = np.random.default_rng(seed).normal(size=(len(labels), num_views, 4))
    embeddings = F.normalize(torch.from_numpy(values), dim=2)
    expected = kcl_over_all_draws(embeddings, labels, positives, temperature)
    actual = loss_of("kcl", embeddings, labels, positives=positives, temperature=temperature)
    assert actual == pytest.approx(expected, abs=1e-9)


def test_the_mean_of_many_random_draws_approaches_kcl(features):
    random = np.random.default_rng(0)
    embeddings = features(len(LABELS), 2, 4)
    shares = log_shares(embeddings, 0.5)
    expected = loss_of("kcl", embeddings, LABELS, positives=2, temperature=0.5)
    totals = []
    for _ in range(2000):
        total = 0.0
        for i, row in enumerate(shares):
            sibling = i + 1 if i % 2 == 0 else i - 1
            others = [j for j in range(14) if j // 2 != i // 2 and LABELS[j // 2] == LABELS[i // 2]]
            drawn = random.choice(others, min(2, len(others)), replace=False).tolist() if others else []
            total -= sum(row[j] for j in [sibling, *drawn]) / (1 + len(drawn))
        totals.append(total / len(shares))
    standard_error = np.std(totals) / math.sqrt(len(totals))
    assert standard_error < 0.01
    assert np.mean(totals) == pytest.approx(expected, abs=4 * standard_error)


def test_kcl_with_all_positives_is_supcon(features):
    embeddings = features(7, 2, 4)
    many = loss_of("kcl", embeddings, LABELS, positives=6, temperature=0.07)
    assert many == loss_of("supcon", embeddings, LABELS, temperature=0.07)
    assert many != pytest.approx(loss_of("kcl", embeddings, LABELS, positives=5, temperature=0.07), rel=1e-3)


def supmin_in_loops(embeddings, labels, small, temperature):
    num_views = embeddings.shape[1]
    shares = log_shares(embeddings, temperature)
    terms = []
    for i, row in enumerate(shares):
        label = labels[i // num_views]
        positives = [
            j
            for j in range(len(row))
            if j != i and (j // num_views == i // num_views or (label in small and labels[j // num_views] == label))
        ]
        if positives:
            terms.append(-sum(row[j] for j in positives) / len(positives))
    return sum(terms) / len(terms) if terms else 0.0


@settings(max_examples=20, deadline=None)
@given(labels=st.lists(st.integers(0, 2), min_size=1, max_size=6), num_views=st.integers(1, 3), seed=st.integers(0, 99))
def test_supmin_is_its_formula(labels, num_views, seed):
    values = np.random.default_rng(seed).normal(size=(len(labels), num_views, 4))
    embeddings = F.normalize(torch.from_numpy(values), dim=2)
    expected = supmin_in_loops(embeddings, labels, {1, 2}, 0.2)
    assert loss_of("supmin", embeddings, labels, temperature=0.2) == pytest.approx(expected, abs=1e-9)


def test_supmin_of_two_classes_has_label_positives_for_the_smaller_one_only(features):
    labels = [0, 0, 0, 1, 1]
    embeddings = features(5, 2, 4)
    expected = supmin_in_loops(embeddings, labels, {1}, 0.07)
    assert loss_of("supmin", embeddings, labels, torch.tensor([982, 18])) == pytest.approx(expected, rel=1e-12)


def test_supmin_of_equal_classes_is_simclr(features):
    embeddings = features(7, 2, 4)
    equal = loss_of("supmin", embeddings, LABELS, torch.tensor([5, 5, 5]), temperature=0.5)
    assert equal == loss_of("simclr", embeddings, LABELS, temperature=0.5)
