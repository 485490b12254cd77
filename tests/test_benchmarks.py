"""The benchmarks compare like with like, and their checks can fail."""

from pathlib import Path

import numpy as np
import torch

from benchmarks.ddp_parity import check, largest_difference
from benchmarks.loader import BATCH_SIZE, FileBatches, read_manifest
from raysk.data.store import build_store
from raysk.data.synthetic import make_synthetic
from raysk.recipe import Stage
from raysk.training.batches import ImageBatches, Plan
from raysk.training.world import World


def test_two_workers_agree_with_one_where_a_plain_gather_does_not() -> None:
    parity = check(["supcon"], num_workers=2, batch_size=8)["supcon"]
    assert parity.holds
    assert parity.gradient_off["raysk"] < 1e-10
    assert parity.gradient_off["all_gather"] > 0.1 * parity.steepest


def test_the_largest_difference_is_found() -> None:
    one = {"a": torch.zeros(3), "b": torch.zeros(2, 2)}
    other = {"a": torch.zeros(3), "b": torch.tensor([[0.0, -0.5], [0.25, 0.0]])}
    assert largest_difference(one, other) == 0.5


def test_both_loaders_give_the_same_images_in_the_same_order(tmp_path: Path) -> None:
    make_synthetic(tmp_path / "drawn", num_images=2 * BATCH_SIZE, size=48, seed=0)
    manifest = read_manifest(tmp_path / "drawn" / "images", 2 * BATCH_SIZE)
    plan = Plan(manifest.labels, Stage(batch_size=BATCH_SIZE), 0, World(0, 1, torch.device("cpu")))
    store, _ = build_store(manifest, 32, tmp_path)
    stored = ImageBatches(store, np.arange(len(manifest)), ("none",), plan)
    pairs = list(zip(FileBatches(manifest, 32, plan).epoch(1), stored.epoch(1), strict=True))
    assert len(pairs) == 2
    for (usual, usual_labels), (ours, labels) in pairs:
        assert torch.equal(usual_labels, labels)
        assert usual.dtype == ours.dtype == torch.uint8
        assert usual.shape == ours[:, 0].shape == (BATCH_SIZE, 32, 32, 3)
        off = (usual.float() - ours[:, 0].float()).abs().mean(dim=(1, 2, 3))  # of each image, in grey levels
        assert off.max() < 5
        assert (usual.float() - ours[:, 0].float().roll(1, dims=0)).abs().mean() > 4 * off.mean()
