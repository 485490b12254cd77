"""The training loop of both stages.

Each epoch is a pure function of the state before it: the order of the rows, the views, the learning rate and the seed
of dropout all follow from (seed, epoch, step). So a checkpoint after each epoch is enough to resume bit for bit.
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
from torch.nn.parallel import DistributedDataParallel

from raysk.errors import TrainingError
from raysk.parts.encoder import Encoder
from raysk.parts.losses.base import NoisyLoss, ScheduledLoss
from raysk.parts.mixing import Mixed
from raysk.parts.precision import gradient_scaler
from raysk.records import Health, StageRecord
from raysk.stage import Stage
from raysk.training.batch_norm import GlobalBatchNorm, statistics_kept
from raysk.training.batches import Batches, Inputs
from raysk.training.checkpoints import ProgressCheckpoint, load_optimizer, load_weights, optimizer_tensors, pack, unpack
from raysk.training.guided import Guided
from raysk.training.mixer import Mixer
from raysk.training.optimization import averaged, create_optimizer, learning_rate, parameter_groups
from raysk.training.world import World


@dataclass
class StageProgress:
    """The progress of a stage.

    Args:
        stage: "stage one" or "stage two".
        epochs: Epochs of the whole stage.
        epoch: Epochs done.
        images: Images passed through the network, counting every view, over all workers.
        seconds: Seconds of training, over all attempts.
        losses: Mean loss of each epoch done.
        health: Health after each epoch (see `health`), if it was measured.
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
        """Returns the record of a finished stage."""
        return StageRecord(
            seconds=self.seconds, images=self.images, losses=tuple(self.losses), health=tuple(self.health)
        )


# Called on every rank, at the same points. It may raise to stop the job; it returns whether time is short: a search of
# stage two then ends with what it has.
Report = Callable[[StageProgress], bool]
# Maps the outputs of a whole batch, with given labels, to its loss.
Criterion = Callable[[Tensor], Tensor]
# Called on every rank after each epoch; it may record measurements and end the stage.
Observe = Callable[[StageProgress], None]


@dataclass
class Trainer:
    """Fits one model with one loss.

    Args:
        model: Maps the inputs of a batch to the input of the loss.
        loss: Maps outputs (B, …) and labels (B,) to a scalar.
        stage: Epochs, optimizer, accumulation and averaging.
        seed: Seed of dropout.
        world: The workers that train together.
        job: (key, fold) of the training, to identify the progress file.
        progress_file: Keeps the state after each epoch; the caller removes it when the result is written. None keeps
            nothing: repeating a training of seconds is faster than writing its state.
        mixer: Mixes the images of a batch; None for plain ones.
        head_epochs: Number of epochs, from the first, in which the encoder keeps its weights and its statistics.
    """

    model: nn.Module
    loss: nn.Module
    stage: Stage
    seed: int
    world: World
    job: tuple[str, int]
    progress_file: Path | None
    mixer: Mixer | None = None
    head_epochs: int = 0

    def __post_init__(self) -> None:
        device = self.world.device
        self.model.to(device)
        self.loss.to(device)
        groups = parameter_groups(self.stage.optimizer, self.model, self.loss)
        self.optimizer = create_optimizer(self.stage.optimizer, groups)
        self.scaler = gradient_scaler(device)
        self.average = averaged(self.model, self.stage.ema)
        self._encoders = [module for module in self.model.modules() if isinstance(module, Encoder)]
        every = (weight for encoder in self._encoders for weight in encoder.parameters())
        self._encoder_weights = [weight for weight in every if weight.requires_grad]  # a decoder reads not all of them
        self.network = self._shared()

    def fit(self, batches: Batches, name: str, report: Report, observe: Observe | None = None) -> StageProgress:
        """Trains all remaining epochs, and leaves the final weights in the model.

        Args:
            batches: Training batches.
            name: Name of the stage, for reports and errors.
            report: Called at the start and after every epoch.
            observe: Called after every epoch, before its state is saved.

        Returns:
            Cost and loss curve of the stage, including earlier attempts.

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

    def _shared(self) -> nn.Module:
        """Returns the network whose gradients all workers share."""
        if self.world.size == 1:
            return self.model
        network = GlobalBatchNorm(self.model) if self.stage.sync_batch_norm else self.model
        return DistributedDataParallel(network, [self.world.device] if self.world.device.type == "cuda" else None)

    def _begin_epoch(self, epoch: int) -> None:
        """Sets what trains in an epoch: the whole network, or in the first `head_epochs` all but the encoder."""
        self.network.train()
        if self.head_epochs:
            is_whole = epoch >= self.head_epochs
            for encoder in self._encoders:
                encoder.train(is_whole)
            for weight in self._encoder_weights:
                weight.requires_grad_(is_whole)
            self.network = self._shared()  # shares the gradients of the weights that had one when it was made

    def _train_epoch(self, batches: Batches, epoch: int, progress: StageProgress) -> None:
        began = perf_counter()
        self._begin_epoch(epoch)
        for module in self.loss.modules():
            if isinstance(module, ScheduledLoss):
                module.begin_epoch(epoch / self.stage.epochs)
            if isinstance(module, NoisyLoss):
                module.begin_noise(hash_seed(self.seed, epoch))
        torch.manual_seed(hash_seed(self.seed, epoch, self.world.rank))
        num_steps = self.stage.epochs * batches.num_batches
        total = torch.zeros((), device=self.world.device, dtype=torch.float64)
        for number, (inputs, labels) in enumerate(batches.epoch(epoch)):
            rate = learning_rate(self.stage.optimizer, epoch * batches.num_batches + number, num_steps)
            for group in self.optimizer.param_groups:
                group["lr"] = rate * group["scale"]
            if self.mixer is None or isinstance(inputs, Guided):
                criterion = self._criterion(labels)
            else:
                mixed = self.mixer.mix(inputs, labels, epoch, number)
                inputs, criterion = mixed.images, self._mixed_criterion(mixed)
            total += self._step(inputs, criterion)
            progress.images += _num_images(inputs) * self.world.size
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
        all_labels = self.world.gather(labels)
        return lambda outputs: self.loss(outputs, all_labels)

    def _mixed_criterion(self, mixed: Mixed) -> Criterion:
        """Returns the loss of mixed images: the sum over both labels, weighted by their shares."""
        row_loss, partner_loss = self._criterion(mixed.labels), self._criterion(mixed.partner_labels)
        return lambda outputs: mixed.share * row_loss(outputs) + (1 - mixed.share) * partner_loss(outputs)

    def _step(self, inputs: Inputs, criterion: Criterion) -> Tensor:
        """Takes one optimizer step on this rank's share of a global batch; returns the loss of the whole batch."""
        pieces = inputs.chunk(self.stage.accumulate)
        if len(pieces) == 1:
            loss = criterion(self.world.gather(self.network(inputs)))
            self.scaler.scale(loss).backward()
        else:
            loss = self._accumulate(pieces, criterion)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update_parameters(self.model)
        return loss.detach()

    def _accumulate(self, pieces: tuple[Inputs, ...], criterion: Criterion) -> Tensor:
        """Computes the gradient of the whole batch's loss with the memory of one piece.

        The loss of a batch is not the mean of the losses of its pieces: a contrastive loss compares all images, a
        weighted mean divides by the weights of all. So the outputs of all pieces are computed without gradient, the
        loss gives the gradient of each output, and every piece runs again to propagate it back (Gao et al. 2021,
        "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", section 3.2). Batch norm alone sees
        one piece at a time: each of its layers would need all pieces before the next layer could begin.
        """
        device = self.world.device
        states = []
        outputs = []
        with torch.no_grad(), statistics_kept(self.model):
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
            is_local = isinstance(self.network, DistributedDataParallel) and not is_last
            with self.network.no_sync() if is_local else nullcontext():  # type: ignore[operator]
                self.network(piece).backward(grad)
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
        """Restores the state from the progress file, if it exists."""
        if self.progress_file is None or not self.world.agree(self.progress_file.exists()):
            return fresh
        saved = ProgressCheckpoint.read(self.progress_file, *self.job)
        load_weights(self.model, unpack("model", saved.tensors), self.progress_file)
        load_weights(self.loss, unpack("loss", saved.tensors), self.progress_file)
        load_optimizer(self.optimizer, unpack("optimizer", saved.tensors))
        if self.average is not None:
            load_weights(self.average, unpack("average", saved.tensors), self.progress_file)
        self.scaler.load_state_dict(saved.facts.pop("scaler"))
        self.world.barrier()  # After the last epoch the main rank soon removes the file.
        health = [Health.from_plain(measured, self.progress_file) for measured in saved.facts.pop("health")]
        return StageProgress(**saved.facts, health=health)


def _num_images(inputs: Inputs) -> int:
    """Returns how many images pass through the network: each view counts, of images (B, V, H, W, 3)."""
    images = inputs.images if isinstance(inputs, Guided) else inputs
    return len(images) * (images.shape[1] if images.dim() == 5 else 1)


def hash_seed(*numbers: int) -> int:
    """Returns a seed for torch that differs whenever one of the numbers does."""
    mixed = 0
    for number in numbers:
        # The multiplier of Knuth's 64-bit linear congruential generator spreads small numbers over all bits.
        mixed = ((mixed ^ number) * 6364136223846793005 + 1442695040888963407) % 2**63
    return mixed


def _random_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_random_state(device: torch.device, state: Tensor) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)
