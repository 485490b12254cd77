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


def test_cosine_logits_do_not_change_with_the_length_of_anything(features):
    head = heads["cosine"]().build(5, 3)
    expected = head(features)
    with torch.no_grad():
        head.weight.mul_(torch.tensor([[1.0], [10.0], [0.1]]))
    torch.testing.assert_close(head(features * 7), expected)


def test_projections_have_length_one_and_the_published_widths(features):
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
