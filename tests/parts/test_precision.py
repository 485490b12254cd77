import pytest
import torch

from raysk.parts.backbones import create_backbone
from raysk.parts.encoder import Encoder
from raysk.parts.precision import at_least_single, autocast, compute_dtype, gradient_scaler

CPU = torch.device("cpu")


def test_a_cpu_computes_in_single_precision():
    assert compute_dtype(CPU) is torch.float32
    with autocast(CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype is torch.float32
    with autocast(CPU, "bfloat16"):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype is torch.bfloat16


@pytest.mark.parametrize(("precision", "inside"), [("auto", torch.float32), ("bfloat16", torch.bfloat16)])
def test_an_encoder_computes_in_its_precision_and_gives_single_precision(precision, inside):
    torch.manual_seed(0)
    encoder = Encoder(create_backbone("test_resnet", False, None, 32), precision).eval()
    seen = []
    encoder.backbone.network.layer1.register_forward_hook(lambda _module, _inputs, output: seen.append(output.dtype))
    images = torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8)
    features = encoder(images)
    features.square().sum().backward()
    assert seen == [inside]
    assert features.dtype is torch.float32
    assert all(weight.grad.dtype is torch.float32 for weight in encoder.parameters())
    encoder.precision = "float32"
    single = encoder(images)
    assert (features - single).norm() < 0.02 * single.norm()
    assert torch.equal(features, single) == (precision == "auto")


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
