"""Class weights of every loss that takes them: from the start, late, and as one's own list; all without noise."""

import pytest
import torch

from raysk.errors import ConfigError
from raysk.parts.losses import losses
from raysk.parts.losses.weighted import WeightedLoss

WEIGHTED = [name for name in losses if issubclass(losses[name], WeightedLoss)]
OWN = [1.0, 0.5, 2.0, 3.0, 1.5, 9.0, 7.0]


def in_loops(module, logits, labels, weights, is_mean_of_rows):
    """Returns the weighted mean of the losses that an unweighted module gives to single rows."""
    rows = [module(logits[i : i + 1], labels[i : i + 1]).item() for i in range(len(labels))]
    row_weights = [weights[label] for label in labels.tolist()]
    total = sum(weight * loss for weight, loss in zip(row_weights, rows, strict=True))
    return total / (len(rows) if is_mean_of_rows else sum(row_weights))


@pytest.mark.parametrize("name", WEIGHTED)
def test_own_weights_are_the_weighted_mean_over_rows(name, logits, labels, ham):
    expected = in_loops(losses[name](weights="none").build(ham).eval(), logits, labels, OWN, name == "focal")
    actual = losses[name](weights=OWN, defer=0).build(ham).eval()(logits, labels)
    assert actual.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", WEIGHTED)
@pytest.mark.parametrize(
    ("defer", "epochs", "first_weighted"), [(0.8, 5, 4), (0.5, 4, 2), (0.7, 10, 7), (1.0, 4, None)]
)
def test_deferred_weights_start_late_for_every_loss(name, defer, epochs, first_weighted, logits, labels, ham):
    plain = losses[name](weights="none", defer=0).build(ham).eval()(logits, labels)
    weighted = losses[name](weights="balanced", defer=0).build(ham).eval()(logits, labels)
    assert plain != weighted
    module = losses[name](weights="balanced", defer=defer).build(ham).eval()
    values = []
    for epoch in range(epochs):
        module.begin_epoch(epoch / epochs)
        values.append(module(logits, labels))
    start = epochs if first_weighted is None else first_weighted
    assert values == [plain] * start + [weighted] * (epochs - start)


def test_deferred_class_balanced_loss_is_cross_entropy_first(logits, labels, ham):
    module = losses["class_balanced"](defer=0.5).build(ham)
    assert module(logits, labels) == losses["cross_entropy"]().build(ham)(logits, labels)
    module.begin_epoch(0.5)
    assert module(logits, labels) == losses["class_balanced"]().build(ham)(logits, labels)


@pytest.mark.parametrize("name", WEIGHTED)
def test_weights_that_do_not_fit_the_classes_are_refused(name, ham):
    for weights in ([1.0, 2.0], [], [1.0] * 8):
        loss = losses[name](weights=weights)
        rule = rf"^weights must be a name or a list .* of the 7 classes, but got {len(weights)}: "
        with pytest.raises(ConfigError, match=rule):
            loss.check(ham.numpy())
        with pytest.raises(ConfigError, match=rule):
            loss.build(ham)
    losses[name](weights=[1.0] * 7).check(ham.numpy())


@pytest.mark.parametrize(
    ("weights", "rule"),
    [
        ([1, 0], r"weights must be a number in \(0, 1e\+09\], but got 0"),
        ([1, -2.0], r"weights must be a number in .*, but got -2"),
        ([1, float("nan")], r"weights must be a number in .*, but got nan"),
        ([1, "2"], r"weights must be a number in .*, but got '2'"),
        ([True, 1], r"weights must be a number in .*, but got True"),
        (2.0, r"weights must be one of|weights must be"),
        (None, r"weights must be"),
        ("balance", r"weights must be .*did you mean balanced"),
        ({"bcc": 2}, r"weights must be"),
    ],
)
def test_weights_are_a_name_or_a_list_of_positive_numbers(weights, rule):
    with pytest.raises(ConfigError, match=rule):
        losses["cross_entropy"](weights=weights)


def test_focals_alpha_weights_the_largest_class_and_all_others(logits, labels, ham):
    """As the baseline of Chen et al. 2022: .25 for the benign class, .75 for the other."""
    largest = int(ham.argmax())
    own = [0.25 if label == largest else 0.75 for label in range(7)]
    with_alpha = losses["focal"](gamma=5, alpha=0.25).build(ham)(logits, labels)
    assert with_alpha.item() == pytest.approx(losses["focal"](gamma=5, weights=own).build(ham)(logits, labels).item())
    both = losses["focal"](gamma=5, alpha=0.25, weights=OWN).build(ham)
    assert torch.equal(both.weights, torch.tensor(own).double() * torch.tensor(OWN).double())
