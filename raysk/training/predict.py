"""Features and probabilities of rows that are not trained on."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from raysk.data.views import BatchView, test_time_views, view_names
from raysk.evaluation.predictions import Predictions
from raysk.recipe import Job
from raysk.run import Run
from raysk.training.checkpoints import ClassifierCheckpoint, load_weights
from raysk.training.networks import Classifier, Encoder
from raysk.training.precision import autocast
from raysk.training.world import World

# Large enough to fill a GPU, small enough for the memory of a laptop.
_BATCH = 256

# Rows (B,) to their images (B, H, W, 3), uint8.
Images = Callable[[np.ndarray], np.ndarray]


def predict(job: Job, run: Run, world: World) -> None:
    """Predicts one part of a job's fold with its classifier, in every test-time view, and writes the probabilities.

    Raises:
        ArtifactError: The classifier is missing, broken or another's.
    """
    path = run.classifier_file(job)
    encoder = Encoder.blank(job.recipe.model, job.recipe.image_size)
    classifier = Classifier(encoder, job.recipe.stage_two.head, len(run.manifest.class_names))
    load_weights(classifier, ClassifierCheckpoint.read(path, job.recipe.key, job.fold).tensors, path)
    classifier.to(world.device)
    rows = run.folds.test_rows if job.part == "test" else run.folds.held_out_rows(job.fold)
    store = run.store(job.recipe.image_size)
    views = view_names(job.recipe.test_views)
    probabilities = []
    for name in views:

        def images(batch: np.ndarray, turn: BatchView = test_time_views[name]) -> np.ndarray:
            return turn(store.pixels[batch])

        features = encode(classifier.encoder, rows, images, world)
        probabilities.append(probabilities_of(classifier.head, features))
    if world.is_chief:
        Predictions(
            rows=rows,
            views=views,
            probabilities=np.stack(probabilities),
            recipe_key=job.recipe.key,
            fold=job.fold,
            folds_digest=run.folds.digest,
            part=job.part,
        ).write(run.predictions_file(job.recipe.key, job.fold, job.part))
    world.barrier()


def encode(encoder: Encoder, rows: np.ndarray, images: Images, world: World) -> Tensor:
    """Encodes rows with a frozen encoder: evaluation mode, no gradient, nothing of it changes.

    Args:
        encoder: Images to features.
        rows: (N,).
        images: Draws the images of some of the rows.
        world: Each rank encodes its share.

    Returns:
        Features (N, D), float32, the same on every rank.
    """
    encoder.eval()
    # Shares of equal size, so that they can be gathered: the last rows are encoded twice where N does not divide.
    padded = np.resize(rows, -(-len(rows) // world.size) * world.size)
    share = np.split(padded, world.size)[world.rank]
    features = []
    with torch.inference_mode():
        for start in range(0, len(share), _BATCH):
            batch = torch.from_numpy(np.ascontiguousarray(images(share[start : start + _BATCH])))
            with autocast(world.device):
                features.append(encoder(batch.to(world.device)).float())
        gathered = world.gather(torch.cat(features))[: len(rows)]
    # A plain tensor again: heads are trained on it.
    return gathered.clone()


def probabilities_of(head: nn.Module, features: Tensor) -> np.ndarray:
    """Returns class probabilities (N, C), float32, of features (N, D)."""
    head.eval()
    with torch.inference_mode():
        probabilities: np.ndarray = head(features).double().softmax(dim=1).float().cpu().numpy()
    return probabilities
