"""Predicted probabilities of held-out and test rows."""

import numpy as np
import torch
from torch import Tensor, nn

from raysk.data.views import view_names
from raysk.evaluation.predictions import Predictions
from raysk.recipe import Job
from raysk.run import Run
from raysk.training.checkpoints import ClassifierCheckpoint, load_weights
from raysk.training.features import FrozenFeatures, encode
from raysk.training.images import turned_images
from raysk.training.networks import Classifier, Encoder
from raysk.training.stage_one import load_encoder
from raysk.training.world import World


def predict(job: Job, run: Run, world: World) -> None:
    """Predicts one part of a job's fold with its classifier, in every test-time view, and writes the probabilities.

    Raises:
        ArtifactError: The classifier is missing, broken or from another job.
    """
    stage = job.recipe.stage_two
    rows = run.folds.scored_rows(job.fold, job.part)
    head, features = (_on_kept_features if stage.uses_kept_features else _on_images)(job, run, world, rows)
    shift = stage.adjustment * log_shares(run.class_counts(job.fold))
    if world.is_main_rank:
        Predictions.of_fold(
            run.manifest,
            run.folds,
            fold=job.fold,
            part=job.part,
            recipe_key=job.recipe.key,
            views=view_names(job.recipe.test_views),
            probabilities=probabilities_of(head, features, shift),
        ).write(run.predictions_file(job.recipe.key, job.fold, job.part))
    world.barrier()


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


def _on_kept_features(job: Job, run: Run, world: World, rows: np.ndarray) -> tuple[nn.Module, Tensor]:
    """Returns the head, and the kept features (V, N, D) of the encoder of stage one."""
    features = FrozenFeatures(job, run, world, load_encoder).part(job.part)
    head = job.recipe.stage_two.head.build(features.shape[2], len(run.manifest.class_names))
    _load(job, run, head)
    return head.to(world.device), features


def _on_images(job: Job, run: Run, world: World, rows: np.ndarray) -> tuple[nn.Module, Tensor]:
    """Returns the head, and the features (V, N, D) of the encoder that is kept with it."""
    encoder = Encoder.blank(job.recipe.model, job.recipe.image_size)
    classifier = Classifier(encoder, job.recipe.stage_two.head, len(run.manifest.class_names))
    _load(job, run, classifier)
    classifier.to(world.device)
    store = run.store(job.recipe.image_size)
    views = view_names(job.recipe.test_views)
    features = [encode(classifier.encoder, rows, turned_images(store, view), world) for view in views]
    return classifier.head, torch.stack(features)


def _load(job: Job, run: Run, module: nn.Module) -> None:
    path = run.classifier_file(job)
    load_weights(module, ClassifierCheckpoint.read(path, job.recipe.key, job.fold).tensors, path)
