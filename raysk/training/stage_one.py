"""Stage one: learns the representation, and keeps the encoder without its projection head."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from raysk.data.folds.assignment import WHOLE
from raysk.parts.encoder import Encoder
from raysk.parts.heads import heads
from raysk.recipe import Job, StageOne
from raysk.records import StageRecord
from raysk.run import Run
from raysk.training.batches import ImageBatches, Plan
from raysk.training.checkpoints import EncoderCheckpoint, load_weights, pack, unpack
from raysk.training.features import encode
from raysk.training.health import measure, probe_rows
from raysk.training.images import plain_images
from raysk.training.loop import Observe, Report, StageProgress, Trainer, hash_seed
from raysk.training.mixer import mixer_for
from raysk.training.networks import StageOneLoss, StageOneNetwork, blank_encoder, new_encoder
from raysk.training.world import World

logger = logging.getLogger(__name__)

# Enough rows for a steady probe, few enough that it costs a small part of an epoch.
_PROBE_ROWS_PER_CLASS = 100


def fresh_encoder(job: Job, world: World) -> Encoder:
    """Returns the initial encoder of a job: the seed determines it, and it is equal on all ranks."""
    if not world.is_main_rank:
        world.barrier()  # The main rank fetches published weights; the others find them in its cache.
    torch.manual_seed(hash_seed(job.recipe.seed, job.fold))
    encoder = new_encoder(job.recipe.model, job.recipe.image_size)
    if world.is_main_rank:
        world.barrier()
    return encoder


def load_encoder(job: Job, run: Run) -> Encoder:
    """Returns the encoder that stage one of this job saved, or the one that came ready.

    Raises:
        ArtifactError: Its file is missing, broken or from another job.
        ConfigError: The file of a ready encoder is missing or broken.
    """
    if job.recipe.is_probe:
        return new_encoder(job.recipe.model, job.recipe.image_size)
    path = run.encoder_file(job)
    encoder = blank_encoder(job.recipe.model, job.recipe.image_size)
    saved = EncoderCheckpoint.read(path, str(job.recipe.encoder_key), job.fold)
    load_weights(encoder, unpack("encoder", saved.tensors), path)
    return encoder


def train_stage_one(job: Job, run: Run, world: World, report: Report) -> StageRecord:
    """Trains the encoder of a job, unless a recipe with the same stage one already has on this fold.

    Returns:
        Cost, loss curve and health of its training.

    Raises:
        TrainingError: The loss is not a number.
    """
    path = run.encoder_file(job)
    key = str(job.recipe.encoder_key)
    if world.agree(path.exists()):
        return _record(path, key, job.fold)
    stage = job.recipe.stage_one
    if stage is None:
        raise ValueError("a one-stage recipe has no encoder to train")
    rows = run.stage_one_rows(job)
    labels = run.manifest.labels[rows]
    num_classes = len(run.manifest.class_names)
    model = _network(stage, fresh_encoder(job, world), num_classes)
    counts = torch.from_numpy(run.class_counts(job))
    loss = _loss(stage, counts)
    plan = Plan(labels, stage, job.recipe.seed, world)
    batches = ImageBatches(run.images(job.recipe), rows, stage.views * stage.copies, plan)
    progress_file = path.with_suffix(".progress")
    mixer = mixer_for(stage.mixing, counts, hash_seed(job.recipe.seed, 4), world)
    trainer = Trainer(model, loss, stage, hash_seed(job.recipe.seed, 1), world, (key, job.fold), progress_file, mixer)
    if job.fold == WHOLE:
        observe = _until(_epochs_of_folds(job, run))
    else:
        observe = _Probe(job, run, model.encoder, world, stage).observe
    progress = trainer.fit(batches, "stage one", report, observe)
    if world.is_main_rank:
        tensors = pack("encoder", model.encoder.state_dict())
        if model.classifier is not None:
            tensors |= pack("classifier", model.classifier.state_dict())
        EncoderCheckpoint(key, job.fold, progress.record().to_plain(), tensors).write(path)
        progress_file.unlink(missing_ok=True)
    world.barrier()
    return _record(path, key, job.fold)


def _record(path: Path, key: str, fold: int) -> StageRecord:
    """Reads the record of the encoder's training; reads the whole file, so that a broken file fails here."""
    return StageRecord.from_plain(EncoderCheckpoint.read(path, key, fold).facts, path)


def _epochs_of_folds(job: Job, run: Run) -> int:
    """Returns the mean number of epochs after which the folds ended: without held-out rows, no probe ends the stage."""
    jobs = [replace(job, fold=fold) for fold in range(len(run.folds))]
    records = [_record(run.encoder_file(job), str(job.recipe.encoder_key), job.fold) for job in jobs]
    return round(float(np.mean([len(record.losses) for record in records])))


def _until(epoch: int) -> Observe:
    """Returns the observer that ends a stage after an epoch; the learning rate follows the whole schedule."""

    def observe(progress: StageProgress) -> None:
        progress.is_over = progress.epoch >= epoch

    return observe


def _network(stage: StageOne, encoder: Encoder, num_classes: int) -> StageOneNetwork:
    projection = None if stage.loss is None else stage.projection
    if stage.classifier_loss is None:
        return StageOneNetwork(encoder, projection, normalise=stage.normalise)
    wanted = dict(stage.classifier_loss.head or {"name": "linear"})
    head = heads[wanted.pop("name")].from_plain(wanted)
    return StageOneNetwork(encoder, projection, num_classes, head, stage.normalise)


def _loss(stage: StageOne, counts: Tensor) -> nn.Module:
    on_embeddings = None if stage.loss is None else stage.loss.build(counts, stage.projection)
    on_logits = None if stage.classifier_loss is None else stage.classifier_loss.build(counts)
    return StageOneLoss(on_embeddings, stage.loss_weight, on_logits, 0 if stage.loss is None else stage.projection)


class _Probe:
    """Measures the encoder's health after every epoch, on a few rows of each class; ends a stage that stops learning.

    The losses of two recipes are not comparable, since a temperature changes their scale; the macro-F1 of class means
    on held-out rows is.
    """

    def __init__(self, job: Job, run: Run, encoder: Encoder, world: World, stage: StageOne) -> None:
        self.encoder, self.world, self.patience = encoder, world, stage.patience
        self.images = plain_images(run.images(job.recipe))
        self.class_names = run.manifest.class_names
        self.labels = run.manifest.labels
        # An encoder that reads no labels serves all shares of labels, so its health must not depend on the share.
        train = run.train_rows(job) if stage.reads_labels else run.folds.train_rows(job.fold)
        parts = (train, run.folds.held_out_rows(job.fold))
        self.rows = [probe_rows(self.labels[rows], rows, _PROBE_ROWS_PER_CLASS, job.recipe.seed) for rows in parts]

    def observe(self, progress: StageProgress) -> None:
        """Adds the health of an epoch, and sets whether the stage is over."""
        train, held_out = self.rows
        features = encode(self.encoder, np.concatenate(self.rows), self.images, self.world).cpu()
        health = measure(
            features[: len(train)],
            self.labels[train],
            features[len(train) :],
            self.labels[held_out],
            self.class_names,
        )
        progress.health.append(health)
        if health.alarm is not None:
            logger.warning("epoch %d: %s", progress.epoch, health.alarm)
        probes = [measured.probe for measured in progress.health]
        best = int(np.argmax(probes))
        progress.is_over = 0 < self.patience <= len(probes) - 1 - best
