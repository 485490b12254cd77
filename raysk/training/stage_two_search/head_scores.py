"""Scores of stage-two settings on the held-out rows of a fold, with all heads fitted at once."""

from collections.abc import Sequence

import numpy as np
import torch

from raysk.parts.heads import FrozenHead
from raysk.recipe import Job, Recipe
from raysk.run import Run
from raysk.training.classifying import log_shares
from raysk.training.features import FrozenFeatures
from raysk.training.linear_start import linear_start
from raysk.training.stage_one import load_encoder
from raysk.training.stage_two_search.many_heads import fit_heads, many_logits
from raysk.training.world import World

# Number of heads whose logits are held at once: (heads, views, rows, classes) in double precision.
_BLOCK = 16


def head_scores(recipes: Sequence[Recipe], fold: int, run: Run, world: World) -> np.ndarray:
    """Returns the scores of each setting on the held-out rows of one fold, (M, S); NaN for a head that diverged.

    The first score is by the study's metric, the others by the metrics of its requirements.

    Args:
        recipes: (M,) with the same stage one, already encoded.
        fold: Fold of the run.
        run: Holds the features.
        world: Its device computes.
    """
    alone = World(0, 1, world.device)
    job = Job(recipes[0], fold)
    frozen = FrozenFeatures(job, run, alone, load_encoder)
    labels = run.manifest.labels[run.train_rows(job)]
    held_out_labels = run.manifest.labels[run.folds.held_out_rows(fold)]
    num_classes = len(run.manifest.class_names)
    needs_start = any(isinstance(recipe.stage_two.head, FrozenHead) for recipe in recipes)
    start = linear_start(job, run, alone) if needs_start else None
    held_out = frozen.part("held_out")
    shares = log_shares(run.class_counts(job)).to(held_out.device)
    stages = [recipe.stage_two for recipe in recipes]
    passes: dict[str, int] = {}
    for stage in stages:
        passes[stage.view] = max(passes.get(stage.view, 1), stage.passes)
    features = {view: frozen.training(view, number) for view, number in passes.items()}
    heads = fit_heads(stages, features, labels, num_classes, job.recipe.seed, fold, start)
    shifts = torch.tensor([stage.adjustment for stage in stages], device=shares.device)[:, None] * shares
    scores = np.empty((len(recipes), len(run.goal.metrics)))
    for begin in range(0, len(heads), _BLOCK):
        block = slice(begin, begin + _BLOCK)
        logits = many_logits(heads[block], held_out).double() - shifts[block, None, None]
        probabilities = logits.softmax(dim=3).mean(dim=1)  # (M, N, C), averaging views as the leaderboard does
        values = probabilities.cpu().numpy()
        scores[block] = run.goal.scores(values, held_out_labels)
        scores[block][~np.isfinite(values).all(axis=(1, 2))] = np.nan
    return scores
