import pytest
import torch

from raysk.errors import TrainingError
from raysk.parts.losses import LogitLoss, losses
from raysk.training.batches import Plan
from raysk.training.checkpoints import ClassifierCheckpoint, EncoderCheckpoint, ProgressCheckpoint, unpack
from raysk.training.images import plain_images
from raysk.training.job import run_job
from raysk.training.linear_start import linear_start
from raysk.training.predict import predict
from raysk.training.stage_one import fresh_encoder, load_encoder, train_stage_one
from raysk.training.stage_two import train_stage_two


def classifier_of(job, run) -> dict[str, torch.Tensor]:
    return ClassifierCheckpoint.read(run.classifier_file(job), job.recipe.key, job.fold).tensors


def encoder_of(job, run) -> dict[str, torch.Tensor]:
    tensors = EncoderCheckpoint.read(run.encoder_file(job), job.recipe.encoder_key, job.fold).tensors
    return unpack("encoder", tensors)


def other_job(job, make_job, changes):
    """Returns a job with the stage one of `frozen_job`, which is already trained."""
    other = make_job({"model.backbone": "test_resnet", **changes})
    assert other.recipe.encoder_key == job.recipe.encoder_key
    return other


def test_the_classifier_file_does_not_hold_a_frozen_encoder(finished, frozen_job):
    assert classifier_of(frozen_job, finished).keys() == {"weight", "bias"}


def test_a_frozen_encoder_stays_bit_for_bit(run, frozen_job, alone, diary):
    train_stage_one(frozen_job, run, alone, diary())
    before = run.encoder_file(frozen_job).read_bytes()
    train_stage_two(frozen_job, run, alone, diary())
    predict(frozen_job, run, alone)
    assert run.encoder_file(frozen_job).read_bytes() == before


def test_an_encoder_that_is_not_frozen_is_trained(finished, frozen_job, make_job, alone, diary):
    job = other_job(frozen_job, make_job, {"stage_two.frozen": False, "stage_two.epochs": 1})
    train_stage_two(job, finished, alone, diary())
    classifier = classifier_of(job, finished)
    for name, tensor in encoder_of(job, finished).items():
        assert not torch.equal(classifier[f"encoder.{name}"], tensor), name


def test_passes_take_turns(finished, frozen_job, make_job, alone, diary):
    def run_with(passes: int, view: str):
        changes = {"stage_two.passes": passes, "stage_two.view": view, "stage_two.epochs": 3}
        job = other_job(frozen_job, make_job, changes)
        facts = train_stage_two(job, finished, alone, diary())
        return facts.losses, classifier_of(job, finished)["weight"]

    once, twice = run_with(1, "light"), run_with(2, "light")
    assert twice[0][0] == once[0][0]  # The first pass is the same,
    assert twice[0][1] != once[0][1]  # the second epoch has other views.
    plain, copies = run_with(1, "none"), run_with(2, "none")
    assert copies[0] == plain[0]
    assert torch.equal(copies[1], plain[1])


@pytest.mark.parametrize(
    ("changes", "goes_on_after"),
    [({}, 0), ({"stage_one": None, "stage_two.frozen": False, "stage_two.epochs": 2}, 1)],
    ids=["on features, from the start", "end to end, after the epoch"],
)
def test_interrupted_training_ends_bit_for_bit_the_same(
    changes, goes_on_after, finished, frozen_job, tmp_path, new_run, make_job, alone, diary
):
    changes = {"stage_two.head": {"name": "mlp", "hidden": 16}, "stage_two.view": "light", **changes}
    job = make_job({"model.backbone": "test_resnet", **changes})
    whole = train_stage_two(job, finished, alone, diary())
    other = new_run(tmp_path / "other")
    if job.recipe.stage_one is not None:
        other.encoder_file(job).parent.mkdir(parents=True)
        other.encoder_file(job).hardlink_to(finished.encoder_file(job))
    with pytest.raises(diary.Leave):
        train_stage_two(job, other, alone, diary(leave_after=("stage two", 1)))
    report = diary()
    assert train_stage_two(job, other, alone, report).losses == whole.losses
    assert report.calls == [("stage two", epoch) for epoch in range(goes_on_after, 3)]
    expected, actual = classifier_of(job, finished), classifier_of(job, other)
    assert all(torch.equal(actual[name], tensor) for name, tensor in expected.items())
    assert list(other.classifier_file(job).parent.iterdir()) == [other.classifier_file(job)]


@pytest.mark.parametrize("loss", [name for name in losses if issubclass(losses[name], LogitLoss)])
def test_every_loss_on_logits_learns_the_training_rows(loss, finished, frozen_job, make_job, alone, diary):
    changes = {"stage_two.loss": {"name": loss}, "stage_two.epochs": 12, "stage_two.optimizer": {"lr": 0.5}}
    if loss == "ldam":
        # Without the late weights, which change the loss, and with margins that these features can keep.
        changes["stage_two.loss"] = {"name": loss, "defer": 1.0, "max_margin": 0.1}
    if loss == "gcl":
        changes["stage_two.loss"] = {"name": loss, "noise": 0.1, "margin": 0.1}
    if losses[loss]().head is not None:
        changes |= {"stage_two.head": {"name": "cosine"}, "stage_two.optimizer": {"name": "adamw", "lr": 0.3}}
    facts = train_stage_two(other_job(frozen_job, make_job, changes), finished, alone, diary())
    assert facts.losses[-1] < 0.9 * facts.losses[0]


def test_a_control_starts_from_fresh_weights_and_learns(run, make_job, alone, diary):
    job = make_job(
        {
            "stage_one": None,
            "stage_two.frozen": False,
            "stage_two.epochs": 40,
            "stage_two.optimizer": {"name": "adamw", "lr": 0.01},
        }
    )
    facts = train_stage_two(job, run, alone, diary())
    assert facts.losses[-1] < 0.7 * facts.losses[0]
    assert facts.images == 40 * (len(run.folds.train_rows(0)) // 16 * 16)
    start = fresh_encoder(job, alone).state_dict()
    trained = classifier_of(job, run)
    assert any(not torch.equal(trained[f"encoder.{name}"], tensor) for name, tensor in start.items())
    assert not run.encoder_file(job).exists()


def test_class_weights_come_from_the_training_rows_only(finished, frozen_job, make_job, alone, diary):
    """The first loss of an untrained cosine head, whose weighted mean is computed here from the training counts."""
    changes = {
        "stage_two.loss": {"name": "balanced_softmax"},
        "stage_two.epochs": 1,
        "stage_two.batch_size": 4096,
        "stage_two.head": {"name": "cosine", "scale": 1e-6},
    }
    job = other_job(frozen_job, make_job, changes)
    (loss,) = train_stage_two(job, finished, alone, diary()).losses
    labels = finished.manifest.labels[finished.folds.train_rows(0)]
    shares = torch.from_numpy(labels).bincount().double() / len(labels)
    # Logits of nearly zero leave the prior alone, so the loss is the entropy of the training rows' class shares.
    assert loss == pytest.approx(-(shares * shares.log()).sum().item(), abs=1e-5)


def test_a_learning_rate_that_is_too_large_is_reported_in_one_line(run, make_job, alone, diary):
    job = make_job(
        {
            "stage_one": None,
            "stage_two.frozen": False,
            "stage_two.epochs": 30,
            "model.backbone": "test_resnet",
            "stage_two.optimizer": {"lr": 100.0, "weight_decay": 10.0},
        }
    )
    with pytest.raises(TrainingError, match=r"smaller stage_two\.optimizer\.lr than 100") as caught:
        train_stage_two(job, run, alone, diary())
    assert "\n" not in str(caught.value)
    assert not run.classifier_file(job).exists()


SHIFTED = {
    "stage_two.shift_batch_norm": True,
    "stage_two.head": {"name": "lws"},
    "stage_two.loss": {"name": "label_aware_smoothing"},
    "stage_two.sampler": {"name": "class_balanced"},
    "stage_two.epochs": 2,
}


def test_shifted_batch_norm_moves_the_statistics_and_keeps_the_weights(finished, frozen_job, make_job, alone, diary):
    job = other_job(frozen_job, make_job, SHIFTED)
    before = finished.encoder_file(job).read_bytes()
    facts = train_stage_two(job, finished, alone, diary())
    assert facts.images == 2 * (len(finished.folds.train_rows(0)) // 16 * 16), "it sees the images of each epoch"
    assert finished.encoder_file(job).read_bytes() == before
    classifier = classifier_of(job, finished)
    for name, tensor in encoder_of(job, finished).items():
        is_statistic = name.endswith(("running_mean", "running_var", "num_batches_tracked"))
        assert torch.equal(classifier[f"encoder.{name}"], tensor) is not is_statistic, name
    weight, bias = linear_start(job, finished, alone)
    assert torch.equal(classifier["head.weight"], weight)
    assert torch.equal(classifier["head.bias"], bias)
    assert (classifier["head.scale"] != 1).all()


def test_shifted_statistics_are_the_moving_means_of_the_batches(finished, frozen_job, make_job, alone, diary):
    """After one epoch, of the first batch norm: torch's update with momentum 0.1, in plain steps."""
    changes = SHIFTED | {"stage_two.epochs": 1, "stage_two.sampler": {"name": "instance"}, "stage_two.view": "none"}
    job = other_job(frozen_job, make_job, changes)
    train_stage_two(job, finished, alone, diary())
    encoder = load_encoder(job, finished)
    first = next(module for module in encoder.modules() if isinstance(module, torch.nn.BatchNorm2d))
    inputs = []
    first.register_forward_pre_hook(lambda module, arguments: inputs.append(arguments[0].detach()))
    mean = first.running_mean.clone()
    labels = finished.manifest.labels[finished.folds.train_rows(0)]
    plan = Plan(labels, job.recipe.stage_two, job.recipe.seed, alone)
    rows = finished.folds.train_rows(0)
    images = plain_images(finished.store(job.recipe.image_size))
    for batch in images([rows[share.rows] for share in plan.shares(0)]):
        encoder.train()(batch)
        mean = 0.9 * mean + 0.1 * inputs[-1].mean(dim=(0, 2, 3))
    name = next(name for name, module in encoder.named_modules() if module is first)
    torch.testing.assert_close(classifier_of(job, finished)[f"encoder.{name}.running_mean"], mean)


def test_predictions_use_the_shifted_statistics_and_training_resumes_bit_for_bit(
    finished, frozen_job, make_job, alone, diary
):
    job = other_job(frozen_job, make_job, SHIFTED | {"stage_two.epochs": 3})
    with pytest.raises(diary.Leave):
        train_stage_two(job, finished, alone, diary(leave_after=("stage two", 1)))
    report = diary()
    run_job(job, finished, alone, report)
    assert ("stage two", 1) in report.calls
    assert ("stage two", 0) not in report.calls
    whole = other_job(frozen_job, make_job, SHIFTED | {"stage_two.epochs": 3, "stage_two.passes": 2})
    run_job(whole, finished, alone, diary())  # passes are for kept features: the same training under another name
    first, second = (finished.predictions(each.recipe.key, 0).probabilities for each in (job, whole))
    assert (first == second).all()
    kept = other_job(frozen_job, make_job, SHIFTED | {"stage_two.epochs": 3, "stage_two.shift_batch_norm": False})
    run_job(kept, finished, alone, diary())
    assert (finished.predictions(kept.recipe.key, 0).probabilities != first).any()


# End to end after a stage one.

FINE_TUNED = {
    "stage_two.frozen": False,
    "stage_two.epochs": 3,
    "stage_two.optimizer": {"name": "adamw", "lr": 0.01, "weight_decay": 0.1},
    "stage_two.ema": 0.5,
}


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_first_epochs_train_the_head_alone(accumulate, run, frozen_job, finished, make_job, alone, diary):
    """Of the encoder, neither a weight nor a statistic of batch norm changes; afterwards both do."""
    changes = FINE_TUNED | {"stage_two.head_epochs": 2, "stage_two.accumulate": accumulate, "stage_two.ema": 0.0}
    job = other_job(frozen_job, make_job, changes)
    run.encoder_file(job).parent.mkdir(parents=True)
    run.encoder_file(job).hardlink_to(finished.encoder_file(job))
    progress = run.classifier_file(job).with_suffix(".progress")
    heads, encoder = [], encoder_of(job, run)
    for epoch in (1, 2):
        with pytest.raises(diary.Leave):
            train_stage_two(job, run, alone, diary(leave_after=("stage two", epoch)))
        weights = unpack("model", ProgressCheckpoint.read(progress, job.recipe.key, 0).tensors)
        assert all(torch.equal(weights[f"encoder.{name}"], tensor) for name, tensor in encoder.items())
        heads.append(weights["head.weight"])
    assert not torch.equal(*heads)
    train_stage_two(job, run, alone, diary())
    trained = classifier_of(job, run)
    assert not any(torch.equal(trained[f"encoder.{name}"], tensor) for name, tensor in encoder.items())


def test_the_first_epochs_are_those_of_a_head_on_the_features_in_evaluation_mode(
    finished, frozen_job, make_job, alone, diary
):
    """The same steps as on a frozen encoder's features, as long as the learning rate is that of the whole stage."""
    optimizer = {"name": "sgd", "lr": 0.1, "schedule": "constant"}
    changes = FINE_TUNED | {"stage_two.ema": 0.0, "stage_two.optimizer": optimizer}
    whole = other_job(frozen_job, make_job, changes | {"stage_two.head_epochs": 2})
    frozen = other_job(frozen_job, make_job, changes | {"stage_two.frozen": True})
    losses = [train_stage_two(job, finished, alone, diary()).losses for job in (whole, frozen)]
    assert losses[0][:2] == pytest.approx(losses[1][:2], rel=1e-4)
    assert losses[0][2] != pytest.approx(losses[1][2], rel=1e-4)


@pytest.mark.parametrize("leave_after", [1, 2])
def test_a_stage_that_begins_with_the_head_resumes_bit_for_bit(
    leave_after, finished, frozen_job, tmp_path, new_run, make_job, alone, diary
):
    changes = FINE_TUNED | {"stage_two.head_epochs": 2, "stage_two.optimizer.head_factor": 10.0}
    changes["stage_two.optimizer.layer_decay"] = 0.5
    job = other_job(frozen_job, make_job, changes)
    whole = train_stage_two(job, finished, alone, diary())
    other = new_run(tmp_path / "other")
    other.encoder_file(job).parent.mkdir(parents=True)
    other.encoder_file(job).hardlink_to(finished.encoder_file(job))
    with pytest.raises(diary.Leave):
        train_stage_two(job, other, alone, diary(leave_after=("stage two", leave_after)))
    assert train_stage_two(job, other, alone, diary()).losses == whole.losses
    expected, actual = classifier_of(job, finished), classifier_of(job, other)
    assert all(torch.equal(actual[name], tensor) for name, tensor in expected.items())
