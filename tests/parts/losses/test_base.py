import pytest
import torch

from raysk.errors import DataError
from raysk.parts.losses import losses


def test_a_class_without_training_rows_is_named():
    with pytest.raises(DataError, match=r"classes \[1, 3\] have none"):
        losses["cross_entropy"]().build(torch.tensor([5, 0, 2, 0]))
