"""Probes: simple classifiers on the features of training rows, scored by macro-F1 on held-out rows.

They have no settings, and take milliseconds. Their metric is not that of the study, since a probe can end stage one,
and a recipe must give the same weights in every study.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from raysk.evaluation.metrics import parse_metric
from raysk.parts.heads import NearestMeanHead, unit_length

# Penalty of the linear probe, as a share of the mean variance of a direction; our choice.
_RIDGE = 0.1
# Neighbours that vote, and the temperature of their votes: Wu et al. 2018 publish 200 and 0.07, for a million rows.
_NEIGHBOURS = 10
_TEMPERATURE = 0.07
# Rows whose similarities to all others are held at a time.
_BLOCK_ROWS = 1024


@dataclass(frozen=True)
class ProbedRows:
    """The features that probes read.

    Args:
        train: Features of training rows, (N, D).
        train_labels: Their classes, (N,), each of the C classes at least once.
        held_out: Features of held-out rows, (M, D).
        held_out_labels: Their classes, (M,).
        num_classes: C.
    """

    train: Tensor
    train_labels: Tensor
    held_out: Tensor
    held_out_labels: np.ndarray
    num_classes: int

    def score(self, logits: Tensor) -> float:
        """Returns the macro-F1 of logits (M, C)."""
        return float(parse_metric("macro_f1")(logits.cpu().numpy(), self.held_out_labels))


def class_mean_probe(rows: ProbedRows) -> float:
    """Returns the score of the nearest class mean (the head `ncm`)."""
    width = rows.train.shape[1]
    head = NearestMeanHead().build(width, rows.num_classes).to(rows.train)
    zeros = rows.train.new_zeros(rows.num_classes, width)
    head.start_from(rows.train, rows.train_labels, zeros, zeros[:, 0])
    return rows.score(head(rows.held_out))


def linear_probe(rows: ProbedRows) -> float:
    """Returns the score of a linear classifier: least squares on the classes, in closed form.

    W = argmin sum_i w_i |y_i - W x_i|^2 + r |W|^2, with one-hot y, weights w_i = 1 / (C n_k), and x and y about their
    weighted means. Of the two equal solutions, (X'X + r)^-1 X'Y and X'(XX' + r)^-1 Y, the smaller system is solved.
    """
    targets = F.one_hot(rows.train_labels, rows.num_classes).to(rows.train)  # (N, C)
    weights = (targets / targets.sum(dim=0).clamp_min(1)).sum(dim=1, keepdim=True) / rows.num_classes  # (N, 1)
    mean, base = (weights * rows.train).sum(dim=0), (weights * targets).sum(dim=0)
    x, y = weights.sqrt() * (rows.train - mean), weights.sqrt() * (targets - base)
    size, width = x.shape
    penalty = _RIDGE * x.square().sum() / min(size, width)
    product = x @ x.T if size < width else x.T @ x
    product.diagonal().add_(penalty.clamp_min(torch.finfo(x.dtype).tiny))
    solution = x.T @ torch.linalg.solve(product, y) if size < width else torch.linalg.solve(product, x.T @ y)
    return rows.score((rows.held_out - mean) @ solution + base)


def neighbour_probe(rows: ProbedRows) -> float:
    """Returns the score of the nearest neighbours by cosine, each with the vote exp(s / 0.07): Wu et al. 2018, 3.4."""
    train = unit_length(rows.train)
    logits = []
    for block in unit_length(rows.held_out).split(_BLOCK_ROWS):
        nearest, places = (block @ train.T).topk(min(_NEIGHBOURS, len(train)), dim=1)  # (b, K)
        votes = ((nearest - nearest[:, :1]) / _TEMPERATURE).exp()
        zeros = votes.new_zeros(len(votes), rows.num_classes)
        logits.append(zeros.scatter_add_(1, rows.train_labels[places], votes))
    return rows.score(torch.cat(logits))
