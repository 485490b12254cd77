"""Classification: a head on the kept features of a frozen encoder or on images, and the classes that it predicts."""

from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from raysk.data.views import view_names
from raysk.parts.encoder import Encoder
from raysk.parts.heads import FrozenClassifier
from raysk.recipe import Job
from raysk.run import Run
from raysk.training.attending import AttendingClassifier, CareLoss
from raysk.training.batches import FeatureBatches, ImageBatches, Plan
from raysk.training.checkpoints import ClassifierCheckpoint, load_weights
from raysk.training.features import FrozenFeatures, encode
from raysk.training.guided import Guide
from raysk.training.images import turned_images
from raysk.training.linear_start import linear_start
from raysk.training.loop import Report, StageProgress, Trainer, hash_seed
from raysk.training.mixer import mixer_for
from raysk.training.networks import Classifier, blank_encoder
from raysk.training.stage_one import fresh_encoder, load_encoder
from raysk.training.world import World

_Module = TypeVar("_Module", bound=nn.Module)


def fit_classifier(job: Job, run: Run, world: World, report: Report) -> tuple[StageProgress, nn.Module]:
    """Fits the head of a job and, unless it is frozen, the encoder."""
    fit = _fit_on_features if job.recipe.uses_kept_features else _fit_on_images
    return fit(job, run, world, report)


def predict_classes(job: Job, run: Run, world: World, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the class probabilities of rows, (N, C), in each test-time view."""
    recipe = job.recipe
    head, features = (_on_kept_features if recipe.uses_kept_features else _on_images)(job, run, world, rows)
    shift = recipe.stage_two.adjustment * log_shares(run.class_counts(job))
    return dict(zip(view_names(recipe.test_views), probabilities_of(head, features, shift), strict=True))


def encoder_of_job(job: Job, run: Run) -> Encoder:
    """Returns the encoder of a trained classifier, on the CPU."""
    return load_encoder(job, run) if job.recipe.uses_kept_features else load_classifier(job, run)[0]


def log_shares(class_counts: np.ndarray) -> Tensor:
    """Returns log(n_k / N), (C,); post-hoc logit adjustment subtracts it tau times."""
    counts = torch.from_numpy(class_counts).double()
    return (counts / counts.sum()).log()


def probabilities_of(head: nn.Module, features: Tensor, shift: Tensor) -> np.ndarray:
    """Returns class probabilities (V, N, C), float32, of features (V, N, D); subtracts `shift` (C,) from the logits."""
    head.eval()
    with torch.inference_mode():
        # View by view: the logits of a row must not depend on the number of views.
        logits = torch.stack([head(view) for view in features]).double() - shift.to(features.device)
        probabilities: np.ndarray = logits.softmax(dim=2).float().cpu().numpy()
    return probabilities


def load_classifier(job: Job, run: Run) -> tuple[Encoder, nn.Module]:
    """Returns the encoder and the head of a trained job, on the CPU.

    Raises:
        ArtifactError: A file is missing, broken or from another job.
    """
    if job.recipe.uses_kept_features:
        encoder = load_encoder(job, run)
        return encoder, _head(job, run, encoder.num_features)
    classifier = _classifier(job, run)
    return classifier.encoder, classifier.head


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
    trainer = _trainer(job, run, world, trained, run.progress_file(job))
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


def _on_kept_features(job: Job, run: Run, world: World, rows: np.ndarray) -> tuple[nn.Module, Tensor]:
    """Returns the head, and the kept features (V, N, D) of the encoder of stage one."""
    features = FrozenFeatures(job, run, world, load_encoder).part(job.part)
    return _head(job, run, features.shape[2]).to(world.device), features


def _on_images(job: Job, run: Run, world: World, rows: np.ndarray) -> tuple[nn.Module, Tensor]:
    """Returns the head, and the features (V, N, D) of the encoder that is kept with it."""
    classifier = _classifier(job, run).to(world.device)
    store = run.images(job.recipe)
    views = view_names(job.recipe.test_views)
    features = [encode(classifier.encoder, rows, turned_images(store, view), world) for view in views]
    return classifier.head, torch.stack(features)


def _head(job: Job, run: Run, num_features: int) -> nn.Module:
    head = job.recipe.stage_two.head.build(num_features, len(run.manifest.class_names))
    return _loaded(job, run, head)


def _classifier(job: Job, run: Run) -> Classifier:
    encoder = blank_encoder(job.recipe.model, job.recipe.image_size)
    return _loaded(job, run, Classifier(encoder, job.recipe.stage_two.head, len(run.manifest.class_names)))


def _loaded(job: Job, run: Run, module: _Module) -> _Module:
    path = run.classifier_file(job)
    load_weights(module, ClassifierCheckpoint.read(path, job.recipe.key, job.fold).tensors, path)
    return module
