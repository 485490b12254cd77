"""The regions of a box and the loss of attention, against the published numbers and loops."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import interpolate

from raysk.parts.attention import at_map_size, attention_loss, attention_map, box_regions, region_weights

BOX = torch.tensor([[60, 120, 80, 160]])  # rows 60 to 119, columns 80 to 159


def region_masks(boxes, height, width):
    return region_weights(box_regions(boxes, height, width))


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


def test_a_region_may_have_any_form():
    """A box that a view has turned is a parallelogram."""
    regions = torch.eye(9, dtype=torch.bool)[None] | torch.eye(9, dtype=torch.bool)[None].roll(1, 2)
    inside, outside = region_weights(regions)
    assert inside[regions].unique().tolist() == pytest.approx([1 / 18])
    assert outside[~regions].unique().tolist() == pytest.approx([1 / 63])


def test_the_outside_counts_by_its_distance_from_the_box():
    regions = box_regions(torch.tensor([[2, 5, 3, 6]]), 8, 8)
    _, outside = region_weights(regions, distance=0.25)
    expected = np.zeros((8, 8))
    for row in range(8):
        for column in range(8):
            down, across = max(2 - row, row - 4, 0), max(3 - column, column - 5, 0)
            expected[row, column] = 1 - np.exp(-((down / 8) ** 2 + (across / 8) ** 2) / 0.25**2)
    np.testing.assert_allclose(outside[0], expected / expected.sum(), atol=1e-7)


@settings(max_examples=30, deadline=None)
@given(height=st.integers(1, 7), width=st.integers(1, 7), side=st.integers(7, 48), seed=st.integers(0, 99))
def test_weights_at_the_size_of_the_map_give_the_sum_with_the_scaled_map(height, width, side, seed):
    random = torch.Generator().manual_seed(seed)
    maps = torch.rand((2, height, width), generator=random)
    weights = torch.rand((2, side, side + 1), generator=random)
    scaled = interpolate(maps[:, None], size=(side, side + 1), mode="bilinear", align_corners=False)[:, 0]
    small = at_map_size(weights, height, width)
    torch.testing.assert_close((small * maps).sum(dim=(1, 2)), (weights * scaled).sum(dim=(1, 2)), rtol=1e-4, atol=1e-4)


def test_a_map_lies_between_nought_and_one_and_a_flat_one_is_nought():
    maps = torch.tensor([[[[1.0, 3.0]], [[0.0, 2.0]]], [[[5.0, 5.0]], [[1.0, 1.0]]]], requires_grad=True)
    alphas = torch.tensor([[1.0, -2.0], [1.0, 1.0]])
    attention = attention_map(maps, alphas)
    assert attention.tolist() == [[[1.0, 0.0]], [[0.0, 0.0]]]
    attention.sum().backward()
    assert torch.isfinite(maps.grad).all()
    assert torch.count_nonzero(maps.grad[1]) == 0
