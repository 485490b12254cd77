"""Stage two: fits what predicts, by the task of the recipe."""

from pathlib import Path

from raysk.recipe import Job
from raysk.records import StageRecord
from raysk.run import Run
from raysk.training.checkpoints import ClassifierCheckpoint
from raysk.training.learners import learner_of
from raysk.training.loop import Report
from raysk.training.world import World


def train_stage_two(job: Job, run: Run, world: World, report: Report) -> StageRecord:
    """Fits the classifier of a job, or what its task has instead, and writes it.

    Returns:
        Cost and loss curve.

    Raises:
        TrainingError: The loss is not a number.
    """
    path = run.classifier_file(job)
    if world.agree(path.exists()):
        return _record(path, job)
    progress, model = learner_of(job.recipe).fit(job, run, world, report)
    if world.is_main_rank:
        facts = progress.record().to_plain()
        ClassifierCheckpoint(job.recipe.key, job.fold, facts, model.state_dict()).write(path)
        run.progress_file(job).unlink(missing_ok=True)
    world.barrier()
    return _record(path, job)


def _record(path: Path, job: Job) -> StageRecord:
    """Reads the record of the classifier's training; reads the whole file, so that a broken file fails here."""
    return StageRecord.from_plain(ClassifierCheckpoint.read(path, job.recipe.key, job.fold).facts, path)
