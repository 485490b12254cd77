"""The one training loop, which both stages use.

Each epoch is a pure function of the state before it: the order of the rows, the views, the learning rate and the seed
of dropout all follow from (seed, epoch, step). So a checkpoint after each epoch is enough to go on bit for bit.
"""

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from raysk.errors import TrainingError
from raysk.parts.losses.base import ScheduledLoss
from raysk.parts.mixing import Mixed
from raysk.recipe import Stage
from raysk.records import Health, StageRecord
from raysk.training.batches import Batches
from raysk.training.checkpoints import ProgressCheckpoint, load_optimizer, load_weights, optimizer_tensors, pack, unpack
from raysk.training.mixer import Mixer
from raysk.training.optimization import averaged, create_optimizer, learning_rate
from raysk.training.precision import autocast, gradient_scaler
from raysk.training.world import World


@dataclass
class StageProgress:
    """How far a stage has come.

    Args:
        stage: "stage one" or "stage two".
        epochs: Of the whole stage.
        epoch: Epochs done.
        images: Images pushed through the network, each view counted, over all workers.
        seconds: Spent in training, over all attempts.
        losses: Mean loss of each epoch done.
        health: What was measured after each epoch (see `health`), if anything was.
        is_over: Whether the stage ended before its last epoch.
    """

    stage: str
    epochs: int
    epoch: int = 0
    images: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)
    health: list[Health] = field(default_factory=list)
    is_over: bool = False

    def record(self) -> StageRecord:
        """Returns what is kept of a stage that is done."""
        return StageRecord(
            seconds=self.seconds, images=self.images, losses=tuple(self.losses), health=tuple(self.health)
        )


# Called on every rank, at the same points; it may raise to leave the job.
Report = Callable[[StageProgress], None]
# Outputs of a whole batch to its loss, with the labels known.
Criterion = Callable[[Tensor], Tensor]
# Called on every rank after each epoch; it may note what it measures, and end the stage.
Observe = Callable[[StageProgress], None]


@dataclass
class Trainer:
    """Fits one model with one loss.

    Args:
        model: Inputs of a batch to what the loss reads.
        loss: Outputs (B, …) and labels (B,) to a scalar.
        stage: Epochs, optimizer, accumulation and averaging.
        seed: Of dropout.
        world: The workers that train together.
        job: (key, fold) of what is trained, to name the progress file.
        progress_file: Where the state after each epoch is kept; removed by the caller when the result is written. None
            keeps nothing: a training of seconds is done again sooner than it is written.
        mixer: Mixes the images of a batch; None for plain ones.
    """

    model: nn.Module
    loss: nn.Module
    stage: Stage
    seed: int
    world: World
    job: tuple[str, int]
    progress_file: Path | None
    mixer: Mixer | None = None

    def __post_init__(self) -> None:
        device = self.world.device
        self.model.to(device)
        self.loss.to(device)
        parameters = [p for p in (*self.model.parameters(), *self.loss.parameters()) if p.requires_grad]
        self.optimizer = create_optimizer(self.stage.optimizer, parameters)
        self.scaler = gradient_scaler(device)
        self.average = averaged(self.model, self.stage.ema)
        self.network: nn.Module = self.model
        if self.world.size > 1:
            self.network = DistributedDataParallel(self.model, [device] if device.type == "cuda" else None)

    def fit(self, batches: Batches, name: str, report: Report, observe: Observe | None = None) -> StageProgress:
        """Trains all epochs that are still to do, and leaves the model with the weights to keep.

        Args:
            batches: What to train on.
            name: Of the stage, for reports and errors.
            report: Told of every epoch.
            observe: Looks at the model after every epoch.

        Returns:
            Cost and loss curve of the stage, earlier attempts included.

        Raises:
            TrainingError: The loss is not a number.
        """
        progress = self._restore(StageProgress(name, self.stage.epochs))
        report(progress)
        while progress.epoch < self.stage.epochs and not progress.is_over:
            self._train_epoch(batches, progress.epoch, progress)
            if observe is not None:
                observe(progress)
            self._save(progress)
            report(progress)
        if self.average is not None:
            self.model.load_state_dict(self.average.module.state_dict())
        return progress

    def _train_epoch(self, batches: Batches, epoch: int, progress: StageProgress) -> None:
        began = perf_counter()
        self.network.train()
        for module in self.loss.modules():
            if isinstance(module, ScheduledLoss):
                module.begin_epoch(epoch / self.stage.epochs)
        torch.manual_seed(hash_seed(self.seed, epoch, self.world.rank))
        num_steps = self.stage.epochs * batches.num_batches
        total = torch.zeros((), device=self.world.device, dtype=torch.float64)
        for number, (inputs, labels) in enumerate(batches.epoch(epoch)):
            rate = learning_rate(self.stage.optimizer, epoch * batches.num_batches + number, num_steps)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            if self.mixer is None:
                criterion = self._criterion(labels)
            else:
                mixed = self.mixer.mix(inputs, labels, epoch, number)
                inputs, criterion = mixed.images, self._mixed_criterion(mixed)
            total += self._step(inputs, criterion)
            # The views of an image (B, V, H, W, 3) are each pushed through the network.
            copies = inputs.shape[1] if inputs.dim() == 5 else 1
            progress.images += len(inputs) * copies * self.world.size
        mean = (total / batches.num_batches).item()
        if not math.isfinite(mean):
            rate = self.stage.optimizer.lr
            raise TrainingError(
                f"the loss of {progress.stage} must be a number, but is {mean} after epoch {epoch + 1}:"
                f" try a smaller {progress.stage.replace(' ', '_')}.optimizer.lr than {rate:g}, or a longer warmup"
            )
        progress.losses.append(mean)
        progress.epoch = epoch + 1
        progress.seconds += perf_counter() - began

    def _criterion(self, labels: Tensor) -> Criterion:
        every_label = self.world.gather(labels)
        return lambda outputs: self.loss(outputs, every_label)

    def _mixed_criterion(self, mixed: Mixed) -> Criterion:
        """Returns the loss of both labels of a mixed image, in the shares of their images."""
        ours, partners = self._criterion(mixed.labels), self._criterion(mixed.partner_labels)
        return lambda outputs: mixed.share * ours(outputs) + (1 - mixed.share) * partners(outputs)

    def _step(self, inputs: Tensor, criterion: Criterion) -> Tensor:
        """Takes one optimizer step on a global batch, of which this rank holds a share; returns the batch's loss."""
        pieces = inputs.chunk(self.stage.accumulate)
        if len(pieces) == 1:
            with autocast(self.world.device):
                outputs = self.network(inputs)
            loss = criterion(self.world.gather(outputs))
            self.scaler.scale(loss).backward()
        else:
            loss = self._accumulate(pieces, criterion)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update_parameters(self.model)
        return loss.detach()

    def _accumulate(self, pieces: tuple[Tensor, ...], criterion: Criterion) -> Tensor:
        """Computes the gradient of the whole batch's loss with the memory of one piece.

        The loss of a batch is not the mean of the losses of its pieces: a contrastive loss compares all images, a
        weighted mean divides by the weights of all. So the outputs of all pieces are computed without gradient, the
        loss gives the gradient of each output, and every piece is run once more to carry it back (Gao et al. 2021,
        "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", section 3.2).
        """
        device = self.world.device
        states = []
        outputs = []
        with torch.no_grad(), autocast(device), _statistics_kept(self.model):
            for piece in pieces:
                states.append(_random_state(device))
                outputs.append(self.network(piece))
        whole = torch.cat(outputs).requires_grad_()
        loss = criterion(self.world.gather(whole))
        self.scaler.scale(loss).backward()
        if whole.grad is None:
            raise TrainingError("the loss must depend on the network's outputs, but has no gradient: check the loss")
        grads = whole.grad.split([len(piece) for piece in pieces])
        for number, (piece, grad, state) in enumerate(zip(pieces, grads, states, strict=True)):
            _set_random_state(device, state)
            is_last = number == len(pieces) - 1
            # Ranks exchange gradients once, with the last piece.
            apart = isinstance(self.network, DistributedDataParallel) and not is_last
            with self.network.no_sync() if apart else nullcontext():  # type: ignore[operator]
                with autocast(device):
                    output = self.network(piece)
                output.backward(grad.to(output.dtype))
        return loss

    def _save(self, progress: StageProgress) -> None:
        if self.progress_file is None:
            return
        if self.world.is_main_rank:
            tensors = pack("model", self.model.state_dict()) | pack("loss", self.loss.state_dict())
            tensors |= pack("optimizer", optimizer_tensors(self.optimizer))
            if self.average is not None:
                tensors |= pack("average", self.average.state_dict())
            health = [measured.to_plain() for measured in progress.health]
            facts: dict[str, Any] = vars(progress) | {"health": health, "scaler": self.scaler.state_dict()}
            ProgressCheckpoint(*self.job, facts, tensors).write(self.progress_file)
        self.world.barrier()

    def _restore(self, fresh: StageProgress) -> StageProgress:
        """Goes on from the progress file, where there is one."""
        if self.progress_file is None or not self.world.agree(self.progress_file.exists()):
            return fresh
        saved = ProgressCheckpoint.read(self.progress_file, *self.job)
        load_weights(self.model, unpack("model", saved.tensors), self.progress_file)
        load_weights(self.loss, unpack("loss", saved.tensors), self.progress_file)
        load_optimizer(self.optimizer, unpack("optimizer", saved.tensors))
        if self.average is not None:
            load_weights(self.average, unpack("average", saved.tensors), self.progress_file)
        self.scaler.load_state_dict(saved.facts.pop("scaler"))
        self.world.barrier()  # After the last epoch the main rank goes straight on to remove the file.
        health = [Health.from_plain(measured, self.progress_file) for measured in saved.facts.pop("health")]
        return StageProgress(**saved.facts, health=health)


def hash_seed(*numbers: int) -> int:
    """Returns a seed for torch that differs whenever one of the numbers does."""
    mixed = 0
    for number in numbers:
        # The multiplier of Knuth's 64-bit linear congruential generator spreads small numbers over all bits.
        mixed = ((mixed ^ number) * 6364136223846793005 + 1442695040888963407) % 2**63
    return mixed


class _statistics_kept:  # noqa: N801 - reads as a statement
    """Keeps batch norm from counting a batch in its running statistics, which the second run will count."""

    def __init__(self, model: nn.Module) -> None:
        layers = [module for module in model.modules() if isinstance(module, _BatchNorm)]
        self.layers = [layer for layer in layers if layer.track_running_stats]

    def __enter__(self) -> None:
        for layer in self.layers:
            layer.track_running_stats = False

    def __exit__(self, *_: object) -> None:
        for layer in self.layers:
            layer.track_running_stats = True


def _random_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_random_state(device: torch.device, state: Tensor) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)
