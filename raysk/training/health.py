"""The health of a representation: numbers that can be compared where contrastive losses cannot.

A temperature or a number of views changes the scale of a contrastive loss, so that the losses of two recipes say
nothing about each other. How well the class means sort rows that the encoder has not seen says it, and how the
features lie on the sphere says why.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from raysk.errors import DataError, TrainingError
from raysk.evaluation.metrics import macro_f1_score
from raysk.parts.heads import NearestMeanHead, unit_length
from raysk.records import Health

# Of unit features in single precision, what is smaller than this is rounding and not a difference.
_ROUNDING = 1e-6
# Rows whose similarities to all others are held at a time.
_BLOCK_ROWS = 1024
# Two classes closer than half a standard deviation overlap so far that the best border between them puts 60 % of the
# rows on the right side, where guessing has 50 %. The constant is our choice.
_LEAST_SEPARATION = 0.5


def measure(
    train_features: Tensor,
    train_labels: np.ndarray,
    held_out_features: Tensor,
    held_out_labels: np.ndarray,
    class_names: Sequence[str],
) -> Health:
    """Returns the health of an encoder, from the features that it gives.

    Args:
        train_features: Features of training rows, (N, D).
        train_labels: Their classes, (N,), each class at least once.
        held_out_features: Features of rows that were not trained on, (M, D).
        held_out_labels: Their classes, (M,).
        class_names: Names of the classes, C.

    Raises:
        DataError: There are no rows.
        TrainingError: A feature is not a number.
    """
    if not len(train_labels) or not len(held_out_labels):
        raise DataError(
            "health is measured on training and held-out rows, "
            f"but got {len(train_labels)} and {len(held_out_labels)}: use fewer folds"
        )
    train_features, held_out_features = train_features.detach().double(), held_out_features.detach().double()
    if not (torch.isfinite(train_features).all() and torch.isfinite(held_out_features).all()):
        raise TrainingError("features must be numbers, but some are not: choose a smaller learning rate")
    labels, unseen_labels = (
        torch.from_numpy(of_part).to(train_features.device) for of_part in (train_labels, held_out_labels)
    )
    known, unseen = unit_length(train_features), unit_length(held_out_features)
    collapsed = [class_names[k] for k in collapsed_classes(known, labels, unseen, unseen_labels, len(class_names))]
    rank = effective_rank(known)
    return Health(
        probe=_probe(train_features, labels, held_out_features, held_out_labels, len(class_names)),
        alignment=alignment(known, labels),
        uniformity=uniformity(known),
        effective_rank=rank,
        collapsed=tuple(collapsed),
        alarm=_alarm(rank, collapsed, len(class_names)),
    )


def _alarm(rank: float, collapsed: Sequence[str], num_classes: int) -> str | None:
    """Returns one line on what has gone wrong, or None.

    C classes that are all apart alike, as contrastive losses would have them, span C - 1 directions. Fewer than half of
    these is the alarm: our choice.
    """
    if rank < (num_classes - 1) / 2:
        return (
            f"the features have collapsed: they use {rank:.1f} directions, "
            f"where {num_classes} classes need {num_classes - 1}"
        )
    if collapsed:
        return f"classes have collapsed onto others that have as many rows or more: {', '.join(collapsed)}"
    return None


def probe_rows(labels: np.ndarray, rows: np.ndarray, per_class: int, seed: int) -> np.ndarray:
    """Returns at most `per_class` of the rows of each class, sorted; equal arguments give equal rows.

    Args:
        labels: Classes of the rows, (N,).
        rows: Row numbers, (N,).
        per_class: Most rows of a class.
        seed: Names the choice.
    """
    order = np.random.default_rng(seed).permutation(len(rows))
    chosen = [order[labels[order] == label][:per_class] for label in np.unique(labels)]
    return np.sort(rows[np.concatenate(chosen)])


def alignment(directions: Tensor, labels: Tensor) -> float:
    """Returns the mean of |z_i - z_j|^2 over pairs of one class, for z (N, D) and classes (N,); 0 without a pair."""
    # The sum over the pairs of n rows is n sum |z|^2 - |sum z|^2, whose difference keeps no digits near 0; about the
    # class mean the second term is gone.
    num_rows = torch.bincount(labels)
    num_pairs = (num_rows * (num_rows - 1)).sum() / 2
    squares = (directions - _class_means(directions, labels, len(num_rows))[labels]).square().sum(dim=1)
    return float((num_rows[labels] * squares).sum() / num_pairs.clamp_min(1))


def uniformity(directions: Tensor) -> float:
    """Returns log of the mean of exp(-2 |z_i - z_j|^2) over pairs i < j, for z (N, D); 0 without a pair."""
    num_rows = len(directions)
    if num_rows < 2:
        return 0.0
    squares = directions.square().sum(dim=1)
    total = 0.0
    for block in torch.arange(num_rows, device=directions.device).split(_BLOCK_ROWS):
        distances = squares[block, None] + squares - 2 * directions[block] @ directions.T
        total += float(torch.exp(-2 * distances).sum())
    # Every pair was counted twice, and every row with itself.
    return float(np.log((total - num_rows) / (num_rows * (num_rows - 1))))


def effective_rank(directions: Tensor) -> float:
    """Returns the effective rank of unit vectors (N, D) about their mean; 0 if they are all equal."""
    centred = directions - directions.mean(dim=0)
    # Of the two products the smaller one; squaring costs only digits that are below the rounding of the features.
    product = centred @ centred.T if len(centred) < centred.shape[1] else centred.T @ centred
    values = torch.linalg.eigvalsh(product).clamp_min(0).sqrt()
    values = values[values > _ROUNDING * len(centred) ** 0.5]
    if not len(values):
        return 0.0
    shares = values / values.sum()
    return float(torch.exp(-(shares * shares.log()).sum()))


def collapsed_classes(
    known: Tensor, known_labels: Tensor, unseen: Tensor, unseen_labels: Tensor, num_classes: int
) -> list[int]:
    """Returns the classes that lie on the nearest class of at least as many training rows.

    A class does so when its held-out rows and those of the other have means that are less than half a standard
    deviation within classes (pooled) apart, along the line that joins the means of the training rows. The training rows
    themselves are apart along it even without any difference of the classes: in many dimensions, the means of few rows
    differ by chance.

    Args:
        known: Unit features of training rows, (N, D).
        known_labels: Their classes, (N,).
        unseen: Unit features of held-out rows, (M, D).
        unseen_labels: Their classes, (M,). A class without rows in one of the parts is not judged.
        num_classes: C.
    """
    num_rows = torch.bincount(known_labels, minlength=num_classes)
    is_judged = (num_rows > 0) & (torch.bincount(unseen_labels, minlength=num_classes) > 0)
    is_rival = is_judged & is_judged[:, None] & (num_rows >= num_rows[:, None])  # (C, C), of the class in the row
    means = _class_means(known, known_labels, num_classes)
    distances = torch.cdist(means, means).masked_fill(~is_rival, torch.inf).fill_diagonal_(torch.inf)
    least, nearest = distances.min(dim=1)

    lines = unit_length(means[nearest] - means)  # (C, D), from each class to its rival
    places = unseen @ lines.T  # (M, C), of each row on each line
    centres = _class_means(places, unseen_labels, num_classes)  # (C, C)
    freedom = max(len(unseen) - len(unseen_labels.unique()), 1)
    spreads = ((places - centres[unseen_labels]).square().sum(dim=0) / freedom).sqrt()  # (C,)
    own = torch.arange(num_classes, device=known.device)
    gaps = centres[nearest, own] - centres[own, own]  # (C,)
    lies_on_rival = gaps <= (_LEAST_SEPARATION * spreads).clamp_min(_ROUNDING)
    return torch.nonzero(torch.isfinite(least) & lies_on_rival).flatten().tolist()


def _class_means(directions: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Returns (C, D), 0 for a class without rows."""
    sums = directions.new_zeros(num_classes, directions.shape[1]).index_add_(0, labels, directions)
    return sums / torch.bincount(labels, minlength=num_classes).clamp_min(1)[:, None]


def _probe(known: Tensor, known_labels: Tensor, unseen: Tensor, unseen_labels: np.ndarray, num_classes: int) -> float:
    width = known.shape[1]
    head = NearestMeanHead().build(width, num_classes).to(known)
    head.start_from(known, known_labels, known.new_zeros(num_classes, width), known.new_zeros(num_classes))
    return macro_f1_score(head(unseen).cpu().numpy(), unseen_labels)
