"""GraVIS against its formula in plain loops, and against the published numbers."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from raysk.parts.losses import losses


def loss_of(embeddings, temperature):
    counts, labels = torch.ones(2), torch.zeros(len(embeddings), dtype=torch.long)
    return losses["gravis"](temperature=temperature).build(counts, embeddings.shape[2])(embeddings, labels)


def gravis_in_loops(embeddings, temperature):
    num_views = embeddings.shape[1]
    views = embeddings.flatten(0, 1).tolist()

    def rank(scores, i, among):
        above = 0.0
        for j in among:
            if j != i:
                exponent = (scores[j] - scores[i]) / temperature
                above += 1 / (1 + math.exp(-min(max(exponent, -50.0), 50.0)))
        return 1 + above

    total = 0.0
    for q, query in enumerate(views):
        scores = [sum(a * b for a, b in zip(query, other, strict=True)) for other in views]
        group = [i for i in range(len(views)) if i // num_views == q // num_views]
        total += sum(rank(scores, i, group) / rank(scores, i, range(len(views))) for i in group) / len(group)
    return 1 - total / len(views)


@pytest.mark.parametrize(("temperature", "expected"), [(0.2, 0.469139000), (0.01, 0.402269061)])
def test_published_numbers(features, temperature, expected):
    groups = features(12, 1, 5).view(4, 3, 5)
    assert loss_of(groups, temperature).item() == pytest.approx(expected, abs=1e-9)


def test_equal_views_rank_by_chance():
    equal = F.normalize(torch.ones(4, 3, 5, dtype=torch.float64), dim=2)
    assert loss_of(equal, 0.2).item() == pytest.approx(9 / 13, abs=1e-9)


def test_separated_images_have_no_loss():
    separated = torch.eye(4, dtype=torch.float64)[:, None].expand(4, 3, 4)
    assert loss_of(separated, 0.01).item() == pytest.approx(0, abs=1e-12)


@settings(max_examples=15, deadline=None)
@given(
    num_images=st.integers(1, 5),
    num_views=st.integers(1, 3),
    temperature=st.sampled_from([0.01, 0.2, 2.0]),
    seed=st.integers(0, 99),
)
def test_it_is_its_formula(num_images, num_views, temperature, seed):
    values = np.random.default_rng(seed).normal(size=(num_images, num_views, 4))
    embeddings = F.normalize(torch.from_numpy(values), dim=2)
    assert loss_of(embeddings, temperature).item() == pytest.approx(gravis_in_loops(embeddings, temperature), abs=1e-12)


MEMORY = """
import resource, sys, torch
from raysk.parts.losses import losses

def step(num_images, num_views):
    embeddings = torch.nn.functional.normalize(torch.randn(num_images, num_views, 128), dim=2).requires_grad_()
    loss = losses["gravis"]().build(torch.ones(2), 128)(embeddings, torch.zeros(num_images, dtype=torch.long))
    loss.backward()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

before = step(2, 2)
print((step(64, 16) - before) / (2**20 if sys.platform == "linux" else 2**30))
"""


def test_a_step_of_1024_embeddings_takes_less_than_a_gibibyte():
    """All triples of query, item and other at once would take 1024^3 numbers, 4 GiB, several times."""
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 1
