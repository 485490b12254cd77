import pytest
import torch

from raysk.errors import DataError
from raysk.parts.losses import losses
from raysk.parts.losses.base import at_least_single


def test_a_class_without_training_rows_is_named():
    with pytest.raises(DataError, match=r"classes \[1, 3\] have none"):
        losses["cross_entropy"]().build(torch.tensor([5, 0, 2, 0]))


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_only_half_precision_is_widened(dtype, expected):
    assert at_least_single(torch.ones(2, dtype=dtype)).dtype == expected
