import pytest
import torch
from torch import nn

from raysk.parts.losses import LogitLoss, losses
from raysk.training.stage_two_search.stacked_losses import DifferentiatedLosses, SoftmaxLosses, has_form

COUNTS = torch.tensor([50, 20, 5])
LABELS = torch.tensor([[0, 1, 2, 0, 0, 2, 1, 0], [2, 1, 0, 0, 1, 1, 1, 1]])
NAMES = [name for name in losses if issubclass(losses[name], LogitLoss)]
VARIANTS = [
    {"name": "cross_entropy", "weights": "balanced", "label_smoothing": 0.2},
    {"name": "cross_entropy", "weights": [1, 2, 0.5], "defer": 0.5},
    {"name": "focal", "gamma": 0.0},
    {"name": "focal", "gamma": 0.5, "weights": "effective"},
    {"name": "focal", "gamma": 5.0, "alpha": 0.25, "defer": 0.3},
    {"name": "vs", "gamma": 0.0},
    {"name": "balanced_softmax", "weights": "balanced"},
    {"name": "label_aware_smoothing", "head_smoothing": 0.5, "tail_smoothing": 0.1, "weights": "balanced"},
    {"name": "gcl", "noise": 0.0},
    {"name": "gcl", "noise": 2.0, "weights": "balanced"},
]


def modules_of(*settings: dict) -> list[nn.Module]:
    plain = [dict(setting) for setting in settings]
    return [losses[setting.pop("name")].from_plain(setting).build(COUNTS) for setting in plain]


def gradients(stack, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Returns the gradient of a stack by logits (M, B, C)."""
    stacked = logits.transpose(1, 2).contiguous().requires_grad_()
    (gradient,) = torch.autograd.grad(stack.total(stacked, labels), stacked)
    return gradient.transpose(1, 2).clone()  # the next call overwrites it


def expected_gradients(modules: list[nn.Module], logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    logits = logits.clone().requires_grad_()
    for module, part, of_module in zip(modules, logits, labels, strict=True):
        module(part, of_module).backward()
    return logits.grad


def check(kind: type, modules: list[nn.Module], scale: float = 3.0) -> None:
    logits = scale * torch.randn(len(modules), 8, 3, generator=torch.Generator().manual_seed(0))
    labels = LABELS[torch.arange(len(modules)) % 2]
    stack = kind(modules)
    for done in (0.0, 0.9):  # deferred weights differ late in training
        stack.begin_epoch(done, seed=5)
        actual = [gradients(stack, logits, labels) for _ in range(2)]
        for module in modules:  # stacked losses draw the noise of all of them once
            for part in module.modules():
                if hasattr(part, "begin_noise"):
                    part.begin_noise(5)
        for gradient in actual:
            torch.testing.assert_close(gradient, expected_gradients(modules, logits, labels), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", [DifferentiatedLosses, SoftmaxLosses])
def test_stacked_losses_of_one_kind_give_the_gradient_of_each(name, kind):
    settings = {"name": name}
    assert has_form(modules_of(settings)[0])
    check(kind, [losses[name]().build(counts) for counts in (COUNTS, COUNTS.flip(0))])


def test_losses_of_all_kinds_share_one_form():
    check(SoftmaxLosses, modules_of(*({"name": name} for name in NAMES), *VARIANTS))


@pytest.mark.parametrize("settings", VARIANTS, ids=str)
def test_a_form_has_the_gradient_of_its_loss(settings):
    """Alone, a form leaves out the terms that only other losses need."""
    check(SoftmaxLosses, modules_of(settings))


@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0, 5.0])
def test_the_form_of_focal_is_finite_where_a_row_is_certain(gamma):
    modules = modules_of({"name": "focal", "gamma": gamma})
    logits = torch.tensor([[[200.0, 0.0, 0.0], [0.0, 200.0, 0.0]]])
    for labels in (torch.tensor([[0, 1]]), torch.tensor([[2, 2]])):
        actual = gradients(SoftmaxLosses(modules), logits, labels)
        torch.testing.assert_close(actual, expected_gradients(modules, logits, labels))


def test_a_loss_without_a_form_is_told_apart():
    assert not has_form(nn.CrossEntropyLoss())
    (deferred,) = modules_of({"name": "cross_entropy", "weights": "balanced", "defer": 0.5})
    assert has_form(deferred)
