"""What the losses on embeddings share: their precision, means over positives, and all pairs in little memory."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from raysk.parts.losses.base import at_least_single

# Numbers in a block of the matrix of all pairs: few enough to stay near the core, many enough to be worth a call.
BLOCK_NUMBERS = 2**19


class PreciseLoss(nn.Module, ABC):
    """A loss on embeddings that is computed in float32 at least, whatever autocast is at work around it."""

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Returns the loss of embeddings (B, V, D) with labels (B,)."""
        # Autocast would multiply in half precision, whose error the division by tau makes 14 times as large.
        with torch.autocast(embeddings.device.type, enabled=False):
            return self.loss(at_least_single(embeddings), labels)

    @abstractmethod
    def loss(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Returns the loss of embeddings (B, V, D), float32 or float64, with labels (B,)."""


def same_label(labels: Tensor) -> Tensor:
    """Returns which of the labels (B,) are equal, (B, B)."""
    return labels[:, None] == labels[None, :]


def mean_where(kept: Tensor, values: Tensor) -> Tensor:
    """Returns the mean of the values that are kept; 0, with a gradient of 0, where none is."""
    kept = kept.expand_as(values)
    # No branch on a value, which would make the accelerator wait.
    return torch.where(kept, values, 0).sum() / kept.sum().clamp_min(1)


def positive_means(embeddings: Tensor, same: Tensor, most_others: int | None = None) -> tuple[Tensor, Tensor]:
    """Returns each view's mean similarity z_i.z_p to its positives, (B, V), and how many there are, (B, 1).

    No matrix of all pairs is made: the sum over positives is z_i times the sum of the positives.

    Args:
        embeddings: Unit vectors, (B, V, D).
        same: Which images are positives of which, (B, B), symmetric and true on the diagonal.
        most_others: Positives count as this many, where there are more, besides the other views of the image itself:
            each of them by its chance of being among those drawn. All of them unless given.
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
    """Returns the sum of the terms of all rows with the memory of one block of rows.

    The gradient of a sum does not depend on what is made of it, but for a factor. So each block's gradient is computed
    right after its terms, and nothing else is kept for the backward pass.

    Args:
        terms: Embeddings and rows to the sum of these rows' terms; of all it reads, only embeddings get a gradient.
        embeddings: Of any shape.
        num_rows: How many there are.
        numbers_a_row: Size of the largest tensor that `terms` makes of one row.
    """
    total: Tensor = _SumOfBlocks.apply(embeddings, terms, row_blocks(num_rows, numbers_a_row))
    return total


def row_blocks(num_rows: int, numbers_a_row: int) -> list[slice]:
    """Returns slices of the rows, one after the other, each of about `BLOCK_NUMBERS` numbers."""
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
        extra: More vectors that stand in the sums, (M, D); M is 0 unless given.
        log_weights: log w_a, (B V + M,); 0 unless given. It gets no gradient.
        groups: Of the images, (B,): whole numbers below G, where the weights depend on them, (G, B V + M).
    """
    z = embeddings.flatten(0, 1)  # (B V, D)
    others = z if extra is None else torch.cat([z, extra])
    log_weights = z.new_zeros(()) if log_weights is None else log_weights
    groups = None if groups is None else groups.repeat_interleave(embeddings.shape[1])
    denominators: Tensor = _LogDenominators.apply(z, others, log_weights, groups, temperature)
    return denominators.view(embeddings.shape[:2])


class _LogDenominators(torch.autograd.Function):
    """Logarithms of sums over the others (N + M, D), which begin with the anchors (N, D).

    The backward pass computes the scores of each block once more, which takes less time than to fetch a large matrix
    from memory.
    """

    @staticmethod
    def forward(
        ctx: Any, anchors: Tensor, others: Tensor, log_weights: Tensor, groups: Tensor | None, temperature: float
    ) -> Tensor:
        ctx.temperature = temperature
        result = anchors.new_empty(len(anchors))
        for rows in row_blocks(len(anchors), len(others)):
            result[rows] = _scores(rows, anchors, others, log_weights, groups, temperature).logsumexp(dim=1)
        ctx.save_for_backward(result, anchors, others, log_weights, groups)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        result, anchors, others, log_weights, groups = ctx.saved_tensors
        of_anchors, of_others = torch.empty_like(anchors), torch.zeros_like(others)
        for rows in row_blocks(len(anchors), len(others)):
            scores = _scores(rows, anchors, others, log_weights, groups, ctx.temperature)
            shares = scores.sub_(result[rows, None]).exp_()
            shares.diagonal(rows.start).fill_(0)  # A view that is alone has minus infinity in its result too.
            slopes = grad[rows, None] / ctx.temperature
            of_anchors[rows] = shares @ others * slopes
            of_others.addmm_(shares.T, anchors[rows] * slopes)
        return of_anchors, of_others, None, None, None


def _scores(
    rows: slice, anchors: Tensor, others: Tensor, log_weights: Tensor, groups: Tensor | None, temperature: float
) -> Tensor:
    """Returns log w_a + z_i.z_a / tau of some anchors, (b, N + M); minus infinity for a = i."""
    shift = log_weights if groups is None else log_weights[groups[rows]]
    scores = torch.addmm(shift, anchors[rows], others.T, alpha=1 / temperature)
    scores.diagonal(rows.start).fill_(-torch.inf)
    return scores


def contrastive_loss(embeddings: Tensor, same: Tensor, temperature: float, most_others: int | None = None) -> Tensor:
    """Returns (1/|I|) sum_{i in I} [log sum_{a != i} exp(z_i.z_a / tau) - mean_{p in P(i)} z_i.z_p / tau].

    I holds the anchors that have a positive; without any the loss is 0, with a gradient of 0. The arguments are those
    of `positive_means`.
    """
    means, num_positives = positive_means(embeddings, same, most_others)
    return mean_where(num_positives > 0, log_denominators(embeddings, temperature) - means / temperature)
