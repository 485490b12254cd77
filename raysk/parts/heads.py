"""Heads on the features of a backbone: classifiers by name, and the projection for contrastive losses."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar

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
    """A classifier that starts from the features of a frozen encoder; before that, all logits of a row are equal.

    A module without parameters needs no training after its start.
    """

    @abstractmethod
    def start_from(self, features: Tensor, labels: Tensor, weight: Tensor, bias: Tensor) -> None:
        """Fills the buffers, which checkpoints keep; leaves the parameters unchanged.

        Args:
            features: (N, D) of the training rows.
            labels: (N,), every class at least once.
            weight: (C, D) of a linear classifier on these features.
            bias: (C,) of that classifier.
        """


class LinearStart(FrozenClassifier):
    """Adjusts the logits of the linear classifier that it starts from, which stays as it is."""

    weight: Tensor
    bias: Tensor

    def __init__(self, in_features: int, num_classes: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(num_classes, in_features))
        self.register_buffer("bias", torch.zeros(num_classes))

    def start_from(self, features: Tensor, labels: Tensor, weight: Tensor, bias: Tensor) -> None:
        """Copies the linear classifier; see `FrozenClassifier.start_from`."""
        self.weight.copy_(weight.detach())
        self.bias.copy_(bias.detach())


@dataclass(frozen=True, kw_only=True)
class FrozenHead(Head):
    """Settings of a classifier that requires a frozen encoder; `is_trained` is false if it is finished by its start."""

    is_trained: ClassVar[bool] = True

    @abstractmethod
    def build(self, in_features: int, num_classes: int) -> FrozenClassifier:
        """Returns a module from features (B, in_features) to logits (B, num_classes), before its start."""


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
    """Dropout and two linear layers with ReLU between them: Le et al. 2020, who specify neither setting.

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
    """scale times the cosine between the features and a vector per class, so that a longer vector favours no class.

    Args:
        scale: Largest logit. Cao et al. 2019 publish 30.
    """

    scale: Annotated[float, Between(0.0, 1000.0, open_low=True)] = 30.0

    def build(self, in_features: int, num_classes: int) -> nn.Module:
        """Returns a module from features (B, in_features) to logits (B, num_classes)."""
        return CosineClassifier(in_features, num_classes, self.scale)


class CosineClassifier(nn.Module):
    """The module of "cosine"."""

    def __init__(self, in_features: int, num_classes: int, scale: float) -> None:
        super().__init__()
        # Only directions count, and a normal distribution has uniform directions.
        self.weight = nn.Parameter(torch.randn(num_classes, in_features))
        self.scale = scale

    def forward(self, features: Tensor) -> Tensor:
        """Returns logits (B, C) of features (B, D)."""
        return self.scale * F.linear(unit_length(features), unit_length(self.weight))


@heads.register("lws")
@dataclass(frozen=True, kw_only=True)
class ScaledHead(FrozenHead):
    """Learnable weight scaling, (W x + b) s: Kang et al. 2020, section 4. Only s (C,) is trained, from ones."""

    def build(self, in_features: int, num_classes: int) -> FrozenClassifier:
        """Returns a module from features (B, in_features) to logits (B, num_classes), before its start."""
        return ScaledClassifier(in_features, num_classes)


class ScaledClassifier(LinearStart):
    """The module of "lws"."""

    def __init__(self, in_features: int, num_classes: int) -> None:
        super().__init__(in_features, num_classes)
        self.scale = nn.Parameter(torch.ones(num_classes))

    def forward(self, features: Tensor) -> Tensor:
        """Returns logits (B, C) of features (B, D)."""
        return F.linear(features, self.weight, self.bias) * self.scale


@heads.register("disalign")
@dataclass(frozen=True, kw_only=True)
class DisAlignHead(FrozenHead):
    """DisAlign, c (a_k z_k + b_k) + (1 - c) z_k with c = sigmoid(v.x + u): Zhang et al. 2021, adaptive calibration.

    z are the logits of the classifier that it starts from. Only the magnitudes a, from ones, the margins b, from zeros,
    and the confidence v, u are trained: each row has as much of the calibration as it needs. The paper trains it with
    the loss "generalized_reweight".
    """

    def build(self, in_features: int, num_classes: int) -> FrozenClassifier:
        """Returns a module from features (B, in_features) to logits (B, num_classes), before its start."""
        return AlignedClassifier(in_features, num_classes)


class AlignedClassifier(LinearStart):
    """The module of "disalign"."""

    def __init__(self, in_features: int, num_classes: int) -> None:
        super().__init__(in_features, num_classes)
        self.magnitude = nn.Parameter(torch.ones(num_classes))
        self.margin = nn.Parameter(torch.zeros(num_classes))
        self.confidence = nn.Linear(in_features, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Returns logits (B, C) of features (B, D)."""
        logits = F.linear(features, self.weight, self.bias)
        calibrated = self.magnitude * logits + self.margin
        return logits + self.confidence(features).sigmoid() * (calibrated - logits)


@heads.register("tau_norm")
@dataclass(frozen=True, kw_only=True)
class TauNormHead(FrozenHead):
    """tau-normalisation, w_k / |w_k|^tau without bias: Kang et al. 2020, section 4. Nothing is trained.

    Args:
        tau: 0 keeps the weights, 1 makes them unit vectors. Kang et al. choose it on held-out rows; 1 is our choice.
    """

    is_trained: ClassVar[bool] = False
    tau: Annotated[float, Between(0.0, 2.0)] = 1.0

    def build(self, in_features: int, num_classes: int) -> FrozenClassifier:
        """Returns a module from features (B, in_features) to logits (B, num_classes), before its start."""
        return _TauNormClassifier(in_features, num_classes, self.tau)


class _TauNormClassifier(FrozenClassifier):
    weight: Tensor

    def __init__(self, in_features: int, num_classes: int, tau: float) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(num_classes, in_features))
        self.tau = tau

    def start_from(self, features: Tensor, labels: Tensor, weight: Tensor, bias: Tensor) -> None:
        lengths = weight.detach().norm(dim=1, keepdim=True)
        # A zero vector has no direction: it stays zero.
        self.weight.copy_(weight.detach() / torch.where(lengths > 0, lengths, 1) ** self.tau)

    def forward(self, features: Tensor) -> Tensor:
        return F.linear(features, self.weight)


@heads.register("ncm")
@dataclass(frozen=True, kw_only=True)
class NearestMeanHead(FrozenHead):
    """Nearest class mean, -scale |x - m_k|^2: Kang et al. 2020, section 4. Nothing is trained.

    Features are centred by the mean of the training rows and divided by their length (Wang et al. 2019, SimpleShot,
    "CL2N"). Their class means m_k are scaled to unit length, too, so that a short mean does not bring a class near.

    Args:
        scale: Sharpness of the probabilities, our choice; the nearest class does not depend on it.
    """

    is_trained: ClassVar[bool] = False
    scale: Annotated[float, Between(0.0, 1000.0, open_low=True)] = 10.0

    def build(self, in_features: int, num_classes: int) -> FrozenClassifier:
        """Returns a module from features (B, in_features) to logits (B, num_classes), before its start."""
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
        products = F.linear(directions, means)  # (B, C): the differences themselves would be (B, C, D)
        squares = directions.square().sum(dim=1, keepdim=True) + means.square().sum(dim=1)
        return -self.scale * (squares - 2 * products)


class ProjectionHead(nn.Module):
    """Maps features to the embeddings of stage one: linear, ReLU, linear, unit length; dropped after stage one.

    Args:
        in_features: Width of the features.
        hidden: Width between the two layers; the width of the features if None.
        out: Width of the embeddings.
        normalise: Whether the embeddings have unit length.
    """

    def __init__(self, in_features: int, hidden: int | None = None, out: int = 128, normalise: bool = True) -> None:
        super().__init__()
        hidden = in_features if hidden is None else hidden
        self.layers = nn.Sequential(nn.Linear(in_features, hidden), nn.ReLU(), nn.Linear(hidden, out))
        self.normalise = normalise

    def forward(self, features: Tensor) -> Tensor:
        """Returns embeddings (..., out) of features (..., in_features); those of unit length in at least float32."""
        embeddings: Tensor = self.layers(features)
        return unit_length(embeddings) if self.normalise else embeddings


def unit_length(vectors: Tensor) -> Tensor:
    """Returns vectors (..., D) divided by their lengths, in at least float32; zero has no direction and stays zero.

    Half precision would round the squares of small numbers to zero.
    """
    vectors = vectors.to(torch.promote_types(vectors.dtype, torch.float32))
    lengths = vectors.norm(dim=-1, keepdim=True)
    # F.normalize divides by a small number instead, and its gradient at zero overflows half precision.
    return vectors / torch.where(lengths > 1e-6, lengths, torch.inf)
