"""The health of a representation: measures that are comparable where contrastive losses are not.

Temperature and number of views change the scale of a contrastive loss, so that the losses of two recipes are not
comparable. The macro-F1 of probes on held-out rows is, and the distribution of the features on the sphere
explains it.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from raysk.errors import DataError, TrainingError
from raysk.parts.heads import unit_length
from raysk.records import Health
from raysk.training.probes import ProbedRows, class_mean_probe, linear_probe, neighbour_probe

# Smaller differences of unit features in single precision are rounding errors.
_ROUNDING = 1e-6
# Rows whose similarities to all others are held at a time.
_BLOCK_ROWS = 1024
# Two classes closer than half a standard deviation overlap so much that the best border between them puts 60 % of the
# rows on the correct side, where guessing has 50 %. The constant is our choice.
_LEAST_SEPARATION = 0.5


def measure(
    train_features: Tensor,
    train_labels: np.ndarray,
    held_out_features: Tensor,
    held_out_labels: np.ndarray,
    class_names: Sequence[str],
) -> Health:
    """Returns the health of an encoder from its features.

    Args:
        train_features: Features of training rows, (N, D).
        train_labels: Their classes, (N,), each class at least once.
        held_out_features: Features of held-out rows, (M, D).
        held_out_labels: Their classes, (M,).
        class_names: Names of the classes, C.

    Raises:
        DataError: A part has no rows.
        TrainingError: A feature is not a number.
    """
    if not len(train_labels) or not len(held_out_labels):
        raise DataError(
            "health must be measured on training and held-out rows, "
            f"but got {len(train_labels)} and {len(held_out_labels)}: use fewer folds"
        )
    train_features, held_out_features = train_features.detach().double(), held_out_features.detach().double()
    if not (torch.isfinite(train_features).all() and torch.isfinite(held_out_features).all()):
        raise TrainingError("features must be numbers, but some are not: choose a smaller learning rate")
    device, num_classes = train_features.device, len(class_names)
    train_classes, held_out_classes = (
        torch.from_numpy(labels).to(device) for labels in (train_labels, held_out_labels)
    )
    train, held_out = unit_length(train_features), unit_length(held_out_features)
    classes = collapsed_classes(train, train_classes, held_out, held_out_classes, num_classes)
    collapsed = [class_names[k] for k in classes]
    rank = effective_rank(train)
    rows = ProbedRows(train_features, train_classes, held_out_features, held_out_labels, num_classes)
    return Health(
        probe=class_mean_probe(rows),
        linear_probe=linear_probe(rows),
        neighbour_probe=neighbour_probe(rows),
        alignment=alignment(train, train_classes),
        uniformity=uniformity(train),
        effective_rank=rank,
        collapsed=tuple(collapsed),
        alarm=_alarm(rank, collapsed, num_classes),
    )


def _alarm(rank: float, collapsed: Sequence[str], num_classes: int) -> str | None:
    """Returns a warning in one line, or None.

    C classes at equal distances, the optimum of contrastive losses, span C - 1 directions. The alarm is raised below
    half of these: our choice.
    """
    if rank < (num_classes - 1) / 2:
        return (
            f"the features have collapsed: they use {rank:.1f} directions, "
            f"where {num_classes} classes need {num_classes - 1}"
        )
    if collapsed:
        return f"classes have collapsed onto others with at least as many rows: {', '.join(collapsed)}"
    return None


def probe_rows(labels: np.ndarray, rows: np.ndarray, per_class: int, seed: int) -> np.ndarray:
    """Returns at most `per_class` of the rows of each class, sorted; equal arguments give equal rows.

    Args:
        labels: Classes of the rows, (N,).
        rows: Row numbers, (N,).
        per_class: Most rows of a class.
        seed: Seed of the choice.
    """
    order = np.random.default_rng(seed).permutation(len(rows))
    chosen = [order[labels[order] == label][:per_class] for label in np.unique(labels)]
    return np.sort(rows[np.concatenate(chosen)])


def alignment(directions: Tensor, labels: Tensor) -> float:
    """Returns the mean of |z_i - z_j|^2 over pairs of one class, for z (N, D) and classes (N,); 0 without a pair."""
    # The sum over the pairs of n rows is n sum |z|^2 - |sum z|^2, a difference that keeps no digits near 0; about the
    # class mean the second term is zero.
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
    # The total counts every pair twice, and every row with itself.
    return float(np.log((total - num_rows) / (num_rows * (num_rows - 1))))


def effective_rank(directions: Tensor) -> float:
    """Returns the effective rank of unit vectors (N, D) about their mean; 0 if they are all equal."""
    centred = directions - directions.mean(dim=0)
    # The smaller of the two products; squaring costs only digits below the rounding of the features.
    product = centred @ centred.T if len(centred) < centred.shape[1] else centred.T @ centred
    values = torch.linalg.eigvalsh(product).clamp_min(0).sqrt()
    values = values[values > _ROUNDING * len(centred) ** 0.5]
    if not len(values):
        return 0.0
    shares = values / values.sum()
    return float(torch.exp(-(shares * shares.log()).sum()))


def collapsed_classes(
    train: Tensor, train_labels: Tensor, held_out: Tensor, held_out_labels: Tensor, num_classes: int
) -> list[int]:
    """Returns the classes that have collapsed onto their rival: the nearest class with at least as many training rows.

    A class has collapsed if, along the line through the two training means, the two held-out means are less than half a
    pooled within-class standard deviation apart. The training rows are always apart along this line, even if the
    classes do not differ: in many dimensions, the means of few rows differ by chance.

    Args:
        train: Unit features of training rows, (N, D).
        train_labels: Their classes, (N,).
        held_out: Unit features of held-out rows, (M, D).
        held_out_labels: Their classes, (M,). A class without rows in one of the parts is not judged.
        num_classes: C.
    """
    num_rows = torch.bincount(train_labels, minlength=num_classes)
    is_judged = (num_rows > 0) & (torch.bincount(held_out_labels, minlength=num_classes) > 0)
    is_rival = is_judged & is_judged[:, None] & (num_rows >= num_rows[:, None])  # (C, C), of the class in each row
    means = _class_means(train, train_labels, num_classes)
    distances = torch.cdist(means, means).masked_fill(~is_rival, torch.inf).fill_diagonal_(torch.inf)
    least, nearest = distances.min(dim=1)

    lines = unit_length(means[nearest] - means)  # (C, D), from each class to its rival
    positions = held_out @ lines.T  # (M, C), of each row on each line
    centres = _class_means(positions, held_out_labels, num_classes)  # (C, C)
    freedom = max(len(held_out) - len(held_out_labels.unique()), 1)
    spreads = ((positions - centres[held_out_labels]).square().sum(dim=0) / freedom).sqrt()  # (C,)
    classes = torch.arange(num_classes, device=train.device)
    gaps = centres[nearest, classes] - centres[classes, classes]  # (C,)
    has_collapsed = gaps <= (_LEAST_SEPARATION * spreads).clamp_min(_ROUNDING)
    return torch.nonzero(torch.isfinite(least) & has_collapsed).flatten().tolist()


def _class_means(directions: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Returns the class means, (C, D); 0 for a class without rows."""
    sums = directions.new_zeros(num_classes, directions.shape[1]).index_add_(0, labels, directions)
    return sums / torch.bincount(labels, minlength=num_classes).clamp_min(1)[:, None]
