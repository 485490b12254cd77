"""Predicted probabilities of held-out and test rows."""

import numpy as np

from raysk.evaluation.predictions import Predictions
from raysk.recipe import Job
from raysk.run import Run
from raysk.training.learners import learner_of
from raysk.training.world import World


def predict(job: Job, run: Run, world: World) -> None:
    """Predicts one part of a job's fold with what it trained, in every test-time view, and writes the probabilities.

    Raises:
        ArtifactError: The trained file is missing, broken or from another job.
    """
    rows = run.folds.scored_rows(job.fold, job.part)
    by_view = learner_of(job.recipe).predict(job, run, world, rows)
    if world.is_main_rank:
        Predictions.of_fold(
            run.manifest,
            run.folds,
            class_names=run.class_names,
            fold=job.fold,
            part=job.part,
            recipe_key=job.recipe.key,
            views=list(by_view),
            probabilities=np.stack(list(by_view.values())),
        ).write(run.predictions_file(job.recipe.key, job.fold, job.part))
    world.barrier()
