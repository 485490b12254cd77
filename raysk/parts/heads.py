"""What stands on the features of a backbone: classifiers by name, and the projection of the contrastive losses."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raysk.registry import Registry
from raysk.settings import Between, Settings


@dataclass(frozen=True, kw_only=True)
class Head(Settings, ABC):
    """Settings of one classifier on features."""

    @abstractmethod
    def build(self, in_features: int, num_classes: int) -> nn.Module:
        """Returns a module from features (B, in_features) to logits (B, num_classes)."""


heads: Registry[type[Head]] = Registry("head")


@heads.register("linear")
@dataclass(frozen=True, kw_only=True)
class LinearHead(Head):
    """One linear layer with bias."""

    def build(self, in_features: int, num_classes: int) -> nn.Module:
        """Returns a module from features (B, in_features) to logits (B, num_classes)."""
        return nn.Linear(in_features, num_classes)


@heads.register("mlp")
@dataclass(frozen=True, kw_only=True)
class MLPHead(Head):
    """Dropout and two linear layers with ReLU between: Le et al. 2020, who leave both settings open.

    Args:
        hidden: Width between the two layers.
        dropout: Share of the features that is dropped in training.
    """

    hidden: Annotated[int, Between(1, 65536)] = 512
    dropout: Annotated[float, Between(0.0, 1.0, open_high=True)] = 0.5

    def build(self, in_features: int, num_classes: int) -> nn.Module:
        """Returns a module from features (B, in_features) to logits (B, num_classes)."""
        return nn.Sequential(
            nn.Dropout(self.dropout),
            nn.Linear(in_features, self.hidden),
            nn.ReLU(),
            nn.Linear(self.hidden, num_classes),
        )


@heads.register("cosine")
@dataclass(frozen=True, kw_only=True)
class CosineHead(Head):
    """scale times the cosine between the features and a vector per class, so that no class gains by a longer vector.

    Args:
        scale: Largest logit. Cao et al. 2019 publish 30.
    """

    scale: Annotated[float, Between(0.0, 1000.0, open_low=True)] = 30.0

    def build(self, in_features: int, num_classes: int) -> nn.Module:
        """Returns a module from features (B, in_features) to logits (B, num_classes)."""
        return _CosineClassifier(in_features, num_classes, self.scale)


class _CosineClassifier(nn.Module):
    def __init__(self, in_features: int, num_classes: int, scale: float) -> None:
        super().__init__()
        # Only directions count, and those of a normal distribution are uniform.
        self.weight = nn.Parameter(torch.randn(num_classes, in_features))
        self.scale = scale

    def forward(self, features: Tensor) -> Tensor:
        return self.scale * F.linear(unit_length(features), unit_length(self.weight))


class ProjectionHead(nn.Module):
    """Features to the embeddings of stage one: linear, ReLU, linear, unit length; dropped after stage one.

    Args:
        in_features: Width of the features.
        hidden: Width between the two layers; that of the features unless given.
        out: Width of the embeddings.
    """

    def __init__(self, in_features: int, hidden: int | None = None, out: int = 128) -> None:
        super().__init__()
        hidden = in_features if hidden is None else hidden
        self.layers = nn.Sequential(nn.Linear(in_features, hidden), nn.ReLU(), nn.Linear(hidden, out))

    def forward(self, features: Tensor) -> Tensor:
        """Returns unit embeddings (..., out), in float32 at least, of features (..., in_features)."""
        return unit_length(self.layers(features))


def unit_length(vectors: Tensor) -> Tensor:
    """Returns vectors (..., D) divided by their lengths, in float32 at least; zero has no direction and stays zero.

    Half precision would round the squares of small numbers to zero.
    """
    vectors = vectors.to(torch.promote_types(vectors.dtype, torch.float32))
    lengths = vectors.norm(dim=-1, keepdim=True)
    # Divided by a small number instead, as F.normalize does, zero would get a gradient that overflows half precision.
    return vectors / torch.where(lengths > 1e-6, lengths, torch.inf)
