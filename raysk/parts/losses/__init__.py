"""Losses by name; a new loss is one class in a file of its family, with one decorator, and the file is named here."""

from raysk.parts.losses import classification, contrastive
from raysk.parts.losses.base import EmbeddingLoss, LogitLoss, Loss, losses

__all__ = ["EmbeddingLoss", "LogitLoss", "Loss", "classification", "contrastive", "losses"]
