import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from raysk.errors import ArtifactError, TrainingError
from raysk.parts.heads import MLPHead
from raysk.parts.losses.classification import CrossEntropy
from raysk.parts.losses.contrastive import SupCon
from raysk.recipe import Model
from raysk.stage import Optimizer, Stage
from raysk.training.batches import FeatureBatches, Plan
from raysk.training.checkpoints import ProgressCheckpoint
from raysk.training.loop import Trainer, hash_seed
from raysk.training.networks import Classifier, StageOneNetwork, new_encoder
from raysk.training.optimization import create_optimizer, learning_rate

COUNTS = torch.tensor([40, 9, 3])
LABELS = np.repeat(np.arange(3), COUNTS.numpy())
OPTIMIZERS = {
    "sgd": Optimizer(name="sgd", lr=0.1, momentum=0.9, weight_decay=1e-3, warmup=0.2),
    "adamw": Optimizer(name="adamw", lr=0.01, weight_decay=1e-2, schedule="step"),
}


def no_report(progress) -> None:
    pass


def features(num_passes: int = 2) -> Tensor:
    return torch.randn(num_passes, len(LABELS), 6, generator=torch.Generator().manual_seed(1))


def classifier(dropout: float = 0.0, norm: bool = False) -> nn.Sequential:
    torch.manual_seed(5)
    middle = nn.BatchNorm1d(8) if norm else nn.Tanh()
    return nn.Sequential(nn.Linear(6, 8), middle, nn.Dropout(dropout), nn.Linear(8, 3))


class TemperedLoss(nn.Module):
    """A loss with a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return nn.functional.cross_entropy(self.scale * logits, labels)


def new_trainer(path, world, stage: Stage, model: nn.Module, loss: nn.Module | None = None) -> Trainer:
    loss = CrossEntropy(weights="balanced").build(COUNTS) if loss is None else loss
    return Trainer(model, loss, stage, 7, world, ("key", 0), path / "fold0.progress")


def batches_of(stage: Stage, world) -> FeatureBatches:
    return FeatureBatches(features(), Plan(LABELS, stage, 0, world))


# Resuming.


@pytest.mark.parametrize("leave_after", [0, 1, 3, 4])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("ema", [0.0, 0.7])
def test_an_interrupted_stage_resumes_bit_for_bit(optimizer, ema, leave_after, tmp_path, alone, diary):
    stage = Stage(epochs=4, batch_size=16, optimizer=OPTIMIZERS[optimizer], ema=ema, accumulate=2)

    def train(folder, report):
        model, loss = classifier(dropout=0.5, norm=True), TemperedLoss()
        progress = new_trainer(tmp_path / folder, alone, stage, model, loss).fit(
            batches_of(stage, alone), "stage two", report
        )
        return model.state_dict() | {"loss": loss.scale.detach()}, progress

    expected, whole = train("whole", no_report)
    interrupted = diary(leave_after=("stage two", leave_after))
    with pytest.raises(diary.Leave):
        train("parts", interrupted)
    torch.rand(3)  # The state of the generator does not matter.
    resumed_report = diary()
    actual, resumed = train("parts", resumed_report)
    assert resumed_report.calls[0] == ("stage two", leave_after)
    assert len(resumed_report.calls) == 1 + 4 - leave_after
    assert resumed.losses == whole.losses
    assert (resumed.epoch, resumed.images) == (4, whole.images)
    assert all(torch.equal(actual[name], tensor) for name, tensor in expected.items())


def test_weights_change_after_the_interruption(tmp_path, alone, diary):
    """The test above would pass with weights that never change."""
    stage = Stage(epochs=2, batch_size=16)
    model = classifier()
    with pytest.raises(diary.Leave):
        new_trainer(tmp_path, alone, stage, model).fit(
            batches_of(stage, alone), "stage two", diary(leave_after=("stage two", 1))
        )
    halfway = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    new_trainer(tmp_path, alone, stage, model).fit(batches_of(stage, alone), "stage two", no_report)
    assert not any(torch.equal(halfway[name], tensor) for name, tensor in model.state_dict().items())


def test_seconds_add_up_over_attempts(tmp_path, alone, diary):
    stage = Stage(epochs=2, batch_size=16)
    with pytest.raises(diary.Leave):
        new_trainer(tmp_path, alone, stage, classifier()).fit(
            batches_of(stage, alone), "stage two", diary(leave_after=("stage two", 1))
        )
    spent = ProgressCheckpoint.read(tmp_path / "fold0.progress", "key", 0).facts["seconds"]
    trainer = new_trainer(tmp_path, alone, stage, classifier())
    assert trainer.fit(batches_of(stage, alone), "stage two", no_report).seconds > spent > 0


def test_the_progress_of_another_job_is_refused(tmp_path, alone):
    stage = Stage(epochs=1, batch_size=16)
    ProgressCheckpoint("other", 0, {}, {}).write(tmp_path / "fold0.progress")
    with pytest.raises(ArtifactError, match="must hold the progress key of fold 0"):
        new_trainer(tmp_path, alone, stage, classifier()).fit(batches_of(stage, alone), "stage two", no_report)


# The numbers, against a plain loop.


def trained_by_hand(model: nn.Module, loss: nn.Module, stage: Stage, epochs: list[list[tuple[Tensor, Tensor]]]):
    """Trains with one graph over all pieces of a batch, and returns the mean losses and averaged weights."""
    optimizer = create_optimizer(stage.optimizer, model.parameters())
    average: dict[str, Tensor] = {}
    losses = []
    step = 0
    model.train()
    for epoch, batches in enumerate(epochs):
        torch.manual_seed(hash_seed(7, epoch, 0))
        total = 0.0
        for inputs, labels in batches:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(stage.optimizer, step, stage.epochs * len(batches))
            optimizer.zero_grad()
            value = loss(torch.cat([model(piece) for piece in inputs.chunk(stage.accumulate)]), labels)
            value.backward()
            optimizer.step()
            total += value.item()
            for name, tensor in model.state_dict().items():
                old = average.get(name, tensor)
                average[name] = (stage.ema * old + (1 - stage.ema) * tensor).to(tensor.dtype).clone()
            step += 1
        losses.append(total / len(batches))
    return losses, average


@pytest.mark.parametrize("accumulate", [1, 2, 4])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("ema", [0.0, 0.6])
def test_training_equals_the_plain_loop(optimizer, ema, accumulate, tmp_path, alone):
    stage = Stage(epochs=3, batch_size=16, optimizer=OPTIMIZERS[optimizer], ema=ema, accumulate=accumulate)
    model, oracle = classifier(dropout=0.3).double(), classifier(dropout=0.3).double()
    loss = CrossEntropy(weights="balanced").build(COUNTS)
    batches = FeatureBatches(features().double(), Plan(LABELS, stage, 0, alone))
    progress = new_trainer(tmp_path, alone, stage, model, loss).fit(batches, "stage two", no_report)
    losses, average = trained_by_hand(oracle, loss, stage, [list(batches.epoch(epoch)) for epoch in range(3)])
    assert progress.losses == pytest.approx(losses, rel=1e-9)
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, average[name], rtol=1e-9, atol=1e-12)


def test_trunk_and_head_have_their_own_rates(tmp_path, alone):
    """A step of AdamW moves every weight by its rate."""
    model = network("cross_entropy", "test_convnext")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer = Optimizer(name="adamw", lr=1e-3, weight_decay=0, schedule="constant", head_factor=5, layer_decay=0.5)
    stage = Stage(epochs=1, batch_size=12, optimizer=optimizer)
    new_trainer(tmp_path, alone, stage, model, loss_of("cross_entropy")).fit(ImagesOnce(1), "stage two", no_report)
    moved = {name: (tensor - before[name]).abs().max().item() for name, tensor in model.state_dict().items()}
    assert moved["head.3.weight"] == pytest.approx(5e-3, rel=1e-3)
    assert moved["encoder.backbone.network.head.norm.weight"] == pytest.approx(5e-4, rel=1e-3)
    assert moved["encoder.backbone.network.stem.0.weight"] < 1e-4


class ImagesOnce:
    """One batch of images per epoch."""

    num_batches = 1

    def __init__(self, views: int) -> None:
        random = np.random.default_rng(0)
        self.images = torch.from_numpy(random.integers(0, 256, (12, views, 32, 32, 3), dtype=np.uint8))
        self.labels = torch.tensor([0, 0, 1, 0, 2, 0, 1, 0, 0, 2, 0, 0])

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        yield self.images, self.labels


def network(kind: str, backbone: str) -> nn.Module:
    torch.manual_seed(3)
    encoder = new_encoder(Model(backbone=backbone), 32)
    model = StageOneNetwork(encoder, 8) if kind == "supcon" else Classifier(encoder, MLPHead(hidden=8), 3)
    return model.double()


def loss_of(kind: str) -> nn.Module:
    return SupCon().build(COUNTS, 8) if kind == "supcon" else CrossEntropy(weights="balanced").build(COUNTS)


def state_after(path, world, kind: str, model: nn.Module, accumulate: int) -> tuple[dict[str, Tensor], list[float]]:
    stage = Stage(epochs=2, batch_size=12, accumulate=accumulate, optimizer=OPTIMIZERS["sgd"])
    batches = ImagesOnce(2 if kind == "supcon" else 1)
    progress = new_trainer(path, world, stage, model, loss_of(kind)).fit(batches, "stage", no_report)
    return model.state_dict(), progress.losses


@pytest.mark.parametrize("accumulate", [3, 12])
@pytest.mark.parametrize("kind", ["supcon", "cross_entropy"])
def test_pieces_give_the_weights_of_one_piece(kind, accumulate, tmp_path, alone):
    def build() -> nn.Module:
        model = network(kind, "test_convnext")
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0  # A mask covers a whole piece; the test below checks dropout.
        return model

    start = build().state_dict()
    whole, losses = state_after(tmp_path / "whole", alone, kind, build(), 1)
    pieces, actual = state_after(tmp_path / "pieces", alone, kind, build(), accumulate)
    assert actual == pytest.approx(losses, rel=1e-9)
    for name, tensor in whole.items():
        torch.testing.assert_close(pieces[name], tensor, rtol=1e-7, atol=1e-10, msg=name)
        assert not torch.equal(tensor, start[name]), name


@pytest.mark.parametrize("kind", ["supcon", "cross_entropy"])
def test_pieces_draw_dropout_once_and_count_statistics_once(kind, tmp_path, alone):
    """With batch norm, the oracle is one graph over the pieces, each normalised by itself."""
    model, oracle = network(kind, "test_resnet"), network(kind, "test_resnet")
    stage = Stage(epochs=2, batch_size=12, accumulate=3, optimizer=OPTIMIZERS["sgd"])
    batches = ImagesOnce(2 if kind == "supcon" else 1)
    actual, losses = state_after(tmp_path, alone, kind, model, 3)
    expected, average = trained_by_hand(oracle, loss_of(kind), stage, [list(batches.epoch(0))] * 2)
    assert losses == pytest.approx(expected, rel=1e-9)
    counted = [name for name in actual if name.endswith("num_batches_tracked")]
    assert counted and all(actual[name] == 2 * 3 for name in counted)
    for name, tensor in actual.items():
        torch.testing.assert_close(tensor, average[name], rtol=1e-7, atol=1e-9, msg=name)


# Errors and counts.


def test_an_error_of_a_diverging_loss_names_the_remedy(tmp_path, alone):
    stage = Stage(epochs=30, batch_size=16, optimizer=Optimizer(lr=100.0, schedule="constant"))

    class Square(nn.Module):
        def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
            return logits.square().mean()

    trainer = new_trainer(tmp_path, alone, stage, classifier(), Square())
    with pytest.raises(TrainingError) as caught:
        trainer.fit(batches_of(stage, alone), "stage two", no_report)
    message = str(caught.value)
    assert message.startswith("the loss of stage two must be a number, but is ")
    assert "smaller stage_two.optimizer.lr than 100" in message
    assert "\n" not in message


def test_a_diverged_state_is_not_saved(tmp_path, alone):
    stage = Stage(epochs=3, batch_size=16)
    model = classifier()
    with torch.no_grad():
        model[0].weight[0, 0] = math.nan
    with pytest.raises(TrainingError, match="after epoch 1: "):
        new_trainer(tmp_path, alone, stage, model).fit(batches_of(stage, alone), "stage two", no_report)
    assert not (tmp_path / "fold0.progress").exists()


def test_images_are_counted_by_view(tmp_path, alone):
    stage = Stage(epochs=3, batch_size=12)
    trainer = new_trainer(tmp_path, alone, stage, network("supcon", "test_convnext"), loss_of("supcon"))
    assert trainer.fit(ImagesOnce(2), "stage one", no_report).images == 3 * 12 * 2


def test_the_report_is_called_at_the_start_and_after_each_epoch(tmp_path, alone, diary):
    stage, report = Stage(epochs=3, batch_size=16), diary()
    new_trainer(tmp_path, alone, stage, classifier()).fit(batches_of(stage, alone), "stage two", report)
    assert report.calls == [("stage two", epoch) for epoch in range(4)]


def test_a_frozen_weight_does_not_change(tmp_path, alone):
    model = classifier()
    model[0].requires_grad_(False)
    before = model[0].weight.clone()
    new_trainer(tmp_path, alone, Stage(epochs=1, batch_size=16), model).fit(
        batches_of(Stage(epochs=1, batch_size=16), alone), "stage two", no_report
    )
    assert torch.equal(model[0].weight, before)


@given(
    numbers=st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=3),
    place=st.integers(0, 2),
    other=st.integers(0, 2**31 - 1),
)
@settings(max_examples=100, deadline=None)
def test_a_seed_differs_when_one_number_does(numbers, place, other):
    place %= len(numbers)
    changed = [other if at == place else number for at, number in enumerate(numbers)]
    assert (hash_seed(*changed) == hash_seed(*numbers)) == (changed == numbers)
    assert 0 <= hash_seed(*numbers) < 2**63
