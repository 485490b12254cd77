"""Which training rows an epoch visits, in which order: the same on every machine for one seed and epoch."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from raysk.registry import Registry
from raysk.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Sampler(Settings, ABC):
    """Settings of one sampler; its order is for all ranks together, each of which then takes its share."""

    @abstractmethod
    def epoch_order(self, labels: np.ndarray, epoch: int, seed: int, length: int) -> np.ndarray:
        """Returns positions in `labels`, int64 (length,), which follow from the arguments alone.

        Args:
            labels: Class of each training row, (N,).
            epoch: The epoch, from 0.
            seed: Seed of the recipe, not negative.
            length: Rows to visit; it may be smaller or larger than N.
        """


samplers: Registry[type[Sampler]] = Registry("sampler")


@dataclass(frozen=True, kw_only=True)
class PowerSampler(Sampler):
    """Draws a class with p_k proportional to n_k^power, then a row of it: Kang et al. 2020, equation 1.

    A class shows each of its rows once before it shows one again.
    """

    power: ClassVar[float]

    def probabilities(self, class_counts: np.ndarray) -> np.ndarray:
        """Returns the probability of each class, (C,); a class without rows has none.

        Args:
            class_counts: Rows of each class, (C,).
        """
        counts = np.asarray(class_counts, dtype=np.float64)
        shares = np.where(counts > 0, counts**self.power, 0.0)
        return shares / shares.sum()

    def epoch_order(self, labels: np.ndarray, epoch: int, seed: int, length: int) -> np.ndarray:
        """Returns positions in `labels`, int64 (length,)."""
        random = np.random.default_rng((seed, epoch))
        probabilities = self.probabilities(np.bincount(labels))
        classes = random.choice(len(probabilities), size=length, p=probabilities)
        order = np.empty(length, dtype=np.int64)
        for label in np.unique(classes):
            places = np.flatnonzero(classes == label)
            order[places] = _repeated_shuffles(np.flatnonzero(labels == label), len(places), random)
        return order


@samplers.register("instance")
@dataclass(frozen=True, kw_only=True)
class InstanceSampler(PowerSampler):
    """Every row alike: a shuffle of all rows, so that an epoch visits each exactly once; power 1."""

    power: ClassVar[float] = 1.0

    def epoch_order(self, labels: np.ndarray, epoch: int, seed: int, length: int) -> np.ndarray:
        """Returns positions in `labels`, int64 (length,)."""
        return _repeated_shuffles(np.arange(len(labels)), length, np.random.default_rng((seed, epoch)))


@samplers.register("square_root")
@dataclass(frozen=True, kw_only=True)
class SquareRootSampler(PowerSampler):
    """Half-way between instance and class-balanced sampling; power 1/2."""

    power: ClassVar[float] = 0.5


@samplers.register("class_balanced")
@dataclass(frozen=True, kw_only=True)
class ClassBalancedSampler(PowerSampler):
    """Every class alike, as cRT retrains a head (Kang et al. 2020, section 4.2); power 0."""

    power: ClassVar[float] = 0.0


def _repeated_shuffles(rows: np.ndarray, length: int, random: np.random.Generator) -> np.ndarray:
    """Returns `length` rows, int64: all of them in a random order, then all in another, and so on."""
    shuffles = [random.permutation(rows) for _ in range(-(-length // len(rows)))]
    return np.concatenate([np.empty(0, dtype=np.int64), *shuffles])[:length]
