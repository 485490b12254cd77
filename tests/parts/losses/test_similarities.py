"""Precision and memory of the losses on embeddings."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from raysk.parts.heads import unit_length
from raysk.parts.losses import EmbeddingLoss, losses, similarities
from raysk.parts.losses.contrastive import contrastive_formula
from raysk.parts.losses.similarities import contrasts, mean_where, positive_shares

EMBEDDING_LOSSES = [name for name in losses if issubclass(losses[name], EmbeddingLoss)]


class Largest(TorchDispatchMode):
    """Records the size of the largest result of any operation."""

    largest = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor) and not is_expanded(tensor):
                self.largest = max(self.largest, tensor.numel())
        return result


def is_expanded(tensor):
    """Returns whether entries share their memory, as in the gradient of a sum."""
    return any(stride == 0 and size > 1 for stride, size in zip(tensor.stride(), tensor.shape, strict=True))


def step_of(name, embeddings):
    """Returns the loss and its gradient."""
    embeddings = embeddings.detach().requires_grad_()
    labels = torch.arange(len(embeddings)) % 3
    loss = losses[name]().build(torch.tensor([12, 11, 9]), embeddings.shape[2])(embeddings, labels)
    loss.backward()
    return loss.detach(), embeddings.grad


@pytest.mark.parametrize("name", EMBEDDING_LOSSES)
def test_no_tensor_of_either_pass_is_larger_than_a_block(features, monkeypatch, name):
    monkeypatch.setattr(similarities, "BLOCK_NUMBERS", 4096)
    embeddings = features(64, 3, 4)  # 192 views, and 36,864 pairs
    with Largest() as sizes:
        step_of(name, embeddings)
    assert sizes.largest <= 64 * 64  # of the labels of images


@pytest.mark.parametrize("name", EMBEDDING_LOSSES)
def test_blocks_do_not_change_the_loss_or_its_gradient(features, monkeypatch, name):
    results = []
    for numbers in (1, 100, 10**9):
        monkeypatch.setattr(similarities, "BLOCK_NUMBERS", numbers)
        results.append(step_of(name, features(7, 3, 4)))
    for loss, grad in results[1:]:
        torch.testing.assert_close(loss, results[0][0], rtol=1e-12, atol=0)
        torch.testing.assert_close(grad, results[0][1], rtol=1e-9, atol=1e-14)


def test_the_choice_of_triplets_keeps_no_matrix_for_the_backward_pass(features):
    kept = []

    def note(tensor):
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        step_of("batch_hard", features(64, 2, 4))
    assert 0 < max(kept) < (64 * 2) ** 2


def test_the_mean_of_nothing_is_zero_with_a_gradient_of_zero():
    values = torch.tensor([3.0, 5.0, 8.0], requires_grad=True)
    assert mean_where(torch.tensor([True, False, True]), values) == 5.5
    nothing = mean_where(torch.tensor(False), values)
    nothing.backward()
    assert nothing == 0
    assert values.grad.tolist() == [0, 0, 0]


def test_positives_are_the_other_views_of_image_and_class(features):
    same = torch.tensor([[True, True, False], [True, True, False], [False, False, True]])
    shares, num_positives = positive_shares(features(3, 2, 4), same)
    assert num_positives.tolist() == [[3], [3], [1]]
    torch.testing.assert_close(shares, torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 3]]).double() / 3)
    shares, num_positives = positive_shares(features(3, 2, 4), same, most_others=1)
    assert num_positives.tolist() == [[2], [2], [1]]
    torch.testing.assert_close(shares, torch.tensor([[2, 1, 0], [1, 2, 0], [0, 0, 4]]).double() / 4)


def test_a_contrast_subtracts_the_positives_from_the_logarithm_of_the_sum(features):
    embeddings = features(2, 2, 4)
    (a, b), (c, d) = embeddings
    centre = features(1, 1, 4)[0]
    positives = torch.tensor([[0.25, 0.375], [0.0, 1.0]], dtype=torch.float64)
    values = contrasts(embeddings, positives, 0.5, (centre, torch.zeros(2, 1, dtype=torch.float64)))
    scores = [float(b @ other) / 0.5 for other in (a, c, d, centre[0])]
    expected = math.log(sum(map(math.exp, scores))) - (0.25 * scores[0] + 0.375 * (scores[1] + scores[2]))
    assert values[0, 1].item() == pytest.approx(expected, rel=1e-12)


CONTRASTS = ["supcon", "simclr", "kcl", "supmin", "tsc", "bcl", "paco"]


def with_the_whole_matrix(name, module, embeddings, labels):
    """Returns a loss as its paper writes it, from all pairs of views, for torch to differentiate."""
    num_images, num_views, _ = embeddings.shape
    z, key = embeddings.flatten(0, 1), labels.repeat_interleave(num_views)
    image = torch.arange(num_images).repeat_interleave(num_views)
    others, same_image, same_class = ~torch.eye(len(z)).bool(), image[:, None] == image, key[:, None] == key
    pairs = same_class
    if name in ("simclr", "supmin"):
        pairs = same_image | (same_class & (module.is_small[key, None] if name == "supmin" else False))
    positives = (pairs & others).to(z)
    if name in ("kcl", "tsc"):
        num_others = (same_class & ~same_image).sum(1, keepdim=True)
        positives = torch.where(same_image, positives, positives * (6 / num_others).clamp_max(1))
    temperature = module.temperature if hasattr(module, "temperature") else module.settings.temperature
    scores = z @ z.T / temperature
    negatives = scores.masked_fill(~others, -torch.inf)
    if name not in ("tsc", "bcl", "paco"):
        return mean_contrast(negatives, scores, positives)
    if name == "tsc":
        pulls = z @ module.targets[module.target_of_class].to(z).T / temperature
        own = F.one_hot(key, pulls.shape[1]).to(z)
        nothing = torch.zeros_like(positives)
        negatives, scores = torch.cat([negatives, pulls], 1), torch.cat([scores, pulls], 1)
        views, targets = torch.cat([positives, 0 * own], 1), torch.cat([nothing, own], 1)
        return mean_contrast(negatives, scores, views) + mean_contrast(negatives, scores, targets)
    own = F.one_hot(key, len(module.centres)).to(z)
    if name == "bcl":
        pulls = z @ unit_length(module.centres.to(z)).T / temperature
        num_members = torch.cat([same_class.sum(1), own.sum(0)]) + 1  # of each other's class, with its centre
        num_members = num_members - torch.cat([same_class, own], 1)
        negatives = torch.cat([negatives, pulls], 1) - num_members.log()
        return mean_contrast(negatives, torch.cat([scores, pulls], 1), torch.cat([positives, own], 1))
    settings = module.settings
    pulls = (z @ module.centres.to(z).T + module.log_shares.to(z)) / settings.supt
    weights = torch.cat([settings.alpha * positives, settings.beta * own], 1)
    return mean_contrast(torch.cat([negatives, pulls], 1), torch.cat([scores, pulls], 1), weights)


def mean_contrast(negatives, scores, weights):
    """Returns the mean of log sum exp(negatives) minus the weighted mean of the scores, over rows with a weight."""
    kept = weights.sum(1) > 0
    terms = negatives.logsumexp(1) - (weights / weights.sum(1, keepdim=True).clamp_min(1e-30) * scores).sum(1)
    return terms[kept].mean()


def tight_classes(spread, num_classes):
    """Returns vectors (B, V, D) about `spread` away from one of a class, which differ in the angle, and labels."""
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(64) % num_classes
    centres = unit_length(torch.randn(num_classes, 32, generator=random))[labels]
    return centres[:, None] + spread / 32**0.5 * torch.randn(64, 2, 32, generator=random), labels


def error_of(loss, vectors, exact):
    """Returns the relative error of the gradient that reaches a network, which normalises its outputs."""
    vectors = vectors.clone().requires_grad_()
    loss(unit_length(vectors)).backward()
    return float((vectors.grad.double() - exact).norm() / exact.norm())


@pytest.mark.parametrize("num_classes", [2, 3, 7])
@pytest.mark.parametrize("temperature", [0.05, 0.07, 0.5])
@pytest.mark.parametrize("spread", [0.1, 0.01, 0.003])
@pytest.mark.parametrize("name", CONTRASTS)
def test_gradients_in_single_precision_are_as_good_as_those_of_the_formula(name, spread, temperature, num_classes):
    vectors, labels = tight_classes(spread, num_classes)
    module = losses[name](temperature=temperature).build(torch.arange(1, num_classes + 1), 32).eval()

    def formula(z):
        return with_the_whole_matrix(name, module, z, labels)

    exact = vectors.double().requires_grad_()
    value = formula(unit_length(exact))
    value.backward()
    torch.testing.assert_close(module(unit_length(vectors.double()), labels), value.detach(), rtol=1e-6, atol=1e-6)
    error = error_of(lambda z: module(z, labels), vectors, exact.grad)
    assert error <= 1.3 * error_of(formula, vectors, exact.grad) + 1e-6


def test_supcon_of_tight_classes_keeps_its_digits():
    """Its gradient was 14 % wrong here, since float32 subtracted sums of vectors that were nearly equal."""
    vectors, labels = tight_classes(0.01, 3)
    exact = vectors.double().requires_grad_()
    contrastive_formula(unit_length(exact), labels, 0.07).backward()
    module = losses["supcon"](temperature=0.07).build(torch.tensor([22, 21, 21]), 32)
    assert error_of(lambda z: module(z, labels), vectors, exact.grad) < 3e-3
