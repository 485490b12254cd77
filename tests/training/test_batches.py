from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from raysk.data.views import TrainingView, view_seed
from raysk.errors import ConfigError
from raysk.parts.samplers import samplers
from raysk.stage import Stage
from raysk.training.batches import FeatureBatches, ImageBatches, Plan, occurrences
from raysk.training.world import World

CPU = torch.device("cpu")


def plans(labels: np.ndarray, stage: Stage, size: int, seed: int = 3) -> list[Plan]:
    return [Plan(labels, stage, seed, World(rank, size, CPU)) for rank in range(size)]


def joined(labels: np.ndarray, stage: Stage, size: int, epoch: int) -> np.ndarray:
    """Returns the rows and occurrences of an epoch's global batches, (batches, 2, B), from the shares of all ranks."""
    shares = [plan.shares(epoch) for plan in plans(labels, stage, size)]
    return np.stack([np.concatenate(batch, axis=1) for batch in zip(*shares, strict=True)])


@given(
    num_rows=st.integers(4, 120),
    batch=st.integers(1, 8),
    classes=st.integers(1, 5),
    sampler=st.sampled_from(list(samplers)),
    epoch=st.integers(0, 50),
)
@settings(max_examples=40, deadline=None)
def test_any_number_of_workers_shares_the_same_batches(num_rows, batch, classes, sampler, epoch):
    labels = np.arange(num_rows) % classes
    stage = Stage(epochs=51, batch_size=min(4 * batch, num_rows // 4 * 4), sampler=samplers[sampler]())
    alone = joined(labels, stage, 1, epoch)
    assert alone.shape == (num_rows // stage.batch_size, 2, stage.batch_size)
    seen = Counter()
    for rows, draws in alone:
        for row, occurrence in zip(rows, draws, strict=True):
            assert occurrence == seen[row]
            seen[row] += 1
    for size in (2, 4):
        assert np.array_equal(joined(labels, stage, size, epoch), alone)
        first, *others = [plan.shares(epoch) for plan in plans(labels, stage, size)]
        assert all(len(share.rows) == stage.batch_size // size for rank in (first, *others) for share in rank)
    if sampler == "instance":
        assert set(seen.values()) == {1}


@given(num_rows=st.integers(8, 60), size=st.sampled_from([1, 2, 4]), pieces=st.sampled_from([1, 2]))
@settings(max_examples=30, deadline=None)
def test_fewer_rows_than_a_batch_make_one_batch_that_can_be_shared(num_rows, size, pieces):
    stage = Stage(batch_size=64, accumulate=pieces)
    ((batch, _),) = joined(np.zeros(num_rows, np.int64), stage, size, epoch=0)
    assert len(batch) == num_rows // (size * pieces) * size * pieces
    assert len(np.unique(batch)) == len(batch)


def test_every_epoch_and_every_seed_has_another_order():
    labels, stage = np.zeros(40, np.int64), Stage(batch_size=8)
    assert not np.array_equal(joined(labels, stage, 1, 0), joined(labels, stage, 1, 1))
    first, second = (Plan(labels, stage, seed, World(0, 1, CPU)).shares(0) for seed in (0, 1))
    assert not np.array_equal(first, second)


@given(st.lists(st.integers(0, 5), max_size=40))
def test_occurrences_count_the_draws_before(order):
    expected = [order[:place].count(number) for place, number in enumerate(order)]
    assert occurrences(np.array(order, np.int64)).tolist() == expected


@pytest.mark.parametrize(("batch_size", "workers", "pieces"), [(10, 4, 1), (10, 1, 5), (12, 2, 4), (2, 4, 1)])
def test_a_batch_that_workers_cannot_share_evenly_is_refused(batch_size, workers, pieces):
    stage = Stage(batch_size=batch_size, accumulate=pieces)
    plan = plans(np.zeros(100, np.int64), stage, workers)[0]
    if batch_size % (workers * pieces):
        rule = rf"^batch_size must be a multiple of {workers} workers x accumulate {pieces}, but got {batch_size}: "
        with pytest.raises(ConfigError, match=rule):
            _ = plan.num_batches
    else:
        assert plan.batch_size == batch_size


@pytest.mark.parametrize(("defer", "first"), [(0.0, 0), (0.8, 4), (0.5, 3), (1.0, 5)])
def test_a_deferred_sampler_starts_late(defer, first):
    labels = np.repeat([0, 1], [36, 4])
    common = {"epochs": 5, "batch_size": 8}
    stages = {
        is_late: Stage(**common, sampler={"name": "class_balanced" if is_late else "instance"})
        for is_late in (False, True)
    }
    deferred = Stage(**common, sampler={"name": "class_balanced"}, defer_sampler=defer)
    for epoch in range(5):
        expected = joined(labels, stages[epoch >= first], 1, epoch)
        assert np.array_equal(joined(labels, deferred, 2, epoch), expected)


def test_features_take_the_passes_in_turn():
    labels = np.array([0, 1, 0, 1, 1, 0])
    features = torch.arange(12.0).view(2, 6, 1)
    batches = FeatureBatches(features, plans(labels, Stage(batch_size=3), 1)[0])
    for epoch in range(4):
        shown = list(batches.epoch(epoch))
        assert [len(inputs) for inputs, _ in shown] == [3, 3] == [len(targets) for _, targets in shown]
        values = torch.cat([inputs for inputs, _ in shown]).flatten()
        assert values.sort().values.tolist() == features[epoch % 2].flatten().tolist()
        rows = values.long() % 6
        assert torch.equal(torch.cat([targets for _, targets in shown]), torch.from_numpy(labels)[rows])


def test_the_draws_of_a_row_take_the_passes_in_turn():
    labels = np.repeat([0, 1], [20, 2])
    stage = Stage(batch_size=11, sampler={"name": "class_balanced"})
    features = torch.arange(66.0).view(3, 22, 1)  # 22 pass + row
    for size, epoch in ((1, 0), (1, 5), (11, 5)):
        ranks = [FeatureBatches(features, plan).epoch(epoch) for plan in plans(labels, stage, size)]
        drawn = [value for shares in zip(*ranks, strict=True) for inputs, _ in shares for value in inputs.flatten()]
        seen = Counter()
        for value in drawn:
            number, row = divmod(int(value), 22)
            assert number == (epoch + seen[row]) % 3
            seen[row] += 1
        assert max(seen.values()) >= 4


def drawn_by(store, rows, labels, size, epoch):
    """Returns the images and labels of an epoch, the shares of all ranks joined."""
    stage = Stage(batch_size=16)
    ranks = [ImageBatches(store, rows, ("none", "supercon"), plan).epoch(epoch) for plan in plans(labels, stage, size)]
    batches = [
        (torch.cat([images for images, _ in shares]), torch.cat([targets for _, targets in shares]))
        for shares in zip(*ranks, strict=True)
    ]
    return torch.cat([images for images, _ in batches]), torch.cat([targets for _, targets in batches])


def test_any_number_of_workers_draws_the_same_views(run):
    store, rows = run.store(32), run.folds.train_rows(0)
    labels = run.manifest.labels[rows]
    images, targets = drawn_by(store, rows, labels, 1, epoch=1)
    assert images.shape == (len(rows) // 16 * 16, 2, 32, 32, 3)
    assert images.dtype is torch.uint8
    for size in (2, 4):
        others, other_targets = drawn_by(store, rows, labels, size, epoch=1)
        assert torch.equal(others, images)
        assert torch.equal(other_targets, targets)


def pictures(images: torch.Tensor) -> set[bytes]:
    return {image.numpy().tobytes() for image in images.flatten(0, 1)}


def test_a_class_of_few_rows_shows_as_many_pictures_as_draws(run):
    """Each draw of a row had the same pixels once: 7 rows that were drawn 50 times gave 7 pictures."""
    rows = run.folds.train_rows(0)
    labels = np.zeros(len(rows), np.int64)
    labels[:7] = 1
    stage = Stage(batch_size=16, sampler={"name": "class_balanced"})
    epochs = []
    for size in (1, 2):
        ranks = [ImageBatches(run.store(32), rows, ("medium", "medium"), plan) for plan in plans(labels, stage, size)]
        shares = [share for batch in zip(*(rank.epoch(0) for rank in ranks), strict=True) for share in batch]
        images, targets = (torch.cat(tensors) for tensors in zip(*shares, strict=True))
        num_draws = int((targets == 1).sum())
        assert num_draws > 7
        assert len(pictures(images[targets == 1])) == 2 * num_draws
        epochs.append(images)
    assert torch.equal(*epochs)


def test_batches_of_p_classes_and_k_images_hold_no_copies(run):
    rows = run.folds.train_rows(0)
    labels = np.zeros(len(rows), np.int64)
    labels[:3] = 1
    stage = Stage(batch_size=16, sampler={"name": "per_class", "classes": 2, "images": 8})
    for images, targets in ImageBatches(run.store(32), rows, ("medium",), plans(labels, stage, 1)[0]).epoch(0):
        assert targets.sum() == 8
        assert len(pictures(images)) == 16


def test_a_view_follows_from_seed_epoch_row_occurrence_and_view(run):
    """The oracle draws every view alone, in another order than the loader."""
    store, rows = run.store(32), run.folds.train_rows(0)
    labels = run.manifest.labels[rows]
    plan = plans(labels, Stage(batch_size=16, sampler={"name": "class_balanced"}), 1, seed=3)[0]
    names = ("light", "supercon", "light")
    batches = list(ImageBatches(store, rows, names, plan).epoch(2))
    for (images, targets), share in zip(batches, plan.shares(2), strict=True):
        assert torch.equal(targets, torch.from_numpy(labels[share.rows]))
        for number, name in reversed(list(enumerate(names))):
            view = TrainingView(name, 32)
            for place, row in enumerate(rows[share.rows]):
                seed = view_seed(3, 2, int(row), number, int(share.occurrences[place]))
                expected = view(store.pixels[row], seed)
                assert np.array_equal(images[place, number].numpy(), expected)
    first = batches[0][0]
    assert not torch.equal(first[:, 0], first[:, 2])  # Two views of one name are drawn independently.


def test_an_epoch_draws_other_views_than_the_one_before(run):
    store, rows = run.store(32), run.folds.train_rows(0)[:16]
    batches = ImageBatches(store, rows, ("supercon",), plans(run.manifest.labels[rows], Stage(batch_size=16), 1)[0])
    sums = [next(batches.epoch(epoch))[0].double().sum(dim=(1, 2, 3, 4)).sort().values for epoch in (0, 1, 0)]
    assert torch.equal(sums[0], sums[2])
    assert not torch.equal(sums[0], sums[1])


@dataclass(frozen=True)
class LoadingWorld(World):
    """A world with a loader process, as beside a GPU."""

    @property
    def loader_workers(self) -> int:
        return 1


def test_a_loader_process_draws_the_same_views_as_the_trainer(run):
    store, rows = run.store(32), run.folds.train_rows(0)
    labels, stage = run.manifest.labels[rows], Stage(batch_size=16, sampler={"name": "class_balanced"})
    beside, here = (
        ImageBatches(store, rows, ("none", "supercon"), Plan(labels, stage, 0, world(0, 1, CPU)))
        for world in (LoadingWorld, World)
    )
    for epoch in range(2):  # The process persists, so the second epoch must not show the rows of the first.
        pairs = list(zip(beside.epoch(epoch), here.epoch(epoch), strict=True))
        assert len(pairs) == len(rows) // 16
        for (images, targets), (expected, expected_targets) in pairs:
            assert torch.equal(images, expected)
            assert torch.equal(targets, expected_targets)
