import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from raysk.errors import ArtifactError
from raysk.parts.losses.base import ScheduledLoss
from raysk.records import StageRecord
from raysk.stage import Stage
from raysk.training.batches import FeatureBatches, Plan
from raysk.training.checkpoints import EncoderCheckpoint, ProgressCheckpoint, unpack
from raysk.training.features import encode
from raysk.training.health import measure
from raysk.training.images import plain_images
from raysk.training.job import run_job
from raysk.training.linear_start import linear_start
from raysk.training.loop import Trainer, hash_seed
from raysk.training.networks import StageOneLoss, StageOneNetwork
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
    assert report.calls == [("stage one", epoch) for epoch in range(3)]
    num_batches = len(run.folds.train_rows(0)) // 16
    assert facts.images == 2 * num_batches * 16 * 2
    assert len(facts.losses) == 2
    assert facts.seconds > 0
    encoder = load_encoder(job, run)
    assert not equal(weights(encoder), weights(fresh_encoder(job, alone)))
    names = EncoderCheckpoint.read(run.encoder_file(job), job.recipe.encoder_key, 0).tensors.keys()
    assert names == {f"encoder/{name}" for name in encoder.state_dict()}
    assert list(run.encoder_file(job).parent.iterdir()) == [run.encoder_file(job)]  # No progress file is left.


def test_the_loss_falls(run, make_job, alone, diary):
    job = make_job(
        {
            "stage_one.epochs": 12,
            "stage_one.optimizer": {"name": "adamw", "lr": 0.003},
            "stage_one.views": ["none", "light"],
        }
    )
    losses = train_stage_one(job, run, alone, diary()).losses
    assert sum(losses[-3:]) / 3 < losses[0] - 0.2


@pytest.mark.parametrize("loss", ["supcon", "simclr", "gravis"])
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
    assert report.calls == [("stage one", 1), ("stage one", 2)]
    assert facts.losses == whole.losses
    assert equal(weights(load_encoder(job, other)), weights(load_encoder(job, run)))


def test_a_recipe_with_the_same_stage_one_reuses_the_encoder(run, make_job, alone, diary):
    first = make_job({"stage_one.epochs": 1})
    facts = train_stage_one(first, run, alone, diary())
    status = run.encoder_file(first).stat()
    second, report = make_job({"stage_one.epochs": 1, "stage_two.loss": {"name": "focal"}}), diary()
    assert second.recipe.key != first.recipe.key
    assert train_stage_one(second, run, alone, report) == facts
    assert report.calls == []
    assert run.encoder_file(second) == run.encoder_file(first)
    now = run.encoder_file(second).stat()
    assert (now.st_ino, now.st_mtime_ns) == (status.st_ino, status.st_mtime_ns)


def test_a_recipe_with_another_stage_one_trains_its_own_encoder(run, make_job, alone, diary):
    train_stage_one(make_job({"stage_one.epochs": 1}), run, alone, diary())
    report = diary()
    train_stage_one(
        make_job({"stage_one.epochs": 1, "stage_one.loss.name": "supcon", "stage_one.loss.temperature": 0.2}),
        run,
        alone,
        report,
    )
    assert report.calls == [("stage one", 0), ("stage one", 1)]


def test_the_encoder_of_another_job_is_refused(run, make_job, alone, diary):
    job, other = make_job({"stage_one.epochs": 1}), make_job({"stage_one.epochs": 1, "seed": 1})
    train_stage_one(job, run, alone, diary())
    run.encoder_file(other).parent.mkdir()
    run.encoder_file(job).rename(run.encoder_file(other))
    with pytest.raises(ArtifactError, match=f"must hold the encoder {other.recipe.encoder_key} of fold 0"):
        load_encoder(other, run)
    with pytest.raises(ArtifactError, match="must be a whole safetensors file"):
        load_encoder(job, run)


# The losses of stage one.


@pytest.mark.parametrize("loss", ["bcl", "paco", "tsc"])
def test_losses_with_a_state_resume_bit_for_bit(loss, run, tmp_path, new_run, make_job, alone, diary):
    changes = {"stage_one.loss": {"name": loss}, "stage_one.classifier_loss": {"name": "balanced_softmax"}}
    job = make_job(changes | {"stage_one.epochs": 3, "stage_one.views": ["none", "light"]})
    whole = train_stage_one(job, run, alone, diary())
    other = new_run(tmp_path / "other")
    with pytest.raises(diary.Leave):
        train_stage_one(job, other, alone, diary(leave_after=("stage one", 2)))
    facts = train_stage_one(job, other, alone, diary())
    assert (facts.losses, facts.health) == (whole.losses, whole.health)
    expected, actual = (
        EncoderCheckpoint.read(source.encoder_file(job), job.recipe.encoder_key, 0).tensors for source in (run, other)
    )
    assert {"classifier/weight", "classifier/bias"} < expected.keys()
    assert all(torch.equal(actual[name], tensor) for name, tensor in expected.items())


def test_a_loss_in_stage_one_gets_the_head_that_it_requires(run, make_job, alone, diary):
    """LDAM-DRW learns the representation with a cosine classifier; LWS then starts from a logistic regression."""
    loss = {"name": "ldam", "scale": 12, "defer": 0.5}
    job = make_job({"stage_one.loss": None, "stage_one.classifier_loss": loss, "stage_two.head": {"name": "lws"}})
    run_job(job, run, alone, diary())
    encoder = EncoderCheckpoint.read(run.encoder_file(job), job.recipe.encoder_key, 0).tensors
    assert [name for name in encoder if name.startswith("classifier/")] == ["classifier/weight"]
    weight, bias = linear_start(job, run, alone)
    assert weight.shape == encoder["classifier/weight"].shape and bias.abs().max() > 0
    assert not torch.allclose(weight, encoder["classifier/weight"])


def test_the_parameters_of_a_loss_are_trained_and_not_kept(run, make_job, alone, diary):
    job = make_job({"stage_one.loss": {"name": "paco"}})
    with pytest.raises(diary.Leave):
        train_stage_one(job, run, alone, diary(leave_after=("stage one", 1)))
    progress = run.encoder_file(job).with_suffix(".progress")
    key = job.recipe.encoder_key
    before = unpack("loss", ProgressCheckpoint.read(progress, key, 0).tensors)
    with pytest.raises(diary.Leave):
        train_stage_one(job, run, alone, diary(leave_after=("stage one", 2)))
    after = unpack("loss", ProgressCheckpoint.read(progress, key, 0).tensors)
    assert before.keys() == after.keys() != set()
    assert any(not torch.equal(after[name], tensor) for name, tensor in before.items())
    train_stage_one(job, run, alone, diary())
    kept = EncoderCheckpoint.read(run.encoder_file(job), key, 0).tensors
    assert all(name.startswith("encoder/") for name in kept)


class Clock(ScheduledLoss):
    """Records the share of the epochs that is done."""

    def __init__(self) -> None:
        super().__init__()
        self.shares: list[float] = []

    def begin_epoch(self, done: float) -> None:
        self.shares.append(done)

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(logits, labels)


def test_a_scheduled_loss_receives_the_share_before_every_remaining_epoch(tmp_path, alone, diary):
    stage = Stage(epochs=4, batch_size=4)
    labels = np.array([0, 1, 2, 0, 1, 2, 0, 0])
    batches = FeatureBatches(torch.randn(1, 8, 6), Plan(labels, stage, 0, alone))

    def fit(report) -> list[float]:
        clock = Clock()
        model = nn.Sequential(nn.Linear(6, 3), nn.Unflatten(1, (1, 3)))  # (B, V, C)
        loss = StageOneLoss(None, 1.0, clock, 0)
        Trainer(model, loss, stage, 7, alone, ("key", 0), tmp_path / "progress").fit(batches, "stage one", report)
        return clock.shares

    with pytest.raises(diary.Leave):
        fit(diary(leave_after=("stage one", 2)))
    assert fit(diary()) == [0.5, 0.75]


def test_a_classifier_can_train_without_a_loss_on_embeddings(run, make_job, alone, diary):
    changes = {"stage_one.loss": None, "stage_one.classifier_loss": {"name": "cross_entropy"}, "stage_one.epochs": 8}
    changes |= {"stage_one.views": ["none"], "stage_one.optimizer": {"name": "adamw", "lr": 0.01}}
    job = make_job(changes)
    facts = train_stage_one(job, run, alone, diary())
    assert facts.losses[-1] < 0.9 * facts.losses[0]
    assert facts.images == 8 * (len(run.folds.train_rows(0)) // 16 * 16)
    tensors = EncoderCheckpoint.read(run.encoder_file(job), job.recipe.encoder_key, 0).tensors
    assert tensors["classifier/weight"].shape == (7, load_encoder(job, run).num_features)


# Health.


def test_health_is_measured_after_every_epoch_on_rows_of_both_parts(run, make_job, alone, diary):
    job = make_job()
    facts = train_stage_one(job, run, alone, diary())
    assert len(facts.health) == 2
    rows = [run.folds.train_rows(0), run.folds.held_out_rows(0)]
    images = plain_images(run.store(32))
    train, held_out = (encode(load_encoder(job, run), part, images, alone) for part in rows)
    labels = [run.manifest.labels[part] for part in rows]
    # No class has more than a hundred rows here: the probe uses all of them.
    expected = measure(train, labels[0], held_out, labels[1], run.manifest.class_names)
    actual = facts.health[-1]
    for name in ("probe", "linear_probe", "neighbour_probe", "alignment", "uniformity", "effective_rank"):
        assert getattr(actual, name) == pytest.approx(getattr(expected, name), abs=1e-4)
    kept = EncoderCheckpoint.read(run.encoder_file(job), job.recipe.encoder_key, 0).facts
    assert StageRecord.from_plain(kept, "the encoder").health == facts.health


def test_patience_ends_a_stage_that_stops_learning(run, make_job, alone, diary):
    changes = {"stage_one.epochs": 12, "stage_one.optimizer": {"lr": 1e-9, "weight_decay": 0.0}}
    job, report = make_job(changes | {"stage_one.patience": 2}), diary()
    facts = train_stage_one(job, run, alone, report)
    probes = [measured.probe for measured in facts.health]
    assert report.calls[-1] == ("stage one", len(probes))
    # The weights hardly move: the stage ends two epochs after the best, and not before.
    assert len(probes) < 12
    assert len(probes) - 1 - probes.index(max(probes)) == 2
    assert len(facts.losses) == len(probes)


def test_a_stage_that_patience_ended_does_not_continue(run, tmp_path, new_run, make_job, alone, diary):
    changes = {"stage_one.epochs": 12, "stage_one.optimizer": {"lr": 1e-9, "weight_decay": 0.0}}
    job = make_job(changes | {"stage_one.patience": 1})
    whole = train_stage_one(job, run, alone, diary())
    other, last = new_run(tmp_path / "other"), len(whole.losses)
    with pytest.raises(diary.Leave):
        train_stage_one(job, other, alone, diary(leave_after=("stage one", last)))
    report = diary()
    facts = train_stage_one(job, other, alone, report)
    assert report.calls == [("stage one", last)]
    assert (facts.losses, facts.health) == (whole.losses, whole.health)


def test_an_alarm_is_logged(run, make_job, alone, diary, caplog):
    job = make_job({"stage_one.optimizer": {"lr": 0.5, "momentum": 0.0, "weight_decay": 1.9}})  # Shrinks all weights.
    alarms = [measured.alarm for measured in train_stage_one(job, run, alone, diary()).health]
    assert alarms[-1]
    messages = [record.getMessage() for record in caplog.records if record.name == "raysk.training.stage_one"]
    assert messages == [f"epoch {epoch}: {alarm}" for epoch, alarm in enumerate(alarms, 1) if alarm]


MIXED = {
    "stage_one.loss": None,
    "stage_one.classifier_loss": {"name": "cross_entropy"},
    "stage_one.mixing": {"name": "mixup", "alpha": 1.0},
    "stage_one.epochs": 3,
}


def test_a_mixed_stage_one_learns_from_mixed_images_and_resumes_bit_for_bit(
    run, tmp_path, new_run, make_job, alone, diary
):
    job, plain = make_job(MIXED), make_job(MIXED | {"stage_one.mixing": {"name": "none"}})
    whole = train_stage_one(job, run, alone, diary())
    assert whole.losses[0] != train_stage_one(plain, run, alone, diary()).losses[0]
    other = new_run(tmp_path / "other")
    with pytest.raises(diary.Leave):
        train_stage_one(job, other, alone, diary(leave_after=("stage one", 2)))
    assert train_stage_one(job, other, alone, diary()).losses == whole.losses
    assert equal(weights(load_encoder(job, other)), weights(load_encoder(job, run)))


def test_the_first_mixed_loss_is_that_of_its_formula(run, make_job, alone, diary):
    """One batch of all rows: share CE(z, y) + (1 - share) CE(z, y') of share x + (1 - share) x', before any step."""
    num_rows = len(run.folds.train_rows(0))
    changes = MIXED | {"stage_one.views": ["none"], "stage_one.batch_size": 4096, "stage_one.epochs": 1}
    job = make_job(changes)
    (loss,) = train_stage_one(job, run, alone, diary()).losses
    stage = job.recipe.stage_one
    plan = Plan(run.manifest.labels[run.folds.train_rows(0)], stage, job.recipe.seed, alone)
    (draws,) = plan.shares(0)
    rows = run.folds.train_rows(0)[draws.rows]
    images = next(iter(plain_images(run.store(job.recipe.image_size))([rows]))).float()
    labels = torch.from_numpy(run.manifest.labels[rows])
    random = np.random.default_rng((hash_seed(job.recipe.seed, 4), 0, 0))
    partners = torch.from_numpy(random.permutation(num_rows))
    share = random.beta(1.0, 1.0)
    mixed = share * images + (1 - share) * images[partners]
    model = StageOneNetwork(fresh_encoder(job, alone), None, len(run.manifest.class_names)).train()
    logits = model(mixed[:, None]).squeeze(1)
    of_rows, of_partners = F.cross_entropy(logits, labels), F.cross_entropy(logits, labels[partners])
    assert loss == pytest.approx((share * of_rows + (1 - share) * of_partners).item(), rel=1e-4)
