"""Tools of the losses on embeddings: precision, means over positives, and sums over all pairs in little memory."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from raysk.parts.losses.base import at_least_single

# Numbers in a block of the matrix of all pairs: few enough for the core's cache, many enough to be worth a call.
BLOCK_NUMBERS = 2**19


class PreciseLoss(nn.Module, ABC):
    """A loss on embeddings that is computed in at least float32, even inside autocast."""

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Returns the loss of embeddings (B, V, D) with labels (B,)."""
        # Autocast would multiply in half precision, and dividing by tau makes its error 14 times as large.
        with torch.autocast(embeddings.device.type, enabled=False):
            return self.loss(at_least_single(embeddings), labels)

    @abstractmethod
    def loss(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Returns the loss of embeddings (B, V, D), float32 or float64, with labels (B,)."""


def same_label(labels: Tensor) -> Tensor:
    """Returns the mask of pairs of equal labels, (B, B), for labels (B,)."""
    return labels[:, None] == labels[None, :]


def mean_where(kept: Tensor, values: Tensor) -> Tensor:
    """Returns the mean of the kept values; 0, with a gradient of 0, if none is kept."""
    kept = kept.expand_as(values)
    # A branch on a value would make the accelerator wait.
    return torch.where(kept, values, 0).sum() / kept.sum().clamp_min(1)


def positive_means(embeddings: Tensor, same: Tensor, most_others: int | None = None) -> tuple[Tensor, Tensor]:
    """Returns each view's mean similarity z_i.z_p to its positives, (B, V), and their number, (B, 1).

    No matrix of all pairs is needed: the sum over positives is z_i times the sum of the positives.

    Args:
        embeddings: Unit vectors, (B, V, D).
        same: Whether two images are positives of each other, (B, B), symmetric and true on the diagonal.
        most_others: Most positives in other images. If there are more, each counts by its chance of being drawn. None
            counts all of them. The other views of the image itself always count.
    """
    num_views = embeddings.shape[1]
    images = embeddings.sum(dim=1)  # (B, D)
    members = same.to(images)
    others = members @ images - images  # (B, D), of the other images
    own_sums = (embeddings * (images[:, None] - embeddings)).sum(dim=2)  # (B, V)
    other_sums = (embeddings * others[:, None]).sum(dim=2)  # (B, V)

    num_others = (members.sum(dim=1, keepdim=True) - 1) * num_views  # (B, 1)
    num_drawn = num_others if most_others is None else num_others.clamp_max(most_others)
    num_positives = num_views - 1 + num_drawn
    sums = own_sums + other_sums * (num_drawn / num_others.clamp_min(1))
    return sums / num_positives.clamp_min(1), num_positives


def sum_of_blocks(
    terms: Callable[[Tensor, slice], Tensor], embeddings: Tensor, num_rows: int, numbers_a_row: int
) -> Tensor:
    """Returns the sum of the terms of all rows, in the memory of one block of rows.

    Later operations only scale the gradient of a sum. So each block's gradient is computed right after its terms, and
    nothing else is kept for the backward pass.

    Args:
        terms: Maps embeddings and rows to the sum of these rows' terms; only the embeddings get a gradient.
        embeddings: Of any shape.
        num_rows: Number of rows.
        numbers_a_row: Size of the largest tensor that `terms` creates for one row.
    """
    total: Tensor = _SumOfBlocks.apply(embeddings, terms, row_blocks(num_rows, numbers_a_row))
    return total


def row_blocks(num_rows: int, numbers_a_row: int) -> list[slice]:
    """Returns consecutive slices of the rows, each of about `BLOCK_NUMBERS` numbers."""
    size = max(1, BLOCK_NUMBERS // numbers_a_row)
    return [slice(start, start + size) for start in range(0, num_rows, size)]


class _SumOfBlocks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, embeddings: Tensor, terms: Callable[[Tensor, slice], Tensor], blocks: list[slice]) -> Tensor:
        total, slope = embeddings.new_zeros(()), torch.zeros_like(embeddings)
        for rows in blocks:
            with torch.enable_grad():
                leaf = embeddings.detach().requires_grad_()
                part = terms(leaf, rows)
            total += part.detach()
            slope += torch.autograd.grad(part, leaf)[0]
        ctx.save_for_backward(slope)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (slope,) = ctx.saved_tensors
        return grad * slope, None, None


def log_denominators(
    embeddings: Tensor,
    temperature: float,
    extra: Tensor | None = None,
    log_weights: Tensor | None = None,
    groups: Tensor | None = None,
) -> Tensor:
    """Returns log sum_{a != i} w_a exp(z_i.z_a / tau) of each view i, (B, V).

    Args:
        embeddings: Unit vectors, (B, V, D).
        temperature: tau.
        extra: Further vectors in the sums, (M, D); M is 0 if None.
        log_weights: log w_a, (B V + M,); 0 if None. It gets no gradient.
        groups: Group of each image, (B,), whole numbers below G, if the weights differ by group, (G, B V + M).
    """
    z = embeddings.flatten(0, 1)  # (B V, D)
    others = z if extra is None else torch.cat([z, extra])
    log_weights = z.new_zeros(()) if log_weights is None else log_weights
    groups = None if groups is None else groups.repeat_interleave(embeddings.shape[1])
    denominators: Tensor = _LogDenominators.apply(z, others, log_weights, groups, temperature)
    return denominators.view(embeddings.shape[:2])


class _LogDenominators(torch.autograd.Function):
    """Logarithms of sums over the others (N + M, D), whose first N rows are the anchors (N, D).

    The backward pass computes the scores of each block again: this takes less time than fetching a large matrix from
    memory.
    """

    @staticmethod
    def forward(
        ctx: Any, anchors: Tensor, others: Tensor, log_weights: Tensor, groups: Tensor | None, temperature: float
    ) -> Tensor:
        ctx.temperature = temperature
        log_sums = anchors.new_empty(len(anchors))
        for rows in row_blocks(len(anchors), len(others)):
            log_sums[rows] = _scores(rows, anchors, others, log_weights, groups, temperature).logsumexp(dim=1)
        ctx.save_for_backward(log_sums, anchors, others, log_weights, groups)
        return log_sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        log_sums, anchors, others, log_weights, groups = ctx.saved_tensors
        anchor_grads, other_grads = torch.empty_like(anchors), torch.zeros_like(others)
        for rows in row_blocks(len(anchors), len(others)):
            scores = _scores(rows, anchors, others, log_weights, groups, ctx.temperature)
            shares = scores.sub_(log_sums[rows, None]).exp_()
            shares.diagonal(rows.start).fill_(0)  # The log sum of a lone view is minus infinity too.
            slopes = grad[rows, None] / ctx.temperature
            anchor_grads[rows] = shares @ others * slopes
            other_grads.addmm_(shares.T, anchors[rows] * slopes)
        return anchor_grads, other_grads, None, None, None


def _scores(
    rows: slice, anchors: Tensor, others: Tensor, log_weights: Tensor, groups: Tensor | None, temperature: float
) -> Tensor:
    """Returns log w_a + z_i.z_a / tau of the anchors in `rows`, (b, N + M); minus infinity for a = i."""
    shift = log_weights if groups is None else log_weights[groups[rows]]
    scores = torch.addmm(shift, anchors[rows], others.T, alpha=1 / temperature)
    scores.diagonal(rows.start).fill_(-torch.inf)
    return scores


def contrastive_loss(embeddings: Tensor, same: Tensor, temperature: float, most_others: int | None = None) -> Tensor:
    """Returns (1/|I|) sum_{i in I} [log sum_{a != i} exp(z_i.z_a / tau) - mean_{p in P(i)} z_i.z_p / tau].

    I holds the anchors that have a positive; if I is empty, the loss is 0, with a gradient of 0. The arguments are
    those of `positive_means`.
    """
    means, num_positives = positive_means(embeddings, same, most_others)
    return mean_where(num_positives > 0, log_denominators(embeddings, temperature) - means / temperature)
