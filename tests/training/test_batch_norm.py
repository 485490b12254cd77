"""In a group of one worker, statistics of the global batch are those of torch; test_world.py has two workers."""

import inspect
from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from torch import nn

from raysk.training import batch_norm
from raysk.training.batch_norm import GlobalBatchNorm


@pytest.fixture
def group() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def state_after_steps(network: nn.Module, shape: tuple[int, ...], is_global: bool) -> dict[str, torch.Tensor]:
    """Returns outputs in training and evaluation, gradients and buffers after two batches."""
    torch.manual_seed(0)
    module = GlobalBatchNorm(network) if is_global else network
    results = {}
    for step in range(2):
        inputs = (3 * torch.randn(shape, dtype=torch.float64) + 5).requires_grad_()
        outputs = module(inputs)
        (outputs * torch.randn_like(outputs)).sum().backward()
        results |= {f"outputs {step}": outputs.detach(), f"inputs {step}": inputs.grad}
    network.eval()
    results["evaluated"] = module(torch.ones(shape, dtype=torch.float64)).detach()
    gradients = {name: weight.grad for name, weight in network.named_parameters()}
    return results | gradients | dict(network.named_buffers())


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (lambda: nn.BatchNorm1d(3), (6, 3)),
        (lambda: nn.BatchNorm1d(3, affine=False, momentum=0.3), (6, 3, 4)),
        (lambda: nn.BatchNorm2d(3, track_running_stats=False), (2, 3, 4, 5)),
        (lambda: nn.BatchNorm2d(3, momentum=None, eps=0.5), (2, 3, 4, 5)),
        (lambda: nn.BatchNorm3d(2), (2, 2, 3, 2, 2)),
    ],
)
def test_one_worker_computes_what_torch_computes(layer, shape, group):
    expected, actual = (state_after_steps(layer().double(), shape, is_global) for is_global in (False, True))
    assert actual.keys() == expected.keys()
    for name, tensor in actual.items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-10, atol=1e-12, msg=name)


def test_the_gradient_is_the_slope(group):
    torch.manual_seed(0)
    network = GlobalBatchNorm(nn.BatchNorm2d(2)).double()
    assert torch.autograd.gradcheck(network, torch.randn(3, 2, 2, 2, dtype=torch.float64, requires_grad=True))


def test_torch_takes_the_arguments_that_a_gpu_passes():
    """No GPU runs here: the signature is what may change."""
    names = list(inspect.signature(batch_norm.SyncBatchNorm.forward).parameters)[1:]
    statistics = ["running_mean", "running_var", "eps", "momentum", "process_group", "world_size"]
    assert names == ["input", "weight", "bias", *statistics]
