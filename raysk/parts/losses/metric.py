"""Losses on distances between embeddings, for stage one beside cross entropy: triplets, contrastive pairs, n-pair."""

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raysk.parts.losses.base import EmbeddingLoss, losses
from raysk.parts.losses.contrastive import Temperature
from raysk.parts.losses.similarities import PreciseLoss, mean_where, row_blocks, sum_of_blocks
from raysk.settings import Between

Margin = Annotated[float, Between(0.0, 2.0)]  # unit vectors are at most 2 apart

# All of these losses count each view of an image as a member of its class.


@losses.register("batch_hard")
@dataclass(frozen=True, kw_only=True)
class BatchHard(EmbeddingLoss):
    """Batch-hard triplet loss: Hermans et al. 2017, equation 5, with Euclidean distances D.

        L = mean_a [margin + max_{p of a's class} D(a, p) - min_{n of another class} D(a, n)]_+

    Anchors without a positive or without a negative are left out of the mean.

    Args:
        margin: How much nearer the furthest positive must be than the nearest negative. The default is our choice: Zeng
            et al. 2022 do not give one; Hermans et al. try 0.1 to 1.
        soft: Whether log(1 + exp(D(a, p) - D(a, n))) replaces the hinge, without a margin.
    """

    margin: Margin = 0.3
    soft: bool = False

    def module(self, counts: Tensor, width: int) -> nn.Module:
        """Returns the module; it uses the number of classes, but not their counts."""
        return _BatchHard(len(counts), self.margin, self.soft)


@losses.register("centre_triplet")
@dataclass(frozen=True, kw_only=True)
class CentreTriplet(EmbeddingLoss):
    """Class-centre triplet loss: L = mean_i [margin + |z_i - c_{y_i}| - min_{j != y_i} |z_i - c_j|]_+.

    c_k is the mean of the class in the batch; the gradient flows through it, too. A batch of one class has loss 0.

    Args:
        margin: How much nearer the class's centre must be than any other centre. Our choice for Zeng et al. 2022.
    """

    margin: Margin = 0.3

    def module(self, counts: Tensor, width: int) -> nn.Module:
        """Returns the module; it uses the number of classes, but not their counts."""
        return _CentreTriplet(len(counts), self.margin)


@losses.register("pairs")
@dataclass(frozen=True, kw_only=True)
class Pairs(EmbeddingLoss):
    """Contrastive pairs: Hadsell et al. 2006, equation 4: D^2 / 2 of positives, [margin - D]_+^2 / 2 of negatives.

    Ours: the mean over the positive pairs plus the mean over the negative pairs, so that pull and push have equal
    weight whatever the class sizes. A batch with only one kind of pair has the mean of that kind.

    Args:
        margin: Distance from which negatives have no loss. Our choice: that of unit vectors at 60 degrees.
    """

    margin: Margin = 1.0

    def module(self, counts: Tensor, width: int) -> nn.Module:
        """Returns the module; it uses the number of classes, but not their counts."""
        return _Pairs(len(counts), self.margin)


@losses.register("npair")
@dataclass(frozen=True, kw_only=True)
class NPair(EmbeddingLoss):
    """Multi-class n-pair loss: Sohn 2016, equation 5, over all pairs of a batch.

        L = mean_a mean_{p of a's class} -log[ exp(z_a.z_p / tau) / (exp(z_a.z_p / tau) + sum_n exp(z_a.z_n / tau)) ]

    n runs over all views of other classes; the paper has one pair of each class in a batch. Unlike in SupCon, the
    denominator omits the other positives. Anchors without a positive or without a negative are left out.

    Args:
        temperature: tau; ours, since the paper's embeddings do not have unit length but their own scale.
    """

    temperature: Temperature = 0.1

    def module(self, counts: Tensor, width: int) -> nn.Module:
        """Returns the module; it uses the number of classes, but not their counts."""
        return _NPair(len(counts), self.temperature)


class _BatchHard(PreciseLoss):
    def __init__(self, num_classes: int, margin: float, soft: bool) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.margin = margin
        self.soft = soft

    def loss(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        z, view_labels, num_same = _views(embeddings, labels, self.num_classes)
        # Only the chosen distances need a gradient; they are computed again, without cancellation.
        with torch.no_grad():
            chosen = [_hardest(z, view_labels, rows) for rows in row_blocks(len(z), len(z))]
            furthest, nearest = (torch.cat(blocks) for blocks in zip(*chosen, strict=True))
        gaps = _distances(z, z[furthest]) - _distances(z, z[nearest])
        terms = F.softplus(gaps) if self.soft else F.relu(gaps + self.margin)
        return mean_where((num_same > 1) & (num_same < len(z)), terms)


class _CentreTriplet(PreciseLoss):
    def __init__(self, num_classes: int, margin: float) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.margin = margin

    def loss(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        members = F.one_hot(labels, self.num_classes).to(embeddings)  # (B, C)
        num_members = members.sum(dim=0)
        centres = members.T @ embeddings.mean(dim=1) / num_members.clamp_min(1)[:, None]  # (C, D)
        z, view_labels = embeddings.flatten(0, 1), labels.repeat_interleave(embeddings.shape[1])
        with torch.no_grad():
            order = _order_of_distances(z, centres).masked_fill_(num_members == 0, torch.inf)
            nearest = order.scatter_(1, view_labels[:, None], torch.inf).argmin(dim=1)
        gaps = _distances(z, centres[view_labels]) - _distances(z, centres[nearest])
        return mean_where((num_members > 0).sum() > 1, F.relu(gaps + self.margin))


class _Pairs(PreciseLoss):
    def __init__(self, num_classes: int, margin: float) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.margin = margin

    def loss(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        num_views = embeddings.shape[1]
        z, view_labels = embeddings.flatten(0, 1), labels.repeat_interleave(num_views)
        members = F.one_hot(labels, self.num_classes).to(embeddings)  # (B, C)
        sizes = num_views * members.sum(dim=0)  # (C,)
        # Over all pairs of n vectors, the sum of |a - b|^2 is n sum |a|^2 - |sum a|^2.
        sums_of_squares = members.T @ embeddings.square().sum(dim=(1, 2))
        squares_of_sums = (members.T @ embeddings.sum(dim=1)).square().sum(dim=1)
        pull = (sizes * sums_of_squares - squares_of_sums).sum()

        def pushed(z: Tensor, rows: slice) -> Tensor:
            """Returns the sum over the negatives of the views in `rows`."""
            squares = z.square().sum(dim=1)
            squares = torch.addmm(squares[rows, None] + squares, z[rows], z.T, alpha=-2)
            # |a|^2 + |b|^2 - 2 a.b has no correct digits below 1e-3 squared: negatives that close are not pushed, just
            # as equal ones cannot be.
            same = view_labels[rows, None] == view_labels
            distances = squares.clamp_min(1e-6).masked_fill(same, torch.inf).sqrt()
            return F.relu(self.margin - distances).square().sum()

        push = sum_of_blocks(pushed, z, len(z), len(z)) / 2  # the matrix holds each pair twice
        num_positives = (sizes * (sizes - 1)).sum() / 2
        num_negatives = (len(z) ** 2 - sizes.square().sum()) / 2
        return (pull / num_positives.clamp_min(1) + push / num_negatives.clamp_min(1)) / 2


class _NPair(PreciseLoss):
    def __init__(self, num_classes: int, temperature: float) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.temperature = temperature

    def loss(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        z, view_labels, num_same = _views(embeddings, labels, self.num_classes)
        is_anchor = (num_same > 1) & (num_same < len(z))
        weights = is_anchor / (num_same - 1).clamp_min(1).to(z)

        def weighted(z: Tensor, rows: slice) -> Tensor:
            """Returns the sum over the positives of the anchors in `rows`, weighted by anchor."""
            scores = (z[rows] / self.temperature) @ z.T
            same = view_labels[rows, None] == view_labels
            # Not minus infinity, but the smallest number: a row without negatives would have no slope.
            negatives = scores.masked_fill(same, torch.finfo(z.dtype).min).logsumexp(dim=1, keepdim=True)
            # The softplus of minus infinity is 0, and so is its slope.
            positives = same.diagonal_scatter(same.new_zeros(len(same)), rows.start)
            scores = scores.masked_fill(~positives, torch.inf)
            return (F.softplus(negatives - scores).sum(dim=1) * weights[rows]).sum()

        return sum_of_blocks(weighted, z, len(z), len(z)) / is_anchor.sum().clamp_min(1)


def _views(embeddings: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the views (B V, D), their classes (B V,), and the number of views in their classes, (B V,)."""
    num_views = embeddings.shape[1]
    view_labels = labels.repeat_interleave(num_views)
    num_same = num_views * F.one_hot(labels, num_classes).sum(dim=0)[view_labels]
    return embeddings.flatten(0, 1), view_labels, num_same


def _hardest(z: Tensor, view_labels: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
    """Returns, for the views in `rows`, the indices of the furthest view of the class and the nearest of another."""
    order = _order_of_distances(z[rows], z)
    same = view_labels[rows, None] == view_labels
    return order.masked_fill(~same, -torch.inf).argmax(dim=1), order.masked_fill_(same, torch.inf).argmin(dim=1)


def _order_of_distances(anchors: Tensor, others: Tensor) -> Tensor:
    """Returns |a - b|^2 - |a|^2, (N, M), which orders each row as the distances do."""
    return torch.addmm(others.square().sum(dim=1), anchors, others.T, alpha=-2)


def _distances(anchors: Tensor, others: Tensor) -> Tensor:
    """Returns |a - b|, (N,), of the rows of two matrices (N, D)."""
    squares = (anchors - others).square().sum(dim=1)
    # At 0 the root has an infinite slope; the clamp makes it zero.
    return squares.clamp_min(torch.finfo(squares.dtype).tiny).sqrt()
