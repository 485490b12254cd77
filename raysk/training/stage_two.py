"""Stage two: fits a classifier, on the kept features of a frozen encoder or on images."""

from pathlib import Path

import torch
from torch import Tensor, nn

from raysk.parts.heads import FrozenClassifier
from raysk.recipe import Job
from raysk.records import StageRecord
from raysk.run import Run
from raysk.training.attending import AttendingClassifier, CareLoss
from raysk.training.batches import FeatureBatches, ImageBatches, Plan
from raysk.training.checkpoints import ClassifierCheckpoint
from raysk.training.features import FrozenFeatures
from raysk.training.guided import Guide
from raysk.training.linear_start import linear_start
from raysk.training.loop import Report, StageProgress, Trainer, hash_seed
from raysk.training.mixer import mixer_for
from raysk.training.networks import Classifier
from raysk.training.segmenting import fit_segmenter, progress_file
from raysk.training.stage_one import fresh_encoder, load_encoder
from raysk.training.world import World


def train_stage_two(job: Job, run: Run, world: World, report: Report) -> StageRecord:
    """Fits the classifier of a job, and writes it.

    Returns:
        Cost and loss curve.

    Raises:
        TrainingError: The loss is not a number.
    """
    path = run.classifier_file(job)
    if world.agree(path.exists()):
        return _record(path, job)
    progress, model = _fit(job, run, world, report)
    if world.is_main_rank:
        facts = progress.record().to_plain()
        ClassifierCheckpoint(job.recipe.key, job.fold, facts, model.state_dict()).write(path)
        progress_file(job, run).unlink(missing_ok=True)
    world.barrier()
    return _record(path, job)


def _record(path: Path, job: Job) -> StageRecord:
    """Reads the record of the classifier's training; reads the whole file, so that a broken file fails here."""
    return StageRecord.from_plain(ClassifierCheckpoint.read(path, job.recipe.key, job.fold).facts, path)


def _fit(job: Job, run: Run, world: World, report: Report) -> tuple[StageProgress, nn.Module]:
    if not job.recipe.task.form.has_classes:
        return fit_segmenter(job, run, world, report)
    fit = _fit_on_features if job.recipe.stage_two.uses_kept_features else _fit_on_images
    return fit(job, run, world, report)


def _fit_on_features(job: Job, run: Run, world: World, report: Report) -> tuple[StageProgress, nn.Module]:
    """Fits the head alone; the encoder stays unchanged in its own file."""
    stage = job.recipe.stage_two
    plan = _plan(job, run, world)
    frozen = FrozenFeatures(job, run, world, load_encoder)
    features = frozen.training(stage.view, stage.passes)
    torch.manual_seed(hash_seed(job.recipe.seed, job.fold, 2))
    head = stage.head.build(features.shape[2], len(run.manifest.class_names))
    _start(head, features[0], job, run, world)
    if not list(head.parameters()):
        return StageProgress("stage two", stage.epochs), head
    return _trainer(job, run, world, head, None).fit(FeatureBatches(features, plan), "stage two", report), head


def _fit_on_images(job: Job, run: Run, world: World, report: Report) -> tuple[StageProgress, nn.Module]:
    """Fits encoder and head together; of a frozen encoder, batch norm's running statistics alone."""
    recipe, stage = job.recipe, job.recipe.stage_two
    is_new = recipe.stage_one is None and not stage.frozen
    encoder = fresh_encoder(job, world) if is_new else load_encoder(job, run)
    torch.manual_seed(hash_seed(recipe.seed, job.fold, 2))
    classifier = Classifier(encoder, stage.head, len(run.manifest.class_names))
    if stage.frozen:
        encoder.requires_grad_(False)
        features = FrozenFeatures(job, run, world, load_encoder).training("none", 1)[0]
        _start(classifier.head, features, job, run, world)
    rows, care = run.train_rows(job), stage.care
    guide = None if care is None else Guide.of(job, run, care)
    batches = ImageBatches(run.images(recipe), rows, (stage.view,), _plan(job, run, world), guide)
    trained = classifier if care is None else AttendingClassifier(classifier, care)
    trainer = _trainer(job, run, world, trained, progress_file(job, run))
    return trainer.fit(batches, "stage two", report), classifier


def _start(head: nn.Module, features: Tensor, job: Job, run: Run, world: World) -> None:
    """Starts a head that needs it, from the features (N, D) of the training rows."""
    if isinstance(head, FrozenClassifier):
        labels = torch.from_numpy(run.manifest.labels[run.train_rows(job)])
        head.start_from(features.cpu(), labels, *linear_start(job, run, world))


def _plan(job: Job, run: Run, world: World) -> Plan:
    labels = run.manifest.labels[run.train_rows(job)]
    return Plan(labels, job.recipe.stage_two, job.recipe.seed, world)


def _trainer(job: Job, run: Run, world: World, model: nn.Module, progress_file: Path | None) -> Trainer:
    recipe, stage = job.recipe, job.recipe.stage_two
    counts = torch.from_numpy(run.class_counts(job))
    loss = stage.loss.build(counts)
    return Trainer(
        model.to(world.device),
        loss if stage.care is None else CareLoss(loss, stage.care.weight),
        stage,
        hash_seed(recipe.seed, 2),
        world,
        (recipe.key, job.fold),
        progress_file,
        mixer_for(stage.mixing, counts, hash_seed(recipe.seed, 3), world),
        stage.head_epochs,
    )
