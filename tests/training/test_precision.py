import pytest
import torch

from raysk.training.precision import autocast, compute_dtype, gradient_scaler

CPU = torch.device("cpu")


def test_a_cpu_computes_in_single_precision():
    assert compute_dtype(CPU) is torch.float32
    with autocast(CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype is torch.float32


def test_without_half_precision_the_scaler_does_nothing():
    scaler = gradient_scaler(CPU)
    loss = torch.tensor(0.1)
    assert not scaler.is_enabled()
    assert scaler.scale(loss) is loss


@pytest.mark.skipif(not torch.cuda.is_available(), reason="a CPU computes in single precision")
def test_half_precision_keeps_small_gradients():
    """In float16 a gradient of 1e-9 would be zero without the scaler."""
    device = torch.device("cuda")
    weight = torch.full((4, 4), 1e-3, device=device, requires_grad=True)
    scaler = gradient_scaler(device)
    with autocast(device):
        outputs = torch.full((4, 4), 1e-3, device=device) @ weight
    assert outputs.dtype is compute_dtype(device)
    scaler.scale(outputs.float().mean() * 1e-5).backward()
    assert (weight.grad > 0).all()
