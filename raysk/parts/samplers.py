"""The training rows of an epoch and their order: the same on every machine for one seed and epoch."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from raysk.errors import ConfigError
from raysk.registry import Registry
from raysk.settings import Between, Settings


@dataclass(frozen=True, kw_only=True)
class Sampler(Settings, ABC):
    """Settings of one sampler; it orders rows for all ranks together, and each rank takes its share.

    `reads_labels` is False if the order does not depend on the labels, so that unlabelled rows may take part.
    """

    reads_labels: ClassVar[bool] = True

    @abstractmethod
    def epoch_order(self, labels: np.ndarray, epoch: int, epochs: int, seed: int, length: int) -> np.ndarray:
        """Returns positions in `labels`, int64 (length,); they depend on the arguments alone.

        Args:
            labels: Class of each training row, (N,).
            epoch: The epoch, from 0.
            epochs: Epochs of the whole stage.
            seed: Seed of the recipe, not negative.
            length: Rows to visit; it may be smaller or larger than N.
        """

    def check(self, class_counts: np.ndarray, batch_size: int, num_unlabelled: int = 0) -> None:
        """Refuses training rows and batches that the sampler does not support.

        Args:
            class_counts: Training rows of the fold in each class of the manifest, (C,).
            batch_size: Rows of a global batch.
            num_unlabelled: Rows without a label beside them.

        Raises:
            ConfigError: A class has no rows, the sampler needs labels that rows lack, or a setting does not fit; the
                message begins with the setting.
        """
        if num_unlabelled and self.reads_labels:
            raise ConfigError(
                f"name must be instance where {num_unlabelled} unlabelled rows take part, which have no class, but got "
                f"{samplers.name_of(type(self))}: choose instance"
            )
        empty = np.flatnonzero(np.asarray(class_counts) == 0).tolist()
        if empty:
            raise ConfigError(
                f"name {samplers.name_of(type(self))} must find training rows of every class, but classes {empty} have "
                "none: use fewer folds, or remove these classes from the manifest"
            )


samplers: Registry[type[Sampler]] = Registry("sampler")


@dataclass(frozen=True, kw_only=True)
class PowerSampler(Sampler):
    """Draws a class with p_k proportional to n_k^power, then a row of that class: Kang et al. 2020, equation 1.

    Each row of a class is drawn once before any is drawn again.
    """

    power: ClassVar[float]

    def probabilities(self, class_counts: np.ndarray) -> np.ndarray:
        """Returns the probability of each class, (C,); 0 for a class without rows.

        Args:
            class_counts: Rows of each class, (C,).
        """
        return _power_shares(class_counts, self.power)

    def epoch_order(self, labels: np.ndarray, epoch: int, epochs: int, seed: int, length: int) -> np.ndarray:
        """Returns positions in `labels`, int64 (length,)."""
        random = np.random.default_rng((seed, epoch))
        return _drawn_rows(labels, self.probabilities(np.bincount(labels)), length, random)


@samplers.register("instance")
@dataclass(frozen=True, kw_only=True)
class InstanceSampler(PowerSampler):
    """Shuffles all rows, so that an epoch visits each row exactly once; power 1."""

    power: ClassVar[float] = 1.0
    reads_labels: ClassVar[bool] = False

    def epoch_order(self, labels: np.ndarray, epoch: int, epochs: int, seed: int, length: int) -> np.ndarray:
        """Returns positions in `labels`, int64 (length,)."""
        return _repeated_shuffles(np.arange(len(labels)), length, np.random.default_rng((seed, epoch)))


@samplers.register("square_root")
@dataclass(frozen=True, kw_only=True)
class SquareRootSampler(PowerSampler):
    """Halfway between instance and class-balanced sampling; power 1/2."""

    power: ClassVar[float] = 0.5


@samplers.register("class_balanced")
@dataclass(frozen=True, kw_only=True)
class ClassBalancedSampler(PowerSampler):
    """Draws all classes equally often, as cRT does to retrain a head (Kang et al. 2020, section 4.2); power 0."""

    power: ClassVar[float] = 0.0


@samplers.register("reversed")
@dataclass(frozen=True, kw_only=True)
class ReversedSampler(PowerSampler):
    """Draws rare classes more often: p_k proportional to 1/n_k (Zhou et al. 2020, BBN, section 4.2); power -1."""

    power: ClassVar[float] = -1.0


@samplers.register("progressive")
@dataclass(frozen=True, kw_only=True)
class ProgressiveSampler(Sampler):
    """From instance to class-balanced sampling: (1 - t) n_k/N + t/C with t from 0 to 1, Kang et al. 2020, equation 2.

    t grows evenly over the epochs, from 0 in the first to 1 in the last. The paper divides by the number of epochs, so
    that its last epoch stays short of 1. Rows are drawn as in `PowerSampler`.
    """

    def probabilities(self, class_counts: np.ndarray, done: float) -> np.ndarray:
        """Returns the probability of each class, (C,); 0 for a class without rows.

        Args:
            class_counts: Rows of each class, (C,).
            done: t, in [0, 1].
        """
        return (1 - done) * _power_shares(class_counts, 1.0) + done * _power_shares(class_counts, 0.0)

    def epoch_order(self, labels: np.ndarray, epoch: int, epochs: int, seed: int, length: int) -> np.ndarray:
        """Returns positions in `labels`, int64 (length,)."""
        random = np.random.default_rng((seed, epoch))
        done = epoch / (epochs - 1) if epochs > 1 else 1.0
        return _drawn_rows(labels, self.probabilities(np.bincount(labels), done), length, random)


@samplers.register("effective_number")
@dataclass(frozen=True, kw_only=True)
class EffectiveNumberSampler(Sampler):
    """Draws a row with a probability proportional to (1 - beta) / (1 - beta^n_k): Cui et al. 2019, equation 2.

    So p_k is proportional to n_k / E_k with the effective number E_k of the class. Cao et al. 2019 resample this way in
    their released code. Rows are drawn as in `PowerSampler`.

    Args:
        beta: 0 is instance sampling; towards 1 it becomes class-balanced. Cao et al. publish 0.9999.
    """

    beta: Annotated[float, Between(0.0, 1.0, open_high=True)] = 0.9999

    def probabilities(self, class_counts: np.ndarray) -> np.ndarray:
        """Returns the probability of each class, (C,); 0 for a class without rows.

        Args:
            class_counts: Rows of each class, (C,).
        """
        counts = np.asarray(class_counts, dtype=np.float64)
        powers = np.zeros_like(counts)
        np.divide(counts, 1 - self.beta**counts, out=powers, where=counts > 0)
        return powers / powers.sum()

    def epoch_order(self, labels: np.ndarray, epoch: int, epochs: int, seed: int, length: int) -> np.ndarray:
        """Returns positions in `labels`, int64 (length,)."""
        random = np.random.default_rng((seed, epoch))
        return _drawn_rows(labels, self.probabilities(np.bincount(labels)), length, random)


@samplers.register("under_sampling")
@dataclass(frozen=True, kw_only=True)
class UnderSampler(Sampler):
    """Random under-sampling: each class keeps as many rows as the smallest has, drawn once for all epochs.

    Ours: an epoch has as many steps as with all rows, and repeats the kept ones, so that recipes with one number of
    epochs learn equally long. (Random over-sampling is `class_balanced`, which repeats the rows of rare classes.)
    """

    def epoch_order(self, labels: np.ndarray, epoch: int, epochs: int, seed: int, length: int) -> np.ndarray:
        """Returns positions in `labels`, int64 (length,)."""
        choice = np.random.default_rng(seed)
        classes, counts = np.unique(labels, return_counts=True)
        kept = [choice.permutation(np.flatnonzero(labels == label))[: counts.min()] for label in classes.tolist()]
        return _repeated_shuffles(np.concatenate(kept), length, np.random.default_rng((seed, epoch)))


@samplers.register("per_class")
@dataclass(frozen=True, kw_only=True)
class PerClassSampler(Sampler):
    """Blocks of P classes x K images, for losses on pairs and triplets: Hermans et al. 2017, section 2 ("batch hard").

    A block holds P different classes and K different rows of each; classes with fewer than K rows repeat rows as evenly
    as possible. Ours: classes take turns in rounds of all classes, and so do the rows of a class; the paper draws both
    independently for each batch.

    Args:
        classes: P. If the data has fewer classes, a block of the same size holds all of them.
        images: K. Hermans et al. publish P 18 and K 4; the defaults fill a batch of 64 from few classes.
    """

    classes: Annotated[int, Between(2, 65536)] = 4
    images: Annotated[int, Between(1, 4096)] = 16

    def check(self, class_counts: np.ndarray, batch_size: int, num_unlabelled: int = 0) -> None:
        """Also refuses blocks that the classes cannot share evenly or that are not batches; see `Sampler.check`."""
        super().check(class_counts, batch_size, num_unlabelled)
        block = self.classes * self.images
        if self.classes > len(class_counts) and block % len(class_counts):
            raise ConfigError(
                f"classes must be at most the {len(class_counts)} classes of the manifest, or classes x images a "
                f"multiple of them, but got {self.classes} x {self.images}: lower classes, and raise images"
            )
        if block != batch_size:
            raise ConfigError(
                f"classes must be such that classes x images is the batch size {batch_size}, but got "
                f"{self.classes} x {self.images} = {block}: set batch_size={block}, or change classes or images"
            )

    def epoch_order(self, labels: np.ndarray, epoch: int, epochs: int, seed: int, length: int) -> np.ndarray:
        """Returns positions in `labels`, int64 (length,): blocks of P x K, the last one cut short if necessary.

        Within a block the classes alternate, so that each rank's share and each piece of it holds all of them:
        otherwise a batch norm of shares or pieces would see few classes, and its statistics would tell them apart.
        """
        random = np.random.default_rng((seed, epoch))
        present = np.unique(labels)
        class_deck = _Deck(present, random)
        row_decks = {label: _Deck(np.flatnonzero(labels == label), random) for label in present.tolist()}
        classes = min(self.classes, len(present))
        # Only the beginning of a block that is longer than the epoch is used.
        images = min(self.classes * self.images // classes, max(1, -(-length // classes)))
        order = [np.empty(0, dtype=np.int64)]
        for _ in range(-(-length // (classes * images))):
            hands = [row_decks[label].deal(images) for label in class_deck.deal(classes).tolist()]
            order.append(np.stack(hands, axis=1).ravel())  # (K, P), row by row
        return np.concatenate(order)[:length]


class _Deck:
    """Deals cards in rounds of all cards, each in a new random order; a hand repeats a card only if it must."""

    def __init__(self, cards: np.ndarray, random: np.random.Generator) -> None:
        self.random = random
        self.cards = cards
        self.remaining = np.empty(0, dtype=np.int64)  # indices in `cards`, still to deal in this round

    def deal(self, size: int) -> np.ndarray:
        """Returns the next `size` cards, each of which occurs floor or ceil (size / number of cards) times."""
        hand, self.remaining = self.remaining[:size], self.remaining[size:]
        while len(hand) < size:
            missing = size - len(hand)
            shuffle = self.random.permutation(len(self.cards))
            # Cards that the hand holds more often move to the end, where they are not needed; the sort is stable.
            held = np.bincount(hand, minlength=len(self.cards))
            taken = shuffle[np.argsort(held[shuffle], kind="stable")][:missing]
            hand = np.concatenate([hand, taken])
            self.remaining = shuffle[np.isin(shuffle, taken, invert=True)]
        return self.cards[hand]


def _power_shares(class_counts: np.ndarray, power: float) -> np.ndarray:
    """Returns n_k^power, divided by its sum over the classes, (C,); 0 for a class without rows."""
    counts = np.asarray(class_counts, dtype=np.float64)
    powers = np.zeros_like(counts)
    np.power(counts, power, out=powers, where=counts > 0)
    return powers / powers.sum()


def _drawn_rows(labels: np.ndarray, probabilities: np.ndarray, length: int, random: np.random.Generator) -> np.ndarray:
    """Returns positions in `labels`, int64 (length,), for classes drawn with `probabilities` (C,)."""
    classes = random.choice(len(probabilities), size=length, p=probabilities)
    order = np.empty(length, dtype=np.int64)
    for label in np.unique(classes):
        places = np.flatnonzero(classes == label)
        order[places] = _repeated_shuffles(np.flatnonzero(labels == label), len(places), random)
    return order


def _repeated_shuffles(rows: np.ndarray, length: int, random: np.random.Generator) -> np.ndarray:
    """Returns `length` rows, int64: all rows in a random order, then all in another, and so on."""
    shuffles = [random.permutation(rows) for _ in range(-(-length // len(rows)))]
    return np.concatenate([np.empty(0, dtype=np.int64), *shuffles])[:length]
