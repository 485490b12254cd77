import math

import pytest
import torch
import torch.nn.functional as F

from raysk.parts.heads import ProjectionHead, heads, unit_length


@pytest.fixture
def features():
    return torch.randn(6, 5, generator=torch.Generator().manual_seed(0))


def test_the_mlp_is_dropout_and_two_linear_layers(features):
    head = heads["mlp"](hidden=3, dropout=0.5).build(5, 4).eval()
    first, second = head[1], head[3]
    hidden = (features @ first.weight.T + first.bias).clamp_min(0)
    torch.testing.assert_close(head(features), hidden @ second.weight.T + second.bias)
    assert first.weight.shape == (3, 5)


def test_the_mlp_drops_features_in_training_only(features):
    head = heads["mlp"](hidden=64).build(5, 4)
    assert not torch.equal(head.train()(features), head(features))
    assert torch.equal(head.eval()(features), head(features))


def test_cosine_logits_are_scaled_cosines(features):
    head = heads["cosine"](scale=8).build(5, 3)
    logits = head(features)
    for i in range(6):
        for k in range(3):
            cosine = F.cosine_similarity(features[i], head.weight[k], dim=0)
            torch.testing.assert_close(logits[i, k], 8 * cosine)


def test_cosine_logits_do_not_depend_on_any_length(features):
    head = heads["cosine"]().build(5, 3)
    expected = head(features)
    with torch.no_grad():
        head.weight.mul_(torch.tensor([[1.0], [10.0], [0.1]]))
    torch.testing.assert_close(head(features * 7), expected)


@pytest.fixture
def start():
    """Features of 12 rows, labels, and a linear classifier of three classes."""
    random = torch.Generator().manual_seed(2)
    features = 5 + torch.randn(12, 5, generator=random, dtype=torch.float64)
    labels = torch.tensor([0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2])
    weight = torch.randn(3, 5, generator=random, dtype=torch.float64)
    return features, labels, weight, torch.randn(3, generator=random, dtype=torch.float64)


def started(head, start):
    module = head.build(5, 3).double()
    module.start_from(*start)
    return module


def test_weight_scaling_multiplies_the_logits_of_the_linear_classifier(features, start):
    head = started(heads["lws"](), start)
    _, _, weight, bias = start
    features = features.double()
    torch.testing.assert_close(head(features), features @ weight.T + bias)
    with torch.no_grad():
        head.scale.copy_(torch.tensor([1.0, 2.0, -3.0]))
    for i in range(6):
        for k, scale in enumerate([1, 2, -3]):
            torch.testing.assert_close(head(features)[i, k], (weight[k] @ features[i] + bias[k]) * scale)


def test_weight_scaling_trains_its_scales_only(start):
    head = started(heads["lws"](), start)
    assert [(name, values.tolist()) for name, values in head.named_parameters()] == [("scale", [1.0] * 3)]
    assert set(head.state_dict()) == {"scale", "weight", "bias"}


def test_disalign_mixes_calibrated_and_plain_logits(features, start):
    head = started(heads["disalign"](), start)
    _, _, weight, bias = start
    features = features.double()
    torch.testing.assert_close(head(features), features @ weight.T + bias)  # a = 1 and b = 0
    random = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for values in head.parameters():
            values.copy_(torch.randn(values.shape, generator=random))
    for i in range(6):
        share = 1 / (1 + math.exp(-(head.confidence.weight[0] @ features[i] + head.confidence.bias[0]).item()))
        for k in range(3):
            z = weight[k] @ features[i] + bias[k]
            expected = share * (head.magnitude[k] * z + head.margin[k]) + (1 - share) * z
            torch.testing.assert_close(head(features)[i, k], expected)


def test_published_number_of_disalign():
    """On logits x with the confidence sigmoid(mean x), from features x and the identity as classifier."""
    i, k = torch.arange(10, dtype=torch.float64)[:, None], torch.arange(7, dtype=torch.float64)
    logits = 2 * torch.sin(1.1 * i + 0.9 * k + 0.3 * i * k)
    head = heads["disalign"]().build(7, 7).double()
    head.start_from(logits, torch.arange(10) % 7, torch.eye(7), torch.zeros(7))
    with torch.no_grad():
        head.margin.copy_(torch.linspace(-0.3, 0.3, 7, dtype=torch.float64))
        head.magnitude.copy_(torch.linspace(0.8, 1.4, 7, dtype=torch.float64))
        head.confidence.weight.fill_(1 / 7)
        head.confidence.bias.zero_()
    loss = F.cross_entropy(head(logits), torch.arange(10) % 7)
    assert loss.item() == pytest.approx(3.218981807819, abs=1e-11)


def test_disalign_trains_its_calibration_only(start):
    head = started(heads["disalign"](), start)
    names = [name for name, _ in head.named_parameters()]
    assert names == ["magnitude", "margin", "confidence.weight", "confidence.bias"]
    assert torch.equal(head.weight, start[2])


@pytest.mark.parametrize("tau", [0, 0.3, 1, 2])
def test_tau_normalisation_divides_by_a_power_of_the_length(features, start, tau):
    head = started(heads["tau_norm"](tau=tau), start)
    features, weight = features.double(), start[2]
    for i in range(6):
        for k in range(3):
            expected = weight[k] @ features[i] / sum(float(w) ** 2 for w in weight[k]) ** (tau / 2)
            torch.testing.assert_close(head(features)[i, k], expected)


def test_tau_normalisation_keeps_the_weights_or_makes_them_unit_vectors(start):
    assert torch.equal(started(heads["tau_norm"](tau=0), start).weight, start[2])
    rows = started(heads["tau_norm"](tau=1), start).weight
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(3, dtype=torch.float64))
    zero = started(heads["tau_norm"](tau=1), (*start[:2], torch.zeros(3, 5), start[3]))
    assert not zero.weight.any()


def test_logits_are_negative_squared_distances_to_the_class_means(features, start):
    head = started(heads["ncm"](scale=4), start)
    rows, labels, _, _ = start
    features = features.double() + 5
    centre = sum(rows) / 12
    for i in range(6):
        x = (features[i] - centre) / (features[i] - centre).norm()
        for k in range(3):
            directions = [(row - centre) / (row - centre).norm() for row, y in zip(rows, labels, strict=True) if y == k]
            mean = sum(directions) / len(directions)
            mean = mean / mean.norm()
            torch.testing.assert_close(head(features)[i, k], -4 * sum((x - mean) ** 2))


def test_the_nearest_class_does_not_depend_on_the_scale_nor_on_the_linear_classifier(start):
    rows = start[0] + 0.5
    nearest = started(heads["ncm"](), start)(rows).argmax(dim=1)
    assert torch.equal(nearest, started(heads["ncm"](scale=0.1), start)(rows).argmax(dim=1))
    assert torch.equal(nearest, started(heads["ncm"](), (*start[:2], -start[2], -start[3]))(rows).argmax(dim=1))


@pytest.mark.parametrize("name", ["tau_norm", "ncm"])
def test_a_head_without_parameters_needs_no_training(name):
    assert list(heads[name]().build(5, 3).parameters()) == []


def test_projections_have_unit_length_and_the_published_widths(features):
    projection = ProjectionHead(5)
    assert projection(features.reshape(3, 2, 5)).shape == (3, 2, 128)
    torch.testing.assert_close(projection(features).norm(dim=1), torch.ones(6))
    assert [tuple(layer.weight.shape) for layer in (projection.layers[0], projection.layers[2])] == [(5, 5), (128, 5)]
    assert ProjectionHead(5, hidden=9, out=4).layers[0].weight.shape == (9, 5)


def test_half_precision_is_normalised_in_single(features):
    short = (features * 1e-4).half()
    torch.testing.assert_close(unit_length(short).norm(dim=1), torch.ones(6))


def test_zero_stays_zero_and_has_no_gradient():
    zero = torch.zeros(1, 5, dtype=torch.float16, requires_grad=True)
    (30 * unit_length(zero)).sum().backward()
    assert unit_length(zero).tolist() == zero.grad.tolist() == [[0.0] * 5]
