"""Each loss against its formula in plain loops, and against the published numbers."""

import math

import pytest
import torch
import torch.nn.functional as F

from raysk.parts.losses import losses
from raysk.parts.losses.classification import centred, class_smoothing
from raysk.parts.losses.weights import class_weights, power_weights


def loss_of(name, logits, labels, counts, **settings):
    return losses[name](**settings).build(counts)(logits, labels).item()


def log_softmax(row):
    total = sum(math.exp(value) for value in row)
    return [value - math.log(total) for value in row]


def cross_entropy_in_loops(logits, labels, weights, smoothing):
    numerator = denominator = 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        log_p = log_softmax(row)
        for k in range(len(row)):
            target = (1 - smoothing) * (k == label) + smoothing / len(row)
            numerator -= target * weights[k] * log_p[k]
        denominator += weights[label]
    return numerator / denominator


def focal_in_loops(logits, labels, weights, gamma):
    total = 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        log_p = log_softmax(row)[label]
        total += weights[label] * (1 - math.exp(log_p)) ** gamma * -log_p
    return total / len(labels)


def shifted_in_loops(logits, labels, counts, tau):
    shares = [count / sum(counts) for count in counts]
    shifted = [[z + tau * math.log(share) for z, share in zip(row, shares, strict=True)] for row in logits.tolist()]
    return -sum(log_softmax(row)[label] for row, label in zip(shifted, labels.tolist(), strict=True)) / len(labels)


def label_aware_in_loops(logits, labels, counts, head, tail):
    smallest, largest, total = min(counts), max(counts), 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        share = (counts[label] - smallest) / (largest - smallest)
        eps = tail + (head - tail) * math.sin(math.pi * share / 2)
        for k, log_p in enumerate(log_softmax(row)):
            total -= (1 - eps if k == label else eps / (len(row) - 1)) * log_p
    return total / len(labels)


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("cross_entropy", {}, 3.031147231700),
        ("focal", {"gamma": 0.5}, 2.936373443042),
        ("focal", {"gamma": 1}, 2.850911112478),
        ("focal", {"gamma": 2}, 2.703068562411),
        ("focal", {"gamma": 5}, 2.384593083377),
        ("balanced_softmax", {}, 3.506045364547),
        ("logit_adjustment", {"tau": 0.5}, 3.090748818826),
        ("logit_adjustment", {"tau": 1}, 3.506045364547),
        ("logit_adjustment", {"tau": 1.5}, 4.170640650964),
        ("logit_adjustment", {"tau": 2}, 4.999599603429),
        ("cross_entropy", {"weights": "effective", "beta": 0.999}, 3.712624754979),
        ("class_balanced", {"beta": 0.999}, 3.712624754979),
    ],
)
def test_published_numbers(logits, labels, ham, name, settings, expected):
    assert loss_of(name, logits, labels, ham, **settings) == pytest.approx(expected, abs=1e-11)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", list(class_weights))
def test_cross_entropy_is_its_formula(logits, labels, ham, weights, smoothing):
    expected = cross_entropy_in_loops(logits, labels, class_weights[weights](ham.double(), 0.999).tolist(), smoothing)
    actual = loss_of("cross_entropy", logits, labels, ham, weights=weights, label_smoothing=smoothing)
    assert actual == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("gamma", [0, 0.3, 2, 5])
@pytest.mark.parametrize("weights", list(class_weights))
def test_focal_is_its_formula(logits, labels, ham, weights, gamma):
    expected = focal_in_loops(logits, labels, class_weights[weights](ham.double(), 0.999).tolist(), gamma)
    assert loss_of("focal", logits, labels, ham, weights=weights, gamma=gamma) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("tau", [0, 0.5, 1, 3])
def test_logit_adjustment_is_its_formula(logits, labels, ham, tau):
    expected = shifted_in_loops(logits, labels, ham.tolist(), tau)
    assert loss_of("logit_adjustment", logits, labels, ham, tau=tau) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("beta", [0, 0.9, 0.9999])
def test_class_balanced_is_cross_entropy_with_the_weights_written_out(logits, labels, ham, beta):
    raw = [(1 - beta) / (1 - beta**n) for n in ham.tolist()]
    expected = cross_entropy_in_loops(logits, labels, raw, 0.0)  # the scale of the weights drops out
    assert loss_of("class_balanced", logits, labels, ham, beta=beta) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("head", "tail"), [(0.3, 0.0), (0.4, 0.1), (0.0, 0.2), (0.2, 0.2)])
def test_label_aware_smoothing_is_its_formula(logits, labels, ham, head, tail):
    expected = label_aware_in_loops(logits, labels, ham.tolist(), head, tail)
    actual = loss_of("label_aware_smoothing", logits, labels, ham, head_smoothing=head, tail_smoothing=tail)
    assert actual == pytest.approx(expected, rel=1e-12)


def test_smoothing_of_ham(ham):
    expected = [0.070694, 0.3, 0.028489, 0.015153, 0.069721, 0, 0.001931]
    assert class_smoothing(ham.double(), 0.3, 0.0).tolist() == pytest.approx(expected, abs=5e-7)


def test_equal_classes_have_the_tail_smoothing():
    assert class_smoothing(torch.full((3,), 12.0), 0.3, 0.1).tolist() == pytest.approx([0.1] * 3)


def test_two_classes_have_the_head_and_the_tail_smoothing():
    assert class_smoothing(torch.tensor([18.0, 982.0]), 0.3, 0.1).tolist() == pytest.approx([0.1, 0.3])


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("focal", {"gamma": 0}),
        ("logit_adjustment", {"tau": 0}),
        ("class_balanced", {"beta": 0}),
        ("label_aware_smoothing", {"head_smoothing": 0}),
    ],
)
def test_a_loss_that_is_switched_off_is_cross_entropy(logits, labels, ham, name, settings):
    expected = F.cross_entropy(logits, labels).item()
    assert loss_of(name, logits, labels, ham, **settings) == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("name", ["balanced_softmax", "logit_adjustment"])
def test_equal_classes_shift_no_logits(logits, labels, name):
    equal = torch.full((7,), 31)
    assert loss_of(name, logits, labels, equal) == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-14)


def test_other_weights_ignore_beta(logits, labels, ham):
    low = loss_of("focal", logits, labels, ham, weights="balanced", beta=0.1)
    assert low == loss_of("focal", logits, labels, ham, weights="balanced", beta=0.9999)


@pytest.mark.parametrize("gamma", [0, 0.5, 1, 2])
def test_focal_has_a_gradient_where_the_network_is_certain(gamma):
    logits = torch.tensor([[200.0, 0.0], [0.0, 200.0], [1.0, 0.0]], requires_grad=True)
    loss = losses["focal"](gamma=gamma).build(torch.tensor([2, 1]))(logits, torch.tensor([0, 0, 0]))
    loss.backward()
    assert logits.grad[0].tolist() == [0.0, 0.0]  # certain and right
    assert logits.grad[1].tolist() == pytest.approx([-1 / 3, 1 / 3])  # certain and wrong: as cross entropy
    assert logits.grad[2].abs().min() > 0


def test_a_certain_row_keeps_its_digits():
    """The logarithm of all exponentials, taken without the shift, would round a loss of 5e-5 to zero or to 1e-3."""
    logits = torch.tensor([[10_000.0, 9_990.0, 0.0]])
    shifted, log_total = centred(logits)
    expected = logits.double().log_softmax(dim=1)
    torch.testing.assert_close((shifted - log_total[:, None]).double(), expected, rtol=1e-3, atol=0)


@pytest.mark.parametrize(("rho", "expected"), [(0, 3.031147231700), (0.5, 3.507149475088), (1, 3.899954517913)])
def test_published_numbers_of_generalized_reweighting(logits, labels, ham, rho, expected):
    loss = losses["generalized_reweight"](rho=rho).build(ham)(logits, labels)
    assert loss.item() == pytest.approx(expected, abs=1e-11)


@pytest.mark.parametrize("rho", [0.5, 1.5])
def test_generalized_reweighting_is_its_formula(logits, labels, ham, rho):
    weights = [(ham.sum().item() / n) ** rho for n in ham.tolist()]
    terms = F.cross_entropy(logits, labels, reduction="none").tolist()
    of_rows = [weights[label] for label in labels.tolist()]
    expected = sum(w * term for w, term in zip(of_rows, terms, strict=True)) / sum(of_rows)
    assert losses["generalized_reweight"](rho=rho).build(ham)(logits, labels).item() == pytest.approx(expected)


def test_power_weights_have_a_mean_of_one(ham):
    weights = power_weights(ham.double(), 0.7)
    assert weights.mean().item() == pytest.approx(1)
    torch.testing.assert_close(weights * ham**0.7, (weights * ham**0.7)[:1].expand(7))
