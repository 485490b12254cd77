"""Decoding on a cluster: a real one, of two nodes."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import ray
from PIL import Image
from ray.cluster_utils import Cluster
from rich.console import Console

from raysk.data.manifest import Manifest, make_manifest
from raysk.data.store import chunks
from raysk.data.store.building import build_store
from raysk.search.preparation import on_cluster, prepare
from raysk.search.request import StudyRequest
from raysk.spaces.space import load_space

pytestmark = pytest.mark.ray


@pytest.fixture
def forty_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Manifest:
    """Forty pictures in three chunks."""
    names = [f"n{number}.png" for number in range(40)]
    for number, name in enumerate(names):
        pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / name)
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 1)  # the smallest chunk there is, 16 images
    return make_manifest(names, ["a", "b"] * 20, root=tmp_path)


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="raysk-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        monkeypatch.setenv("RAY_TMPDIR", folder)
        Path(folder, "ray").mkdir()
        node = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
        cluster = Cluster(initialize_head=True, head_node_args=node | {"include_dashboard": False})
        cluster.add_node(**node)
        yield cluster.address
        cluster.shutdown()


def test_chunks_are_decoded_by_the_nodes_of_a_cluster(forty_pictures: Manifest, address: str, tmp_path: Path) -> None:
    seen: list[int] = []
    shared = str(tmp_path / "shared")
    store, _ = build_store(
        forty_pictures,
        16,
        tmp_path / "cache",
        progress=lambda done, total: seen.append(done),
        shared=shared,
        spread=on_cluster(address),
    )
    assert len(seen) == 3 and seen[-1] == 40
    assert not ray.is_initialized(), "the cluster is left as soon as all chunks are decoded"
    alone, _ = build_store(forty_pictures, 16, tmp_path / "alone")
    assert store.digest == alone.digest
    assert [path.name for path in Path(shared).iterdir()] == [store.folder.name]


def test_no_cluster_is_needed_without_chunks_to_decode() -> None:
    assert list(on_cluster("127.0.0.1:1")([])) == []


def test_a_resumed_study_may_run_all_controls_but_not_change_its_sampler(tmp_path: Path, cache: Path) -> None:
    same = ["data.size=150", "image_size=32", "search.sampler=gp"]
    words = (*same[:2], "controls=all", *same[2:], f"cache={cache}")
    space = load_space("mislas", words)
    request = StudyRequest(space="mislas", overrides=words, run=str(tmp_path / "run"))
    facts = prepare(request, space, space.config(), Console(quiet=True)).facts
    assert facts.overrides == tuple(same), "these must not change"
