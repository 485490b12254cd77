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


class FrozenClassifier(nn.Module, ABC):
    """A classifier that starts from the features of a frozen encoder; before that, all its logits of a row are equal.

    A module without parameters is finished then: it is not trained.
    """

    @abstractmethod
    def start_from(self, features: Tensor, labels: Tensor, weight: Tensor, bias: Tensor) -> None:
        """Fills the buffers, which are kept in checkpoints; parameters are left as they are.

        Args:
            features: (N, D) of the training rows.
            labels: (N,), every class at least once.
            weight: (C, D) of a linear classifier on these features.
            bias: (C,) of that classifier.
        """


@dataclass(frozen=True, kw_only=True)
class FrozenHead(Head):
    """Settings of a classifier that only a frozen encoder can have."""

    @abstractmethod
    def build(self, in_features: int, num_classes: int) -> FrozenClassifier:
        """Returns a module from features (B, in_features) to logits (B, num_classes), yet to be started."""


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


@heads.register("lws")
@dataclass(frozen=True, kw_only=True)
class ScaledHead(FrozenHead):
    """Learnable weight scaling, (W x + b) s: Kang et al. 2020, section 4. Only s (C,) is trained, from ones."""

    def build(self, in_features: int, num_classes: int) -> FrozenClassifier:
        """Returns a module from features (B, in_features) to logits (B, num_classes), yet to be started."""
        return _ScaledClassifier(in_features, num_classes)


class _ScaledClassifier(FrozenClassifier):
    weight: Tensor
    bias: Tensor

    def __init__(self, in_features: int, num_classes: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(num_classes, in_features))
        self.register_buffer("bias", torch.zeros(num_classes))
        self.scale = nn.Parameter(torch.ones(num_classes))

    def start_from(self, features: Tensor, labels: Tensor, weight: Tensor, bias: Tensor) -> None:
        self.weight.copy_(weight.detach())
        self.bias.copy_(bias.detach())

    def forward(self, features: Tensor) -> Tensor:
        return F.linear(features, self.weight, self.bias) * self.scale


@heads.register("tau_norm")
@dataclass(frozen=True, kw_only=True)
class TauNormHead(FrozenHead):
    """tau-normalisation, w_k / |w_k|^tau without bias: Kang et al. 2020, section 4. Nothing is trained.

    Args:
        tau: 0 keeps the weights, 1 makes them unit vectors. Kang et al. choose it on held-out rows, so 1 is ours.
    """

    tau: Annotated[float, Between(0.0, 2.0)] = 1.0

    def build(self, in_features: int, num_classes: int) -> FrozenClassifier:
        """Returns a module from features (B, in_features) to logits (B, num_classes), yet to be started."""
        return _TauNormClassifier(in_features, num_classes, self.tau)


class _TauNormClassifier(FrozenClassifier):
    weight: Tensor

    def __init__(self, in_features: int, num_classes: int, tau: float) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(num_classes, in_features))
        self.tau = tau

    def start_from(self, features: Tensor, labels: Tensor, weight: Tensor, bias: Tensor) -> None:
        lengths = weight.detach().norm(dim=1, keepdim=True)
        # A vector of zero has no direction: it stays zero.
        self.weight.copy_(weight.detach() / torch.where(lengths > 0, lengths, 1) ** self.tau)

    def forward(self, features: Tensor) -> Tensor:
        return F.linear(features, self.weight)


@heads.register("ncm")
@dataclass(frozen=True, kw_only=True)
class NearestMeanHead(FrozenHead):
    """Nearest class mean, -scale |x - m_k|^2: Kang et al. 2020, section 4. Nothing is trained.

    Features are centred by the mean of the training rows and divided by their length (Wang et al. 2019, SimpleShot,
    "CL2N"); the class means m_k of these are made unit vectors again, so that no class is near by a short mean.

    Args:
        scale: Sharpness of the probabilities, which is ours; the nearest class does not depend on it.
    """

    scale: Annotated[float, Between(0.0, 1000.0, open_low=True)] = 10.0

    def build(self, in_features: int, num_classes: int) -> FrozenClassifier:
        """Returns a module from features (B, in_features) to logits (B, num_classes), yet to be started."""
        return _NearestMean(in_features, num_classes, self.scale)


class _NearestMean(FrozenClassifier):
    centre: Tensor
    means: Tensor

    def __init__(self, in_features: int, num_classes: int, scale: float) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(in_features))
        self.register_buffer("means", torch.zeros(num_classes, in_features))
        self.scale = scale

    def start_from(self, features: Tensor, labels: Tensor, weight: Tensor, bias: Tensor) -> None:
        features = features.detach().to(self.centre.dtype)  # half precision would round the mean
        self.centre.copy_(features.mean(dim=0))
        directions = unit_length(features - self.centre)
        sums = torch.zeros_like(self.means, dtype=directions.dtype).index_add_(0, labels, directions)
        # A sum and a mean have the same direction.
        self.means.copy_(unit_length(sums))

    def forward(self, features: Tensor) -> Tensor:
        directions = unit_length(features - self.centre)
        means = self.means.to(directions)
        products = F.linear(directions, means)  # (B, C): all differences at once would be (B, C, D)
        squares = directions.square().sum(dim=1, keepdim=True) + means.square().sum(dim=1)
        return -self.scale * (squares - 2 * products)


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
