"""The reference heads: ten fixed settings of stage two, by which a race judges an encoder.

The score of an encoder after its stage two was searched follows its score with one setting badly: a setting that suits
one encoder does not suit the next. Ten settings, plain and balanced, with two learning rates, are the same for all
recipes, and are fitted at once on features that the job has already computed.
"""

from dataclasses import replace
from time import perf_counter
from typing import Any

import numpy as np

from raysk.parts.heads import LinearHead
from raysk.parts.losses.classification import BalancedSoftmax, CrossEntropy
from raysk.recipe import Job, StageTwo
from raysk.records import ReferenceRecord
from raysk.run import Run
from raysk.stage import Optimizer
from raysk.training.stage_two_search.head_scores import head_scores
from raysk.training.world import World

# The first one judges an encoder that has one fold.
_REBALANCING: dict[str, dict[str, Any]] = {
    "balanced softmax": {"loss": BalancedSoftmax()},
    "cross entropy": {"loss": CrossEntropy()},
    "balanced weights": {"loss": CrossEntropy(weights="balanced")},
    "half adjusted": {"loss": CrossEntropy(), "adjustment": 0.5},
    "adjusted": {"loss": CrossEntropy(), "adjustment": 1.0},
}
_RATES = (0.01, 0.001)


def reference_heads(stage: StageTwo) -> dict[str, StageTwo]:
    """Returns the reference heads by name.

    Args:
        stage: The stage two of a recipe; gives the training view, the batch size and the epochs.
    """
    plain = StageTwo(view=stage.view, passes=stage.passes, epochs=stage.epochs, batch_size=stage.batch_size)
    return {
        f"{name}, lr {rate:g}": replace(
            plain, head=LinearHead(), optimizer=Optimizer(name="adamw", lr=rate, weight_decay=1e-4), **changes
        )
        for rate in _RATES
        for name, changes in _REBALANCING.items()
    }


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
