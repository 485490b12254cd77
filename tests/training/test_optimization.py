import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from raysk.errors import ConfigError
from raysk.parts.heads import LinearHead
from raysk.recipe import Model
from raysk.stage import Optimizer
from raysk.training.networks import Classifier, StageOneNetwork, new_encoder
from raysk.training.optimization import averaged, create_optimizer, learning_rate, parameter_groups


def rates(num_steps: int, **values: object) -> list[float]:
    optimizer = Optimizer(**values)
    return [learning_rate(optimizer, step, num_steps) for step in range(num_steps)]


def test_cosine_falls_from_the_peak_to_zero():
    assert rates(4, lr=0.8, schedule="cosine") == pytest.approx(
        [0.8, 0.4 * (1 + math.sqrt(0.5)), 0.4, 0.4 * (1 - math.sqrt(0.5))]
    )
    assert rates(1000, lr=0.8)[-1] < 1e-5


@given(third=st.integers(1, 300))
@settings(max_examples=30, deadline=None)
def test_step_divides_by_ten_after_every_third(third):
    actual = rates(3 * third, lr=1.0, schedule="step")
    assert actual == pytest.approx([1.0] * third + [0.1] * third + [0.01] * third)


def test_constant_keeps_the_peak():
    assert rates(5, lr=0.3, schedule="constant") == [0.3] * 5


def test_warmup_rises_linearly_to_the_peak_and_the_schedule_starts_there():
    actual = rates(10, lr=1.0, schedule="cosine", warmup=0.4)
    assert actual[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert actual[4:] == pytest.approx(rates(6, lr=1.0, schedule="cosine"))


@given(
    num_steps=st.integers(1, 200),
    warmup=st.floats(0, 0.999),
    schedule=st.sampled_from(["cosine", "step", "constant"]),
)
@settings(max_examples=50, deadline=None)
def test_every_step_has_a_rate_above_zero_and_not_above_the_peak(num_steps, warmup, schedule):
    actual = rates(num_steps, lr=0.7, warmup=warmup, schedule=schedule)
    assert all(0 < rate <= 0.7 for rate in actual)


def test_sgd_decays_weights_and_keeps_momentum():
    weight = nn.Parameter(torch.tensor([2.0]))
    optimizer = create_optimizer(Optimizer(name="sgd", lr=0.1, momentum=0.5, weight_decay=0.25), [weight])
    expected, momentum = 2.0, 0.0
    for _ in range(3):
        weight.grad = torch.tensor([1.0])
        optimizer.step()
        momentum = 0.5 * momentum + 1.0 + 0.25 * expected
        expected -= 0.1 * momentum
    assert weight.item() == pytest.approx(expected)


def test_adamw_decays_weights_apart_from_the_gradient():
    weight = nn.Parameter(torch.tensor([2.0]))
    optimizer = create_optimizer(Optimizer(name="adamw", lr=0.1, weight_decay=0.25), [weight])
    weight.grad = torch.tensor([3.0])
    optimizer.step()
    # In its first step Adam moves by lr against the sign of the gradient, whatever its size.
    assert weight.item() == pytest.approx(2.0 * (1 - 0.1 * 0.25) - 0.1, rel=1e-6)


def test_the_average_equals_a_plain_loop_over_weights_and_statistics():
    model = nn.BatchNorm1d(3)
    average = averaged(model, 0.9)
    random = torch.Generator().manual_seed(0)
    expected: dict[str, torch.Tensor] = {}
    for step in range(4):
        with torch.no_grad():
            model.weight.copy_(torch.randn(3, generator=random))
            model.running_var.copy_(torch.rand(3, generator=random))
        average.update_parameters(model)
        for name in ("weight", "running_var"):
            now = model.state_dict()[name].clone()
            expected[name] = now if step == 0 else 0.9 * expected[name] + 0.1 * now
    for name, value in expected.items():
        torch.testing.assert_close(average.module.state_dict()[name], value)


def test_no_average_without_a_decay():
    assert averaged(nn.Linear(2, 2), 0.0) is None


# Rates of encoder and head.


def scales(settings: Optimizer, model: nn.Module, loss: nn.Module) -> dict[str, float]:
    names = {weight: name for part in (model, loss) for name, weight in part.named_parameters()}
    groups = parameter_groups(settings, model, loss)
    assert sum(len(group["params"]) for group in groups) == len(names)
    return {names[weight]: group["scale"] for group in groups for weight in group["params"]}


def test_by_default_all_parameters_share_one_rate_in_their_order():
    model = Classifier(new_encoder(Model(), 32), LinearHead(), 3)
    (group,) = parameter_groups(Optimizer(), model, nn.Linear(2, 2))
    assert group["scale"] == 1
    assert [id(weight) for weight in group["params"][:-2]] == [id(weight) for weight in model.parameters()]


def test_the_head_and_the_loss_have_their_factor():
    loss = nn.Linear(2, 2)
    classifier = Classifier(new_encoder(Model(), 32), LinearHead(), 3)
    for model in (classifier, StageOneNetwork(new_encoder(Model(), 32), 8, 3)):
        found = scales(Optimizer(head_factor=10), model, loss)
        assert {scale for name, scale in found.items() if name.startswith("encoder.")} == {1.0}
        others = [scale for name, scale in found.items() if not name.startswith("encoder.")]
        assert len(others) >= 4 and set(others) == {10.0}


@pytest.mark.parametrize("backbone", ["test_resnet", "test_convnext", "test_vit"])
def test_the_rate_falls_with_every_layer_towards_the_pixels(backbone):
    model = Classifier(new_encoder(Model(backbone=backbone), 32), LinearHead(), 3)
    found = scales(Optimizer(layer_decay=0.5, head_factor=3), model, nn.Identity())
    assert found["head.weight"] == found["head.bias"] == 3.0
    encoder = [scale for name, scale in found.items() if name.startswith("encoder.")]
    levels = sorted(set(encoder), reverse=True)
    assert levels == [0.5 ** (depth + 1) for depth in range(len(levels))] and len(levels) > 3
    assert encoder[0] == levels[-1]  # the stem


def test_a_frozen_weight_is_in_no_group():
    model = nn.Linear(2, 2)
    model.weight.requires_grad_(False)
    assert [len(group["params"]) for group in parameter_groups(Optimizer(), model)] == [1]


def test_a_backbone_without_layers_is_refused():
    encoder = new_encoder(Model(), 32)
    encoder.backbone.network.group_matcher = None
    with pytest.raises(ConfigError, match=r"^optimizer\.layer_decay must be 1 for ResNet, which timm does not divide"):
        parameter_groups(Optimizer(layer_decay=0.5), encoder)
