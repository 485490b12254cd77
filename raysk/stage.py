"""The settings that both stages of a recipe have."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from raysk.errors import ConfigError
from raysk.parts.samplers import InstanceSampler, Sampler, samplers
from raysk.settings import Between, Settings


@dataclass(frozen=True, kw_only=True)
class Optimizer(Settings):
    """The optimizer of a stage, and its schedule.

    Args:
        name: "sgd" or "adamw".
        lr: Peak learning rate.
        momentum: Momentum of SGD; AdamW has none.
        weight_decay: Weight decay; decoupled in AdamW, L2 in SGD.
        schedule: "cosine" to zero, "step" (divided by ten after every third of the epochs) or "constant".
        warmup: Share of all steps in which the rate rises linearly from zero.
        head_factor: Learning rate of everything after the encoder, relative to `lr`.
        layer_decay: Learning rate of a layer of the encoder, relative to that of the layer after it; the layer after
            the last has the rate `lr`.
    """

    name: Literal["sgd", "adamw"] = "sgd"
    lr: Annotated[float, Between(0, 100, open_low=True)] = 0.05
    momentum: Annotated[float, Between(0, 1, open_high=True)] = 0.9
    weight_decay: Annotated[float, Between(0, 10)] = 5e-5
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    warmup: Annotated[float, Between(0, 1, open_high=True)] = 0.0
    head_factor: Annotated[float, Between(0, 1000, open_low=True)] = 1.0
    layer_decay: Annotated[float, Between(0, 1, open_low=True)] = 1.0


@dataclass(frozen=True, kw_only=True)
class Stage(Settings):
    """The settings that both stages have.

    Args:
        epochs: Number of passes over the training rows.
        batch_size: Number of images in a global batch, over all workers.
        accumulate: Number of pieces in which a worker runs its share of a batch through the network; the loss still
            sees the whole batch, so the result is the same as with one piece, unless the network has batch norm, which
            normalises each piece by itself.
        sync_batch_norm: Whether batch norm takes its statistics from the batches of all workers, so that the result
            does not depend on their number; false takes them from each worker's share.
        optimizer: The optimizer and its schedule.
        sampler: Chooses the rows of an epoch.
        defer_sampler: Share of the epochs that visit every row once, before the sampler applies (deferred re-sampling,
            DRS: Cao et al. 2019); 0 applies it from the start.
        ema: Decay of the exponential moving average of the weights; 0 keeps the last weights.
    """

    epochs: Annotated[int, Between(1, 100_000)] = 10
    batch_size: Annotated[int, Between(2, 1_000_000)] = 64
    accumulate: Annotated[int, Between(1, 1_000_000)] = 1
    sync_batch_norm: bool = True
    optimizer: Optimizer = field(default_factory=Optimizer)
    sampler: Annotated[Sampler, samplers] = field(default_factory=InstanceSampler)
    defer_sampler: Annotated[float, Between(0, 1)] = 0.0
    ema: Annotated[float, Between(0, 1, open_high=True)] = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_size % self.accumulate:
            raise ConfigError(
                f"accumulate must divide batch_size {self.batch_size}, but got {self.accumulate}: change one"
            )
