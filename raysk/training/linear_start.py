"""The linear classifier that LWS and tau-normalisation start from."""

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from raysk.recipe import Job
from raysk.run import Run
from raysk.training.checkpoints import EncoderCheckpoint, FeatureCheckpoint, unpack
from raysk.training.features import FrozenFeatures
from raysk.training.stage_one import load_encoder
from raysk.training.world import World


def linear_start(job: Job, run: Run, world: World) -> tuple[Tensor, Tensor]:
    """Returns weight (C, D) and bias (C,) of stage one's classifier, or of a classifier fitted to its features.

    Kang et al. 2020 rescale the classifier of stage one. If stage one learnt no linear one, or the encoder came ready,
    our choice is a logistic regression on the plain training rows, kept in the run.
    """
    key = str(job.recipe.encoder_key)
    learnt = {} if job.recipe.is_probe else _classifier_of_stage_one(job, run)
    if "bias" in learnt:  # a cosine classifier has none
        return learnt["weight"], learnt["bias"]
    name = f"linear-start-{job.recipe.label_share}"
    path = run.features_file(job, name)
    if not world.agree(path.exists()):
        features = FrozenFeatures(job, run, world, load_encoder).training("none", 1)[0]
        if world.is_main_rank:
            labels = run.manifest.labels[run.train_rows(job)]
            weight, bias = _logistic_regression(features.cpu(), labels)
            FeatureCheckpoint(key, job.fold, {"name": name}, {"weight": weight, "bias": bias}).write(path)
        world.barrier()
    tensors = FeatureCheckpoint.read(path, key, job.fold).tensors
    return tensors["weight"], tensors["bias"]


def _classifier_of_stage_one(job: Job, run: Run) -> dict[str, Tensor]:
    saved = EncoderCheckpoint.read(run.encoder_file(job), str(job.recipe.encoder_key), job.fold)
    return unpack("classifier", saved.tensors)


def _logistic_regression(features: Tensor, labels: np.ndarray) -> tuple[Tensor, Tensor]:
    """Fits features scaled to unit variance, as the penalty requires, and returns weights for the unscaled features."""
    # The bias is not penalised: centring changes only the number of iterations.
    centre, scale = features.mean(dim=0), features.std(dim=0).clamp_min(1e-6)
    fitted = LogisticRegression(max_iter=200).fit(((features - centre) / scale).numpy(), labels)
    weight, bias = torch.from_numpy(fitted.coef_).float(), torch.from_numpy(fitted.intercept_).float()
    if len(weight) == 1:  # For two classes scikit-learn returns the difference only.
        weight, bias = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
    weight = weight / scale
    return weight, bias - weight @ centre
