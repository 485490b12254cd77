"""What holds of every head, whatever it computes."""

import pytest
import torch
import torch.nn.functional as F


def features_of(num_rows: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(num_rows, 6, generator=torch.Generator().manual_seed(0)).to(dtype)


@pytest.mark.parametrize("num_rows", [1, 4])
@pytest.mark.parametrize("num_classes", [2, 7])
def test_a_row_of_features_becomes_a_row_of_logits(head, num_rows, num_classes):
    logits = head.build(6, num_classes)(features_of(num_rows))
    assert logits.shape == (num_rows, num_classes)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_finite_also_for_features_of_zero(head, dtype):
    features = torch.cat([features_of(3, dtype), torch.zeros(1, 6, dtype=dtype)]).requires_grad_()
    logits = head.build(6, 3).to(dtype).eval()(features)
    F.cross_entropy(logits.float(), torch.tensor([0, 1, 2, 0])).backward()
    assert torch.isfinite(logits).all()
    assert torch.isfinite(features.grad).all()


def test_gradient_reaches_features_and_all_parameters(head):
    torch.manual_seed(0)
    module = head.build(6, 3).eval()
    features = features_of(8).requires_grad_()
    module(features).square().sum().backward()
    for name, values in [("features", features), *module.named_parameters()]:
        assert torch.isfinite(values.grad).all(), name
        assert values.grad.abs().max() > 0, name


def test_rows_do_not_see_each_other(head):
    module = head.build(6, 3).eval()
    features = features_of(4)
    torch.testing.assert_close(module(features.flip(0)), module(features).flip(0))
    torch.testing.assert_close(module(features[:1]), module(features)[:1])


def test_weights_come_back(head):
    first, second = head.build(6, 3).eval(), head.build(6, 3).eval()
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(features_of(4)), second(features_of(4)))
