"""Predicted probabilities of held-out and test rows."""

from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from raysk.data.views import view_names
from raysk.evaluation.predictions import Predictions
from raysk.parts.encoder import Encoder
from raysk.recipe import Job
from raysk.run import Run
from raysk.training.checkpoints import ClassifierCheckpoint, load_weights
from raysk.training.features import FrozenFeatures, encode
from raysk.training.images import turned_images
from raysk.training.networks import Classifier, blank_encoder
from raysk.training.segmenting import predict_masks
from raysk.training.stage_one import load_encoder
from raysk.training.world import World

_Module = TypeVar("_Module", bound=nn.Module)


def predict(job: Job, run: Run, world: World) -> None:
    """Predicts one part of a job's fold with its classifier, in every test-time view, and writes the probabilities.

    Raises:
        ArtifactError: The classifier is missing, broken or from another job.
    """
    rows, form = run.folds.scored_rows(job.fold, job.part), job.recipe.task.form
    probabilities = (_of_classes if form.has_classes else predict_masks)(job, run, world, rows)
    if world.is_main_rank:
        Predictions.of_fold(
            run.manifest,
            run.folds,
            fold=job.fold,
            part=job.part,
            recipe_key=job.recipe.key,
            views=view_names(job.recipe.test_views),
            probabilities=probabilities,
            form=form,
        ).write(run.predictions_file(job.recipe.key, job.fold, job.part))
    world.barrier()


def _of_classes(job: Job, run: Run, world: World, rows: np.ndarray) -> np.ndarray:
    """Returns the class probabilities of rows, (V, N, C)."""
    stage = job.recipe.stage_two
    head, features = (_on_kept_features if stage.uses_kept_features else _on_images)(job, run, world, rows)
    return probabilities_of(head, features, stage.adjustment * log_shares(run.class_counts(job)))


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
    if job.recipe.stage_two.uses_kept_features:
        encoder = load_encoder(job, run)
        return encoder, _head(job, run, encoder.num_features)
    classifier = _classifier(job, run)
    return classifier.encoder, classifier.head


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
