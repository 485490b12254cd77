"""Losses by name; a new loss is one class in a file of its family, with one decorator, and the file is named here."""

from raysk.parts.losses import centres, classification, contrastive, gravis, imbalanced, margins, metric, targets
from raysk.parts.losses.base import EmbeddingLoss, LogitLoss, Loss, losses

__all__ = [
    "EmbeddingLoss",
    "LogitLoss",
    "Loss",
    "centres",
    "classification",
    "contrastive",
    "gravis",
    "imbalanced",
    "losses",
    "margins",
    "metric",
    "targets",
]
