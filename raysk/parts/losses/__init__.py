"""Losses by name; a new loss is one decorated class in a file of this folder."""

from raysk.parts.losses.base import EmbeddingLoss, LogitLoss, Loss, losses
from raysk.registry import import_modules

import_modules(__name__, __path__)

__all__ = ["EmbeddingLoss", "LogitLoss", "Loss", "losses"]
