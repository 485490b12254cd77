"""The inputs of the published numbers: HAM10000's class counts, and logits and embeddings from closed forms."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor


@pytest.fixture
def ham() -> Tensor:
    """Rows of MEL, NV, BCC, AKIEC, BKL, DF and VASC in HAM10000."""
    return torch.tensor([1113, 6705, 514, 327, 1099, 115, 142])


@pytest.fixture
def logits() -> Tensor:
    i = torch.arange(10, dtype=torch.float64)[:, None]
    k = torch.arange(7, dtype=torch.float64)[None, :]
    return 2 * torch.sin(1.1 * i + 0.9 * k + 0.3 * i * k)


@pytest.fixture
def labels() -> Tensor:
    return torch.arange(10) % 7


@pytest.fixture
def features() -> Callable[[int, int, int], Tensor]:
    def build(num_images: int, num_views: int, width: int) -> Tensor:
        i = torch.arange(num_images, dtype=torch.float64)[:, None, None]
        v = torch.arange(num_views, dtype=torch.float64)[None, :, None]
        k = torch.arange(width, dtype=torch.float64)[None, None, :]
        z = torch.sin(0.7 * i + 1.3 * v + 0.37 * (k + 1) * (i + 1))
        return z / z.norm(dim=2, keepdim=True)

    return build
