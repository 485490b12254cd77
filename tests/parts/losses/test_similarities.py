"""Precision and memory of the losses on embeddings."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from raysk.parts.losses import EmbeddingLoss, losses, similarities
from raysk.parts.losses.similarities import mean_where, positive_means

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
    embeddings = features(3, 2, 4)
    same = torch.tensor([[True, True, False], [True, True, False], [False, False, True]])
    means, num_positives = positive_means(embeddings, same)
    assert num_positives.tolist() == [[3], [3], [1]]
    (a, b), (c, d), (e, f) = embeddings
    assert means[0, 1] == pytest.approx(float(b @ (a + c + d) / 3))
    assert means[2, 0] == pytest.approx(float(e @ f))
