"""Base classes of losses: settings that can be saved, and the module that they build for one training fold."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from raysk.errors import DataError
from raysk.registry import Registry
from raysk.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Loss(Settings, ABC):
    """Settings of one loss; derive from `LogitLoss` or `EmbeddingLoss`, and implement `module`."""

    reads: ClassVar[Literal["logits", "embeddings"]]


@dataclass(frozen=True, kw_only=True)
class LogitLoss(Loss):
    """A loss on the output of a head: forward(logits (B, C), labels (B,)) returns a scalar.

    Hundreds of heads with different settings are fitted at once. So two modules of one class may differ only in their
    parts and the values of their buffers, and forward must not branch on a value: `torch.vmap` runs over modules with
    the same parts. A module that draws random numbers is a `NoisyLoss`.
    """

    reads: ClassVar[Literal["logits", "embeddings"]] = "logits"

    @property
    def head(self) -> Mapping[str, Any] | None:
        """The head that the loss requires, as a recipe names it; None if any head fits."""
        return None

    def check(self, class_counts: np.ndarray) -> None:
        """Refuses settings that do not fit the training rows.

        Args:
            class_counts: Training rows of the fold in each class of the manifest, (C,).

        Raises:
            ConfigError: A setting does not fit; the message begins with the setting.
        """

    def build(self, class_counts: Tensor) -> nn.Module:
        """Returns the loss for one training fold.

        Args:
            class_counts: Training rows of the fold in each class, (C,). Other rows must not count: they would leak the
                class shares of the held-out part.

        Raises:
            DataError: A class has no rows.
        """
        return self.module(_checked_counts(class_counts))

    @abstractmethod
    def module(self, counts: Tensor) -> nn.Module:
        """Returns the module for class counts (C,): positive, in float64, on the CPU."""


@dataclass(frozen=True, kw_only=True)
class EmbeddingLoss(Loss):
    """A loss on several views of each image: forward(embeddings (B, V, D), labels (B,)) returns a scalar.

    Embeddings have unit length; a loss of their products alone may also be given others (`needs_unit_length`).
    `least_views` is the smallest V with which the loss can learn from every batch. A loss whose `needs_labels` is False
    ignores the labels, so that unlabelled rows may take part.
    """

    reads: ClassVar[Literal["logits", "embeddings"]] = "embeddings"
    least_views: ClassVar[int] = 1
    needs_unit_length: ClassVar[bool] = True
    needs_labels: ClassVar[bool] = True

    def build(self, class_counts: Tensor, width: int) -> nn.Module:
        """Returns the loss for one training fold.

        Args:
            class_counts: As for `LogitLoss.build`.
            width: D, for losses that place centres among the embeddings.

        Raises:
            DataError: A class has no rows.
        """
        return self.module(_checked_counts(class_counts), width)

    @abstractmethod
    def module(self, counts: Tensor, width: int) -> nn.Module:
        """Returns the module for class counts (C,), positive, in float64, on the CPU, and embeddings of this width."""


class ScheduledLoss(nn.Module, ABC):
    """A loss that changes during training; the training loop calls `begin_epoch` before each epoch."""

    @abstractmethod
    def begin_epoch(self, done: float) -> None:
        """Receives the share of the epochs that is done, in [0, 1)."""


class NoisyLoss(nn.Module):
    """A loss that draws noise in training, and none in evaluation; the training loop calls `begin_noise` in each epoch.

    The noise follows from the seed and the number of earlier draws. So it is the same on all ranks, in each attempt,
    and for a head that is fitted alone or beside others.
    """

    def __init__(self) -> None:
        super().__init__()
        self.begin_noise(0)

    def begin_noise(self, seed: int) -> None:
        """Seeds the draws of the next epoch; `seed` differs between epochs, not between ranks."""
        self._seed, self._num_draws = seed, 0

    def normal_like(self, values: Tensor) -> Tensor:
        """Returns standard normal numbers with the shape, the type and the device of `values`."""
        random = np.random.default_rng((self._seed, self._num_draws))
        self._num_draws += 1
        return torch.from_numpy(random.standard_normal(values.shape, dtype=np.float32)).to(values)


losses: Registry[type[Loss]] = Registry("loss")


def _checked_counts(class_counts: Tensor) -> Tensor:
    # Double precision, as in the tests of the formulas; forward() uses the precision of its input.
    counts = class_counts.detach().double().cpu()
    empty = torch.nonzero(~(counts > 0)).flatten().tolist()
    if empty:
        raise DataError(
            f"every class must have training rows, but classes {empty} have none: "
            "use fewer folds, or remove these classes from the manifest"
        )
    return counts
