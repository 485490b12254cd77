"""Stage two: fits a classifier, on the features of a frozen encoder or end to end."""

import numpy as np
import torch
from torch import Tensor, nn

from raysk.data.views import TrainingView, view_seed
from raysk.recipe import Job
from raysk.run import Run
from raysk.training.batches import Batches, FeatureBatches, ImageBatches, Plan
from raysk.training.checkpoints import ClassifierCheckpoint
from raysk.training.loop import Report, Trainer, hash_seed
from raysk.training.networks import Classifier
from raysk.training.predict import encode
from raysk.training.stage_one import fresh_encoder, load_encoder
from raysk.training.world import World


def train_stage_two(job: Job, run: Run, world: World, report: Report) -> dict[str, object]:
    """Fits the classifier of a job, and writes it.

    Returns:
        Cost and loss curve.

    Raises:
        TrainingError: The loss is not a number.
    """
    recipe, stage = job.recipe, job.recipe.stage_two
    path = run.classifier_file(job)
    if world.agree(path.exists()):
        return ClassifierCheckpoint.read(path, recipe.key, job.fold).facts
    num_classes = len(run.manifest.class_names)
    rows = run.folds.train_rows(job.fold)
    labels = run.manifest.labels[rows]
    encoder = fresh_encoder(job, world) if recipe.stage_one is None else load_encoder(job, run)
    torch.manual_seed(hash_seed(recipe.seed, job.fold, 2))
    classifier = Classifier(encoder, stage.head, num_classes).to(world.device)
    plan = Plan(labels, stage, recipe.seed, world)
    model: nn.Module
    batches: Batches
    if stage.frozen:
        model, batches = classifier.head, FeatureBatches(_training_features(job, run, classifier, rows, world), plan)
    else:
        model, batches = classifier, ImageBatches(run.store(recipe.image_size), rows, (stage.view,), plan)
    counts = torch.from_numpy(labels).bincount(minlength=num_classes)
    progress_file = path.with_suffix(".progress")
    seed = hash_seed(recipe.seed, 2)
    trainer = Trainer(model, stage.loss.build(counts), stage, seed, world, (recipe.key, job.fold), progress_file)
    progress = trainer.fit(batches, "stage two", report)
    if world.is_chief:
        facts = {"seconds": progress.seconds, "images": progress.images, "losses": progress.losses}
        ClassifierCheckpoint(recipe.key, job.fold, facts, classifier.state_dict()).write(path)
        progress_file.unlink(missing_ok=True)
    world.barrier()
    return ClassifierCheckpoint.read(path, recipe.key, job.fold).facts


def _training_features(job: Job, run: Run, classifier: Classifier, rows: np.ndarray, world: World) -> Tensor:
    """Encodes the training rows once for every pass: (P, N, D), the same on every rank."""
    store = run.store(job.recipe.image_size)
    view = TrainingView(job.recipe.stage_two.view, job.recipe.image_size)
    passes = []
    for number in range(job.recipe.stage_two.passes):

        def images(batch: np.ndarray, number: int = number) -> np.ndarray:
            seeds = [view_seed(job.recipe.seed, number, int(row), 0) for row in batch]
            return np.stack([view(store.pixels[row], seed) for row, seed in zip(batch, seeds, strict=True)])

        passes.append(encode(classifier.encoder, rows, images, world))
    return torch.stack(passes)
