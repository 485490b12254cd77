"""LDAM-DRW against its formula in plain loops, and against the published numbers."""

import math

import pytest
import torch
import torch.nn.functional as F

from raysk.parts.heads import CosineHead
from raysk.parts.losses import losses
from raysk.parts.losses.base import ScheduledLoss
from raysk.parts.losses.margins import class_margins


def ldam_in_loops(logits, labels, counts, scale, max_margin, weights):
    largest = max(n**-0.25 for n in counts)
    numerator = denominator = 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        margin = max_margin * counts[label] ** -0.25 / largest
        held_back = [z - scale * margin * (k == label) for k, z in enumerate(row)]
        log_total = math.log(sum(math.exp(z) for z in held_back))
        numerator += weights[label] * (log_total - held_back[label])
        denominator += weights[label]
    return numerator / denominator


def test_published_number(logits, labels, ham):
    assert losses["ldam"]().build(ham)(30 * logits / 2, labels).item() == pytest.approx(40.915183078730, abs=1e-11)


def test_margins_of_ham(ham):
    expected = [0.283478857, 0.180944243, 0.34387744, 0.385041487, 0.284377375, 0.5, 0.474321028]
    assert class_margins(ham.double(), 0.5).tolist() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("scale", "max_margin"), [(1, 0.5), (30, 0.5), (16, 0.2), (10, 2)])
def test_ldam_is_its_formula_without_weights(logits, labels, ham, scale, max_margin):
    module = losses["ldam"](scale=scale, max_margin=max_margin).build(ham)
    expected = ldam_in_loops(logits, labels, ham.tolist(), scale, max_margin, [1] * 7)
    assert module(logits, labels).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("beta", [0.99, 0.9999])
def test_late_epochs_have_class_balanced_weights(logits, labels, ham, beta):
    module = losses["ldam"](beta=beta, scale=2).build(ham)
    module.begin_epoch(0.8)
    weights = [(1 - beta) / (1 - beta**n) for n in ham.tolist()]
    expected = ldam_in_loops(logits, labels, ham.tolist(), 2, 0.5, weights)
    assert module(logits, labels).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("defer", "epochs", "first_weighted"), [(0.8, 200, 160), (0.8, 5, 4), (0.7, 10, 7), (0.0, 3, 0), (1.0, 4, None)]
)
def test_weights_start_after_the_deferred_share_of_the_epochs(logits, labels, ham, defer, epochs, first_weighted):
    module = losses["ldam"](defer=defer).build(ham)
    unweighted = losses["ldam"](defer=1).build(ham)(logits, labels)
    weighted = []
    for epoch in range(epochs):
        if isinstance(module, ScheduledLoss):
            module.begin_epoch(epoch / epochs)
        weighted.append(not torch.equal(module(logits, labels), unweighted))
    assert (weighted.index(True) if any(weighted) else None) == first_weighted
    assert weighted == sorted(weighted)


def test_an_earlier_epoch_resets_the_weights(logits, labels, ham):
    """A stage that continues from a checkpoint may begin anywhere."""
    module = losses["ldam"]().build(ham)
    before = module(logits, labels)
    module.begin_epoch(0.9)
    module.begin_epoch(0.1)
    assert torch.equal(module(logits, labels), before)


def test_without_any_deferral_the_first_epoch_is_weighted(logits, labels, ham):
    weighted = losses["ldam"](defer=0).build(ham)(logits, labels)
    late = losses["ldam"](defer=0.5).build(ham)
    late.begin_epoch(0.5)
    assert torch.equal(late(logits, labels), weighted)


def test_on_a_cosine_head_the_margin_is_a_cosine(ham):
    """A row on its class vector, with the others at right angles, has the margin m in units of the cosine."""
    head = CosineHead(scale=30).build(7, 7).double()
    with torch.no_grad():
        head.weight.copy_(torch.eye(7))
    label = torch.tensor([5])  # the smallest class
    loss = losses["ldam"](scale=30).build(ham)(head(torch.eye(7, dtype=torch.float64)[label]), label)
    assert loss.item() == pytest.approx(math.log1p(6 * math.exp(-30 * (1 - 0.5))), rel=1e-6)


def test_equal_classes_have_equal_margins(logits, labels):
    expected = F.cross_entropy(logits - 30 * 0.5 * F.one_hot(labels, 7), labels).item()
    assert losses["ldam"]().build(torch.full((7,), 9))(logits, labels).item() == pytest.approx(expected, rel=1e-12)
