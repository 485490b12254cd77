"""One job, from images to predictions; lanes run it, and a debugger can step through it without Ray."""

from time import perf_counter

import torch

from raysk.parts.precision import sum_in_one_order
from raysk.recipe import Job
from raysk.records import JobRecord
from raysk.run import Run
from raysk.training.loop import Report
from raysk.training.predict import predict
from raysk.training.stage_one import train_stage_one
from raysk.training.stage_two import train_stage_two
from raysk.training.stage_two_search.references import score_references
from raysk.training.world import World


def run_job(job: Job, run: Run, world: World, report: Report) -> None:
    """Runs a job, or the rest of it: results of an earlier attempt are kept.

    Args:
        job: The job to run.
        run: Holds its files.
        world: The workers that run it together; each of them calls this function.
        report: Called after every epoch on every rank; it may raise to stop the job.

    Raises:
        TrainingError: The training cannot continue.
    """
    sum_in_one_order()
    if not world.agree(run.record_file(job).exists()):
        _train_and_predict(job, run, world, report)
    if job.has_references and not world.agree(run.references_file(job).exists()):
        score_references(job, run, world)


def _train_and_predict(job: Job, run: Run, world: World, report: Report) -> None:
    began = perf_counter()
    stage_one = stage_two = score = None
    required: list[float] = []
    if job.part == "held_out":
        if job.recipe.stage_one is not None:
            stage_one = train_stage_one(job, run, world, report)
        stage_two = train_stage_two(job, run, world, report)
    predict(job, run, world)
    if world.is_main_rank:
        if job.part == "held_out":
            predictions = run.predictions(job.recipe.key, job.fold)
            score, *required = run.goal.scores(predictions.mean(), run.truth[predictions.rows]).tolist()
        JobRecord(
            recipe=job.recipe.key,
            fold=job.fold,
            part=job.part,
            seconds=perf_counter() - began,
            workers=world.size,
            threads=torch.get_num_threads(),
            metric=run.goal.metric.name,
            score=score,
            required=tuple(required),
            stage_one=stage_one,
            stage_two=stage_two,
        ).write(run.record_file(job))
    world.barrier()
