"""The benchmarks compare like with like, and their checks can fail."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.ddp_parity import check, largest_difference
from benchmarks.loader import BATCH_SIZE, Files, read_manifest, transform_of
from raysk.data.store.building import build_store
from raysk.data.synthetic import make_synthetic

# What several scripts share is no script.
SCRIPTS = set(Path(__file__).parents[1].glob("benchmarks/*.py")) - {
    Path(__file__).parents[1] / "benchmarks" / "drawn_bundle.py"
}


@pytest.mark.parametrize("script", sorted(SCRIPTS), ids=lambda path: path.stem)
def test_every_script_starts(script: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """In this process: fifteen new ones would each take eight seconds to import torch and Ray."""
    if peer := {"losses": "pytorch_metric_learning", "near_duplicates": "imagehash"}.get(script.stem):
        pytest.importorskip(peer, reason="needs the extra bench")
    monkeypatch.setattr(sys, "argv", [str(script), "--help"])
    monkeypatch.syspath_prepend(script.parent)
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(script), run_name="__main__")
    assert not end.value.code
    assert "usage: " in capsys.readouterr().out


def test_two_workers_agree_with_one_where_a_plain_gather_does_not() -> None:
    parity = check(["supcon"], num_workers=2, batch_size=8)["supcon"]
    assert parity.holds
    assert parity.gradient_off["raysk"] < 1e-10
    assert parity.gradient_off["all_gather"] > 0.1 * parity.steepest


def test_the_largest_difference_is_found() -> None:
    tensors = {"a": torch.zeros(3), "b": torch.zeros(2, 2)}
    other = {"a": torch.zeros(3), "b": torch.tensor([[0.0, -0.5], [0.25, 0.0]])}
    assert largest_difference(tensors, other) == 0.5


def test_the_contenders_load_the_same_images(tmp_path: Path) -> None:
    make_synthetic(tmp_path / "drawn", num_images=BATCH_SIZE, size=48, seed=0)
    manifest = read_manifest(tmp_path / "drawn" / "images", BATCH_SIZE)
    store, _ = build_store(manifest, 32, tmp_path)
    files = Files(manifest.paths, transform_of(32, "none"))
    decoded = torch.stack([files[row] for row in range(len(files))])
    stored = torch.from_numpy(np.array(store.pixels))[:, None]
    assert decoded.dtype == stored.dtype == torch.uint8
    assert decoded.shape == stored.shape == (BATCH_SIZE, 1, 32, 32, 3)
    differences = (decoded.float() - stored.float()).abs().mean(dim=(1, 2, 3, 4))  # of each image, in grey levels
    assert differences.max() < 5
    assert (decoded.float() - stored.float().roll(1, dims=0)).abs().mean() > 4 * differences.mean()
    assert Files(manifest.paths, transform_of(32, "supcon"))[0].shape == (2, 32, 32, 3)
