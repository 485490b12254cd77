"""LDAM-DRW, VS and GCL against their formulas in plain loops, and against the published numbers."""

import math

import pytest
import torch
import torch.nn.functional as F

from raysk.parts.heads import CosineHead
from raysk.parts.losses import losses
from raysk.parts.losses.base import NoisyLoss, ScheduledLoss
from raysk.parts.losses.margins import class_margins, cloud_sizes


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


def entropy_in_loops(logits, labels):
    """Returns the mean of -log p of the label, for logits and labels in lists."""
    terms = [math.log(sum(map(math.exp, row))) - row[label] for row, label in zip(logits, labels, strict=True)]
    return sum(terms) / len(terms)


@pytest.mark.parametrize(
    ("gamma", "tau", "expected"),
    [(0.15, 1, 3.193092923373), (0.3, 1, 3.021336447053), (0.3, 0, 2.288764560790), (0, 1, 3.506045364547)],
)
def test_published_numbers_of_vs(logits, labels, ham, gamma, tau, expected):
    assert losses["vs"](gamma=gamma, tau=tau).build(ham)(logits, labels).item() == pytest.approx(expected, abs=1e-11)


def test_the_released_factors_of_vs(ham):
    expected = [0.583484, 1, 0.462774, 0.404059, 0.581272, 0.295318, 0.314606]
    assert losses["vs"]().build(ham).factors.tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("gamma", "tau"), [(0.3, 1), (0.05, 2.5), (1, 0)])
def test_vs_is_its_formula(logits, labels, ham, gamma, tau):
    counts = ham.tolist()
    scaled = [
        [(n / max(counts)) ** gamma * z + tau * math.log(n / sum(counts)) for z, n in zip(row, counts, strict=True)]
        for row in logits.tolist()
    ]
    actual = losses["vs"](gamma=gamma, tau=tau).build(ham)(logits, labels).item()
    assert actual == pytest.approx(entropy_in_loops(scaled, labels.tolist()), rel=1e-12)


def test_vs_without_factors_is_logit_adjustment(logits, labels, ham):
    adjusted = losses["logit_adjustment"](tau=1.5).build(ham)(logits, labels)
    torch.testing.assert_close(losses["vs"](gamma=0, tau=1.5).build(ham)(logits, labels), adjusted)


def test_the_cloud_sizes_of_ham(ham):
    expected = [0.441696, 0, 0.631724, 0.742963, 0.44481, 1, 0.948128]
    assert cloud_sizes(ham.double()).tolist() == pytest.approx(expected, abs=1e-6)
    assert cloud_sizes(torch.full((4,), 9.0)).tolist() == [0] * 4


def test_published_number_of_gcl(logits, labels, ham, monkeypatch):
    """At |noise| = 1/4: a normal number of 3/4 is divided by three."""
    monkeypatch.setattr(NoisyLoss, "normal_like", lambda self, values: torch.full_like(values, -0.75))
    loss = losses["gcl"](margin=0).build(ham)(30 * logits / 2, labels)
    assert loss.item() == pytest.approx(31.118128771524, abs=1e-11)


@pytest.mark.parametrize(("noise", "margin", "scale"), [(1, 0.5, 30), (0.4, 0.2, 10), (0, 0.5, 30), (2, 0, 1)])
def test_gcl_is_its_formula(logits, labels, ham, noise, margin, scale):
    module = losses["gcl"](noise=noise, margin=margin, scale=scale).build(ham)
    module.begin_noise(11)
    drawn = module.normal_like(logits).tolist()
    module.begin_noise(11)
    actual = module(scale * logits / 2, labels).item()
    differences = [math.log(6705) - math.log(n) for n in ham.tolist()]
    clouded = [
        [
            scale * (z / 2 - noise * min(1, abs(e) / 3) * d / max(differences) - margin * (k == label))
            for k, (z, e, d) in enumerate(zip(row, noises, differences, strict=True))
        ]
        for row, noises, label in zip(logits.tolist(), drawn, labels.tolist(), strict=True)
    ]
    assert actual == pytest.approx(entropy_in_loops(clouded, labels.tolist()), rel=1e-9)


def test_the_noise_of_gcl_is_clipped_and_spares_the_largest_class(ham):
    module = losses["gcl"](margin=0, scale=1).build(ham)
    largest, label = 1, torch.full((4000,), 5)  # of DF, the smallest class
    logits = torch.zeros(4000, 7).requires_grad_()
    module.begin_noise(1)
    noise = module.normal_like(logits)
    module.begin_noise(1)
    module(logits, label).backward()
    # p of a class is exp(-its noise) over the sum: the noise of a class, from its gradient and that of the largest.
    ratios = (logits.grad / logits.grad[:, [largest]]).log().neg()
    others = [0, 2, 3, 4, 6]
    expected = (noise / 3).clamp(-1, 1).abs() * cloud_sizes(ham.double()).float()
    torch.testing.assert_close(ratios[:, others], expected[:, others], rtol=1e-3, atol=1e-4)
    assert (expected.max(dim=0).values <= cloud_sizes(ham.double()).float()).all()


def test_gcl_in_evaluation_has_no_noise(logits, labels, ham):
    expected = F.cross_entropy(logits - 30 * 0.5 * F.one_hot(labels, 7), labels).item()
    assert losses["gcl"]().build(ham).eval()(logits, labels).item() == pytest.approx(expected, rel=1e-12)


def test_the_noise_of_gcl_follows_from_the_seed_and_the_number_of_the_draw(logits, labels, ham):
    module = losses["gcl"]().build(ham)
    draws = {}
    for seed in (3, 4, 3):
        module.begin_noise(seed)
        values = [module(logits, labels).item() for _ in range(3)]
        assert draws.setdefault(seed, values) == values
    assert len({*draws[3], *draws[4]}) == 6
