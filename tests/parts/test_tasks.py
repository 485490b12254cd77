"""The loss of masks against plain loops."""

import math

import pytest
import torch

from raysk.parts.tasks import Segmentation


def in_loops(logits, masks, dice, smoothing):
    of_dice, of_pixels = [], []
    for picture, mask in zip(logits.tolist(), masks.tolist(), strict=True):
        overlap = size = 0.0
        for values, truths in zip(picture, mask, strict=True):
            for value, truth in zip(values, truths, strict=True):
                share, is_lesion = 1 / (1 + math.exp(-value)), truth > 0
                overlap += share * is_lesion
                size += share + is_lesion
                of_pixels.append(-math.log(share if is_lesion else 1 - share))
        of_dice.append(1 - (2 * overlap + smoothing) / (size + smoothing))
    return dice * sum(of_dice) / len(of_dice) + (1 - dice) * sum(of_pixels) / len(of_pixels)


@pytest.mark.parametrize("dice", [0.0, 0.3, 1.0])
def test_the_loss_is_that_of_the_formula_in_loops(dice):
    random = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn((3, 4, 5), generator=random)
    masks = (torch.rand((3, 4, 5), generator=random) > 0.6).to(torch.uint8) * 255
    masks[1] = 0
    loss = Segmentation(dice=dice, smoothing=0.5).loss()(logits, masks)
    assert loss.item() == pytest.approx(in_loops(logits, masks, dice, 0.5), rel=1e-5)


@pytest.mark.parametrize("level", [0, 255])
@pytest.mark.parametrize("scale", [-50.0, 50.0])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_empty_and_full_masks_have_a_finite_loss_and_gradient(level, scale, dtype):
    logits = torch.full((2, 4, 4), scale, dtype=dtype, requires_grad=True)
    loss = Segmentation().loss()(logits, torch.full((2, 4, 4), level, dtype=torch.uint8))
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()
    is_right = (scale > 0) == (level > 0)
    assert (loss.item() < 1e-3) == is_right
