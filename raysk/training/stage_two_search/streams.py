"""The batches of several streams side by side: settings with equal samplers, views and passes see one stream."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from raysk.parts.samplers import Sampler
from raysk.stage_two import StageTwo
from raysk.training.batches import Plan
from raysk.training.world import World


@dataclass(frozen=True)
class Stream:
    """What the batches of a setting depend on, besides their size and the number of epochs."""

    view: str
    passes: int
    sampler: Sampler
    defer_sampler: float

    @classmethod
    def of(cls, stage: StageTwo) -> "Stream":
        """Returns the stream of a stage."""
        return cls(stage.view, stage.passes, stage.sampler, stage.defer_sampler)


class Streams:
    """The batches of S streams, each as `FeatureBatches` gives them.

    Args:
        stages: A stage of each stream, with the same batch size and number of epochs.
        features: (P, N, D) of each view.
        labels: (N,).
        seed: Seed of the order.
    """

    def __init__(
        self, stages: Sequence[StageTwo], features: Mapping[str, Tensor], labels: np.ndarray, seed: int
    ) -> None:
        self._stages = stages
        self._features = {view: of_view.flatten(0, 1) for view, of_view in features.items()}  # each (P N, D)
        (example, *_) = self._features.values()
        self._labels = torch.from_numpy(labels).to(example.device)
        world = World(0, 1, example.device)
        # Streams that differ in views and passes alone visit the rows in one order.
        self._plans = {(stage.sampler, stage.defer_sampler): Plan(labels, stage, seed, world) for stage in stages}
        (plan, *_) = self._plans.values()
        self.num_batches = plan.num_batches
        self._inputs = example.new_empty(len(stages), plan.batch_size, example.shape[1])

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields inputs (S, B, D) and labels (S, B); the next batch overwrites the inputs."""
        numbers = {key: plan.shares(epoch) for key, plan in self._plans.items()}
        rows, places = [], []  # of each stream, (num_batches, B)
        for stage in self._stages:
            shares = numbers[stage.sampler, stage.defer_sampler]
            of_stream, draws = (np.stack(parts) for parts in zip(*shares, strict=True))
            rows.append(of_stream)
            places.append((epoch + draws) % stage.passes * len(self._labels) + of_stream)
        device = self._labels.device
        # Moved in one copy: a copy per small batch would take longer than the step.
        labels = self._labels[torch.from_numpy(np.stack(rows, axis=1)).to(device)]
        for of_batch, of_labels in zip(torch.from_numpy(np.stack(places, axis=1)).to(device), labels, strict=True):
            for inputs, stage, places_in_view in zip(self._inputs, self._stages, of_batch, strict=True):
                torch.index_select(self._features[stage.view], 0, places_in_view, out=inputs)
            yield self._inputs, of_labels
