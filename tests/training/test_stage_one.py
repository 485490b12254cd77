import pytest
import torch

from raysk.errors import ArtifactError
from raysk.training.checkpoints import EncoderCheckpoint
from raysk.training.stage_one import fresh_encoder, load_encoder, train_stage_one


def weights(module) -> list[torch.Tensor]:
    return list(module.state_dict().values())


def equal(first, second) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_the_first_weights_follow_from_seed_and_fold(make_job, alone):
    job = make_job()
    first = weights(fresh_encoder(job, alone))
    torch.rand(5)
    assert equal(first, weights(fresh_encoder(job, alone)))
    assert not equal(first, weights(fresh_encoder(make_job({"seed": 1}), alone)))
    assert not equal(first, weights(fresh_encoder(type(job)(job.recipe, 1), alone)))


def test_the_encoder_is_trained_and_kept_without_its_projection(run, make_job, alone, diary):
    job, report = make_job(), diary()
    facts = train_stage_one(job, run, alone, report)
    assert report.told == [("stage one", epoch) for epoch in range(3)]
    num_batches = len(run.folds.train_rows(0)) // 16
    assert facts["images"] == 2 * num_batches * 16 * 2
    assert len(facts["losses"]) == 2
    assert facts["seconds"] > 0
    encoder = load_encoder(job, run)
    assert not equal(weights(encoder), weights(fresh_encoder(job, alone)))
    names = EncoderCheckpoint.read(run.encoder_file(job), job.recipe.encoder_key, 0).tensors.keys()
    assert names == encoder.state_dict().keys()
    assert list(run.encoder_file(job).parent.iterdir()) == [run.encoder_file(job)]  # No progress file is left.


def test_the_loss_falls(run, make_job, alone, diary):
    job = make_job({"stage_one.epochs": 12, "stage_one.optimizer.lr": 0.2, "stage_one.views": ["none", "light"]})
    losses = train_stage_one(job, run, alone, diary())["losses"]
    assert sum(losses[-3:]) / 3 < losses[0] - 0.2


@pytest.mark.parametrize("loss", ["supcon", "simclr"])
def test_interrupted_training_ends_bit_for_bit_the_same(loss, run, tmp_path, new_run, make_job, alone, diary):
    job = make_job(
        {
            "model.backbone": "test_resnet",
            "stage_one.loss": {"name": loss},
            "stage_one.ema": 0.5,
            "stage_one.optimizer": {"name": "adamw", "lr": 0.01},
        }
    )
    whole = train_stage_one(job, run, alone, diary())
    other = new_run(tmp_path / "other")
    with pytest.raises(diary.Leave):
        train_stage_one(job, other, alone, diary(leave_after=("stage one", 1)))
    assert not other.encoder_file(job).exists()
    report = diary()
    facts = train_stage_one(job, other, alone, report)
    assert report.told == [("stage one", 1), ("stage one", 2)]
    assert facts["losses"] == whole["losses"]
    assert equal(weights(load_encoder(job, other)), weights(load_encoder(job, run)))


def test_a_recipe_with_the_same_stage_one_takes_its_encoder(run, make_job, alone, diary):
    first = make_job({"stage_one.epochs": 1})
    facts = train_stage_one(first, run, alone, diary())
    status = run.encoder_file(first).stat()
    second, report = make_job({"stage_one.epochs": 1, "stage_two.loss": {"name": "focal"}}), diary()
    assert second.recipe.key != first.recipe.key
    assert train_stage_one(second, run, alone, report) == facts
    assert report.told == []
    assert run.encoder_file(second) == run.encoder_file(first)
    now = run.encoder_file(second).stat()
    assert (now.st_ino, now.st_mtime_ns) == (status.st_ino, status.st_mtime_ns)


def test_a_recipe_with_another_stage_one_trains_its_own(run, make_job, alone, diary):
    train_stage_one(make_job({"stage_one.epochs": 1}), run, alone, diary())
    report = diary()
    train_stage_one(
        make_job({"stage_one.epochs": 1, "stage_one.loss.name": "supcon", "stage_one.loss.temperature": 0.2}),
        run,
        alone,
        report,
    )
    assert report.told == [("stage one", 0), ("stage one", 1)]


def test_the_encoder_of_another_job_is_refused(run, make_job, alone, diary):
    job, other = make_job({"stage_one.epochs": 1}), make_job({"stage_one.epochs": 1, "seed": 1})
    train_stage_one(job, run, alone, diary())
    run.encoder_file(other).parent.mkdir()
    run.encoder_file(job).rename(run.encoder_file(other))
    with pytest.raises(ArtifactError, match=f"must hold the encoder {other.recipe.encoder_key} of fold 0"):
        load_encoder(other, run)
    with pytest.raises(ArtifactError, match="must be a whole safetensors file"):
        load_encoder(job, run)
