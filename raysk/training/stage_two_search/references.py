"""Scores of the reference heads, which are fitted at once on features that the job has already computed."""

from dataclasses import replace
from time import perf_counter

import numpy as np

from raysk.recipe import Job
from raysk.records import ReferenceRecord
from raysk.run import Run
from raysk.spaces.reference_heads import reference_heads
from raysk.training.stage_two_search.head_scores import head_scores
from raysk.training.world import World


def score_references(job: Job, run: Run, world: World) -> None:
    """Fits the reference heads on the features of a finished job, and writes their scores on its held-out rows."""
    if world.is_main_rank:
        began = perf_counter()
        heads = reference_heads(job.recipe.stage_two)
        recipes = [replace(job.recipe, stage_two=stage) for stage in heads.values()]
        worst = np.array([metric.worst for metric in run.goal.metrics])
        scores = head_scores(recipes, job.fold, run, world)
        scores = np.where(np.isnan(scores), worst, scores)
        ReferenceRecord(
            recipe=job.recipe.key,
            fold=job.fold,
            seconds=perf_counter() - began,
            heads=tuple(heads),
            scores=tuple(map(tuple, scores.tolist())),
            merits=tuple(run.goal.merits(scores).tolist()),
        ).write(run.references_file(job))
    world.barrier()
