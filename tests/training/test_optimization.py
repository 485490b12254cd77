import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from raysk.stage import Optimizer
from raysk.training.optimization import averaged, create_optimizer, learning_rate


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
