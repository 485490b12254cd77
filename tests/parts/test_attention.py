"""The regions of a box and the loss of attention, against the published numbers and loops."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from raysk.parts.attention import attention_loss, region_masks

BOX = torch.tensor([[60, 120, 80, 160]])  # rows 60 to 119, columns 80 to 159


def loss_in_loops(attention, box, threshold):
    top, bottom, left, right = box
    inside, outside = [], []
    for i, row in enumerate(attention.tolist()):
        for j, value in enumerate(row):
            (inside if top <= i < bottom and left <= j < right else outside).append(value)
    means = [sum(values) / len(values) if values else 0.0 for values in (inside, outside)]
    return -min(means[0], threshold) + means[1]


def test_published_weights():
    inside, outside = region_masks(BOX, 224, 224)
    assert inside[0, 60:120, 80:160].unique().tolist() == pytest.approx([1 / 4800])
    assert torch.count_nonzero(inside) == 4800
    assert outside[outside > 0].unique().tolist() == pytest.approx([1 / 45376])
    assert torch.count_nonzero(outside) == 45376


@pytest.mark.parametrize(
    ("within", "beyond", "expected"), [(1.0, 0.0, -0.5), (1.0, 1.0, 0.5), (0.0, 0.0, 0.0), (0.0, 1.0, 1.0)]
)
def test_published_losses(within, beyond, expected):
    attention = torch.full((1, 224, 224), beyond)
    attention[:, 60:120, 80:160] = within
    assert attention_loss(attention, *region_masks(BOX, 224, 224)).tolist() == pytest.approx([expected], abs=1e-5)


boxes = st.tuples(st.integers(-2, 6), st.integers(1, 9), st.integers(-2, 8), st.integers(1, 11))


@settings(max_examples=30, deadline=None)
@given(boxes=st.lists(boxes, min_size=1, max_size=3), seed=st.integers(0, 99), threshold=st.sampled_from([0.2, 0.5, 1]))
def test_the_loss_is_its_formula_for_every_box(boxes, seed, threshold):
    """Boxes reach beyond the image of 7 by 9, cover all of it, or are empty."""
    attention = torch.from_numpy(np.random.default_rng(seed).random((len(boxes), 7, 9)))
    inside, outside = region_masks(torch.tensor(boxes), 7, 9)
    expected = [loss_in_loops(image, box, threshold) for image, box in zip(attention, boxes, strict=True)]
    assert attention_loss(attention, inside, outside, threshold).tolist() == pytest.approx(expected, abs=1e-6)
    assert not torch.any((inside > 0) & (outside > 0))
    for weights in (inside, outside):
        total = weights.sum(dim=(1, 2))
        assert torch.all(torch.isclose(total, torch.ones(())) | (total == 0))


def test_above_the_threshold_only_the_outside_has_a_gradient():
    attention = torch.full((1, 224, 224), 0.6, requires_grad=True)
    inside, outside = region_masks(BOX, 224, 224)
    attention_loss(attention, inside, outside).sum().backward()
    assert torch.equal(attention.grad, outside)
