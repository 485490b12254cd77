"""Tools of the losses on embeddings: precision, shares of positives, and sums over all pairs in little memory."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from raysk.parts.precision import at_least_single

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


def positive_shares(embeddings: Tensor, same: Tensor, most_others: int | None = None) -> tuple[Tensor, Tensor]:
    """Returns the share of a view of image j in the positives of a view of image i, (B, B), and their number, (B, 1).

    Over all views but the view itself, the shares of a view sum to 1, or to 0 if it has no positive.

    Args:
        embeddings: Unit vectors, (B, V, D).
        same: Whether two images are positives of each other, (B, B), symmetric and true on the diagonal.
        most_others: Most positives in other images. If there are more, each counts by its chance of being drawn. None
            counts all of them. The other views of the image itself always count.
    """
    num_views = embeddings.shape[1]
    shares = same.to(embeddings)
    num_others = (shares.sum(dim=1, keepdim=True) - 1) * num_views  # (B, 1)
    num_drawn = num_others if most_others is None else num_others.clamp_max(most_others)
    num_positives = num_views - 1 + num_drawn
    shares *= num_drawn / (num_others * num_positives).clamp_min(1)
    shares.diagonal().copy_(1 / num_positives.clamp_min(1).squeeze(1))
    return shares, num_positives


def leave_to_centres(shares: Tensor, share_of_views: Tensor, labels: Tensor, num_centres: int) -> Tensor:
    """Scales shares of positives in place, and returns the shares of the centres, (B, M), which have the rest.

    Args:
        shares: Shares among the images, (B, B), from `positive_shares`.
        share_of_views: Share of all views together, (B, 1).
        labels: Number of the centre that is a positive of each image, (B,).
        num_centres: M.
    """
    shares *= share_of_views
    return F.one_hot(labels, num_centres) * (1 - share_of_views)


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


def contrasts(
    embeddings: Tensor,
    positives: Tensor,
    temperature: float,
    centres: tuple[Tensor, Tensor] | None = None,
    log_weights: Tensor | None = None,
    groups: Tensor | None = None,
) -> Tensor:
    """Returns log sum_{a != i} w_a exp(z_i.z_a / tau) - sum_{a != i} p_ia z_i.z_a / tau of each view i, (B, V).

    a runs over the other views and the centres. In a tight class both terms have nearly the same gradient. So the
    backward pass subtracts the coefficients of each vector z_a, as the formula does; float32 has too few digits to
    subtract the weighted sums of vectors.

    Args:
        embeddings: Unit vectors, (B, V, D).
        positives: p of all views of an image, (B, B). It gets no gradient.
        temperature: tau.
        centres: Further vectors in the sums, (M, D), and their p for each image, (B, M); M is 0 if None.
        log_weights: log w_a, (B V + M,); 0 if None. It gets no gradient.
        groups: Group of each image, (B,), whole numbers below G, if the weights differ by group, (G, B V + M).
    """
    z = embeddings.flatten(0, 1)  # (B V, D)
    vectors, centre_positives = centres or (z[:0], positives[:, :0])
    others = z if centres is None else torch.cat([z, vectors])
    log_weights = z.new_zeros(()) if log_weights is None else log_weights
    groups = None if groups is None else groups.repeat_interleave(embeddings.shape[1])
    values: Tensor = _Contrasts.apply(z, others, positives, centre_positives, log_weights, groups, temperature)
    return values.view(embeddings.shape[:2])


class _Contrasts(torch.autograd.Function):
    """The contrasts of anchors (N, D) with the others (N + M, D), whose first N rows are the anchors.

    The backward pass computes the scores of each block again: this takes less time than fetching a large matrix from
    memory.
    """

    @staticmethod
    def forward(
        ctx: Any,
        anchors: Tensor,
        others: Tensor,
        positives: Tensor,
        centre_positives: Tensor,
        log_weights: Tensor,
        groups: Tensor | None,
        temperature: float,
    ) -> Tensor:
        ctx.temperature = temperature
        log_sums = anchors.new_empty(len(anchors))
        for rows in row_blocks(len(anchors), len(others)):
            log_sums[rows] = _scores(rows, anchors, others, log_weights, groups, temperature).logsumexp(dim=1)
        ctx.save_for_backward(log_sums, anchors, others, positives, centre_positives, log_weights, groups)
        # No matrix of all pairs is needed: the sum over positives is z_i times their weighted sum.
        views = anchors.unflatten(0, (len(positives), -1))  # (B, V, D)
        sums = positives @ views.sum(dim=1) + centre_positives @ others[len(anchors) :]  # (B, D), with z_i itself
        pulls = (views * (sums[:, None] - positives.diagonal()[:, None, None] * views)).sum(dim=2)  # (B, V)
        return log_sums - pulls.flatten() / temperature

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        log_sums, anchors, others, positives, centre_positives, log_weights, groups = ctx.saved_tensors
        num_views = len(anchors) // len(positives)
        anchor_grads, other_grads = torch.empty_like(anchors), torch.zeros_like(others)
        for images in row_blocks(len(positives), num_views * len(others)):
            rows = slice(images.start * num_views, images.stop * num_views)
            scores = _scores(rows, anchors, others, log_weights, groups, ctx.temperature)
            coefficients = scores.sub_(log_sums[rows, None]).exp_()  # (b, N + M)
            of_views, of_centres = coefficients.unflatten(0, (-1, num_views)).tensor_split([len(anchors)], dim=2)
            of_views -= positives[images].repeat_interleave(num_views, dim=1)[:, None]
            of_centres -= centre_positives[images][:, None]
            coefficients.diagonal(rows.start).fill_(0)  # The log sum of a lone view is minus infinity too.
            slopes = grad[rows, None] / ctx.temperature
            anchor_grads[rows] = coefficients @ others * slopes
            other_grads.addmm_(coefficients.T, anchors[rows] * slopes)
        return anchor_grads, other_grads, None, None, None, None, None


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

    I holds the anchors that have a positive; if I is empty, the loss is 0, with a gradient of 0. `same` and
    `most_others` are those of `positive_shares`.
    """
    shares, num_positives = positive_shares(embeddings, same, most_others)
    return mean_where(num_positives > 0, contrasts(embeddings, shares, temperature))
