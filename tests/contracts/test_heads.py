"""The contract of every head."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from raysk.parts.heads import FrozenClassifier, FrozenHead, Head, heads


def features_of(num_rows: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(num_rows, 6, generator=torch.Generator().manual_seed(0)).to(dtype)


def build(head: Head, in_features: int, num_classes: int) -> nn.Module:
    """Builds a head, and starts one for a frozen encoder from random features."""
    module = head.build(in_features, num_classes)
    if isinstance(module, FrozenClassifier):
        random = torch.Generator().manual_seed(1)
        features = 3 + torch.randn(5 * num_classes, in_features, generator=random)
        weight = torch.randn(num_classes, in_features, generator=random)
        bias = torch.randn(num_classes, generator=random)
        module.start_from(features, torch.arange(num_classes).repeat(5), weight, bias)
    return module


def test_a_frozen_head_builds_a_frozen_classifier(head):
    module = head.build(6, 3)
    assert isinstance(head, FrozenHead) == isinstance(module, FrozenClassifier)
    if isinstance(head, FrozenHead):
        assert head.is_trained is bool(list(module.parameters()))


def test_logits_are_finite_before_the_start_and_change_with_it(head):
    """A network is built before its weights are loaded."""
    logits = head.build(6, 3).eval()(features_of(4))
    assert torch.isfinite(logits).all()
    if isinstance(head, FrozenHead):
        torch.testing.assert_close(logits, logits[:, :1].expand(-1, 3))
        assert not torch.equal(logits, build(head, 6, 3)(features_of(4)))


@pytest.mark.parametrize("name", [name for name in heads if issubclass(heads[name], FrozenHead)])
def test_the_start_leaves_parameters_and_arguments_unchanged(name):
    module = heads[name]().build(6, 3)
    before = [values.detach().clone() for values in module.parameters()]
    arguments = features_of(9), torch.arange(3).repeat(3), features_of(3), torch.ones(3)
    copies = [values.clone() for values in arguments]
    module.start_from(*arguments)
    for values, copy in zip([*module.parameters(), *arguments], [*before, *copies], strict=True):
        assert torch.equal(values, copy)
    logits = module(features_of(4))
    arguments[2].zero_()
    assert torch.equal(module(features_of(4)), logits)  # the arguments may be reused


@pytest.mark.parametrize("num_rows", [1, 4])
@pytest.mark.parametrize("num_classes", [2, 7])
def test_a_row_of_features_becomes_a_row_of_logits(head, num_rows, num_classes):
    logits = build(head, 6, num_classes)(features_of(num_rows))
    assert logits.shape == (num_rows, num_classes)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_finite_even_for_zero_features(head, dtype):
    features = torch.cat([features_of(3, dtype), torch.zeros(1, 6, dtype=dtype)]).requires_grad_()
    logits = build(head, 6, 3).to(dtype).eval()(features)
    F.cross_entropy(logits.float(), torch.tensor([0, 1, 2, 0])).backward()
    assert torch.isfinite(logits).all()
    assert torch.isfinite(features.grad).all()


def test_gradient_reaches_features_and_all_parameters(head):
    torch.manual_seed(0)
    module = build(head, 6, 3).eval()
    with torch.no_grad():
        for values in module.parameters():  # DisAlign's confidence has no slope at its start
            values += 0.1 * torch.randn_like(values)
    features = features_of(8).requires_grad_()
    module(features).square().sum().backward()
    for name, values in [("features", features), *module.named_parameters()]:
        assert torch.isfinite(values.grad).all(), name
        assert values.grad.abs().max() > 0, name


def test_rows_are_independent(head):
    module = build(head, 6, 3).eval()
    features = features_of(4)
    torch.testing.assert_close(module(features.flip(0)), module(features).flip(0))
    torch.testing.assert_close(module(features[:1]), module(features)[:1])


def test_weights_survive_a_state_dict(head):
    first, second = build(head, 6, 3).eval(), head.build(6, 3).eval()
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(features_of(4)), second(features_of(4)))
