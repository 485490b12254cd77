"""Stage one: learns the representation, and keeps the encoder without its projection head."""

import torch

from raysk.recipe import Job
from raysk.run import Run
from raysk.training.batches import ImageBatches, Plan
from raysk.training.checkpoints import EncoderCheckpoint, load_weights
from raysk.training.loop import Report, Trainer, hash_seed
from raysk.training.networks import Encoder, ProjectedEncoder
from raysk.training.world import World


def fresh_encoder(job: Job, world: World) -> Encoder:
    """Returns the encoder that every training of this job starts from: equal on all ranks, given by the seed."""
    if not world.is_chief:
        world.barrier()  # The chief fetches published weights; the others find them in its cache.
    torch.manual_seed(hash_seed(job.recipe.seed, job.fold))
    encoder = Encoder(job.recipe.model, job.recipe.image_size)
    if world.is_chief:
        world.barrier()
    return encoder


def load_encoder(job: Job, run: Run) -> Encoder:
    """Returns the encoder that stage one of this job left.

    Raises:
        ArtifactError: Its file is missing, broken or another's.
    """
    path = run.encoder_file(job)
    encoder = Encoder.blank(job.recipe.model, job.recipe.image_size)
    load_weights(encoder, EncoderCheckpoint.read(path, str(job.recipe.encoder_key), job.fold).tensors, path)
    return encoder


def train_stage_one(job: Job, run: Run, world: World, report: Report) -> dict[str, object]:
    """Trains the encoder of a job, unless a recipe with the same stage one has done so on this fold.

    Returns:
        Cost and loss curve, of whoever trained it.

    Raises:
        TrainingError: The loss is not a number.
    """
    path = run.encoder_file(job)
    key = str(job.recipe.encoder_key)
    if world.agree(path.exists()):
        return EncoderCheckpoint.read(path, key, job.fold).facts
    stage = job.recipe.stage_one
    if stage is None:
        raise ValueError("a one-stage recipe has no encoder to train")
    rows = run.folds.train_rows(job.fold)
    labels = run.manifest.labels[rows]
    counts = torch.from_numpy(labels).bincount(minlength=len(run.manifest.class_names))
    model = ProjectedEncoder(fresh_encoder(job, world), stage.projection)
    plan = Plan(labels, stage, job.recipe.seed, world)
    batches = ImageBatches(run.store(job.recipe.image_size), rows, stage.views, plan)
    progress_file = path.with_suffix(".progress")
    seed = hash_seed(job.recipe.seed, 1)
    trainer = Trainer(model, stage.loss.build(counts, stage.projection), stage, seed, world, (key, job.fold), progress_file)
    progress = trainer.fit(batches, "stage one", report)
    if world.is_chief:
        facts = {"seconds": progress.seconds, "images": progress.images, "losses": progress.losses}
        EncoderCheckpoint(key, job.fold, facts, model.encoder.state_dict()).write(path)
        progress_file.unlink(missing_ok=True)
    world.barrier()
    return EncoderCheckpoint.read(path, key, job.fold).facts
