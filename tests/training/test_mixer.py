import numpy as np
import pytest
import torch
from torch import nn

from raysk.parts.losses.classification import CrossEntropy
from raysk.parts.mixing import CutMix, Mixup, Remix
from raysk.stage import Optimizer, Stage
from raysk.training.loop import Trainer
from raysk.training.mixer import Mixer
from raysk.training.world import World

COUNTS = torch.tensor([80, 10, 2])
LABELS = torch.tensor([0, 0, 1, 0, 2, 0, 1, 0])


def images(num: int = 8) -> torch.Tensor:
    random = np.random.default_rng(0)
    return torch.from_numpy(random.integers(0, 256, (num, 1, 6, 6, 3), dtype=np.uint8))


class Share(World):
    """The world of one of two workers, without the other: `gather` returns the whole batch."""

    def gather(self, local: torch.Tensor) -> torch.Tensor:
        return images() if local.dim() == 5 else LABELS


@pytest.mark.parametrize("mixing", [Mixup(alpha=1.0), CutMix(), Remix(alpha=1.0)])
def test_the_shares_of_two_workers_are_the_batch_of_one(mixing, alone):
    whole = Mixer(mixing, COUNTS, 5, alone).mix(images(), LABELS, 1, 2)
    parts = []
    for rank in range(2):
        mixer = Mixer(mixing, COUNTS, 5, Share(rank, 2, torch.device("cpu")))
        parts.append(mixer.mix(images().chunk(2)[rank], LABELS.chunk(2)[rank], 1, 2))
    for name in ("images", "labels", "partner_labels"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(whole, name)), name
    assert [part.share for part in parts] == [whole.share] * 2


def test_pairs_are_permutations_that_change_with_every_batch(alone):
    mixer = Mixer(Mixup(alpha=1.0), COUNTS, 5, alone)
    rows = torch.arange(8)
    partners = [mixer.mix(images(), rows, epoch, number).partner_labels for epoch in (0, 1) for number in (0, 1)]
    for labels in partners:
        assert sorted(labels.tolist()) == rows.tolist()
    assert len({tuple(labels.tolist()) for labels in partners}) == 4
    again = Mixer(Mixup(alpha=1.0), COUNTS, 5, alone).mix(images(), rows, 1, 1)
    assert torch.equal(again.partner_labels, partners[-1])
    other = Mixer(Mixup(alpha=1.0), COUNTS, 6, alone).mix(images(), rows, 1, 1)
    assert not torch.equal(other.partner_labels, partners[-1])


class OneBatch:
    num_batches = 1

    def epoch(self, epoch: int):
        yield images(), LABELS


class Flat(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(6 * 6 * 3, 3)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.layer(pixels.float().flatten(1) / 255)


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("mixing", [Mixup(alpha=1.0), CutMix()])
def test_a_mixed_step_weights_the_losses_of_both_labels_by_their_shares(mixing, accumulate, tmp_path, alone):
    stage = Stage(epochs=1, batch_size=8, accumulate=accumulate, optimizer=Optimizer(lr=0.1, momentum=0.0))
    mixer, model, oracle = Mixer(mixing, COUNTS, 5, alone), Flat(), Flat()
    loss = CrossEntropy(weights="balanced").build(COUNTS)
    trainer = Trainer(model, loss, stage, 7, alone, ("key", 0), tmp_path / "progress", mixer)
    progress = trainer.fit(OneBatch(), "stage two", lambda progress: None)
    mixed = mixer.mix(images(), LABELS, 0, 0)
    assert 0.05 < mixed.share < 0.95
    logits = oracle(mixed.images)
    expected = mixed.share * loss(logits, mixed.labels) + (1 - mixed.share) * loss(logits, mixed.partner_labels)
    assert progress.losses == [pytest.approx(expected.item(), rel=1e-6)]
    assert progress.images == 8
    expected.backward()
    for actual, weight in zip(model.parameters(), oracle.parameters(), strict=True):
        step = weight.grad + stage.optimizer.weight_decay * weight
        torch.testing.assert_close(actual, weight - 0.1 * step, rtol=1e-5, atol=1e-6)
