"""Scaling by matrices is bilinear interpolation."""

import pytest
import torch
from torch.nn import functional

from raysk.parts.scaling import scaled


def test_training_uses_what_a_prediction_made():
    with torch.inference_mode():
        scaled(torch.zeros(1, 1, 7, 7), 13)
    maps = torch.randn(1, 1, 7, 7, requires_grad=True)
    scaled(maps, 13).sum().backward()
    assert maps.grad.abs().max() > 0


@pytest.mark.parametrize(("small", "large"), [(1, 2), (2, 3), (6, 12), (5, 16), (24, 24)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_maps_and_gradients_are_those_of_torch(small, large, layout):
    torch.manual_seed(0)
    maps = torch.randn(2, 3, small, small).to(memory_format=layout).requires_grad_()
    weights = torch.randn(2, 3, large, large)
    expected = functional.interpolate(maps, (large, large), mode="bilinear", align_corners=False)
    (gradient,) = torch.autograd.grad((expected * weights).sum(), maps)
    actual = scaled(maps, large)
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(torch.autograd.grad((actual * weights).sum(), maps)[0], gradient)
