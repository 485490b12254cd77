"""A tiny dataset of drawn images, drawn once for all tests, and recipes that train on it within a second."""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from moto.server import ThreadedMotoServer
from pyarrow import fs
from xdist.scheduler import LoadScopeScheduling

from raysk.data.folds.assignment import Folds
from raysk.data.folds.dividing import FoldSettings, make_folds
from raysk.data.manifest import Manifest
from raysk.data.sources import DataSettings, load_manifest
from raysk.data.synthetic import make_synthetic
from raysk.run import Run
from tests.run_facts import run_facts

# What a test file that starts Ray says. They all run in one process: two instances on one machine disturb each other.
STARTS_RAY = "pytest.mark.ray"


class RayTogether(LoadScopeScheduling):
    """Divides the files among the processes, as they get free; the files that start Ray go to one, first."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "ray" if STARTS_RAY in (self.config.rootpath / file).read_text(encoding="utf-8") else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    config.option.loadscopereorder = False  # in the order of the items, below
    return RayTogether(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Moves the tests that start Ray to the front: they take longest."""
    items.sort(key=lambda item: STARTS_RAY not in item.path.read_text(encoding="utf-8"))


SIZE = 32
# test_convnext has no batch norm, so that nothing but the order of sums depends on how a batch is cut.
SMALL = {
    "model": {"backbone": "test_convnext"},
    "image_size": SIZE,
    "test_views": "none",
    "stage_one": {"epochs": 2, "batch_size": 16, "projection": 16},
    "stage_two": {"epochs": 2, "batch_size": 16},
}


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def manifest(cache: Path) -> Manifest:
    make_synthetic(cache / "drawn", num_images=110, size=SIZE, seed=0)
    table = str(cache / "drawn" / "metadata.csv")
    return load_manifest(DataSettings(source="csv", path=table, image="file", group="group"), cache)


@pytest.fixture(scope="session")
def folds(manifest: Manifest) -> Folds:
    return make_folds(manifest, FoldSettings(k=2, seed=0, test_share=0.2))


@pytest.fixture(scope="session")
def new_run(cache: Path, manifest: Manifest, folds: Folds) -> Callable[[Path], Run]:
    """Makes a run of the tiny dataset in a folder."""
    return lambda folder: Run.create(folder, manifest, folds, run_facts(manifest, folds, cache))


@pytest.fixture
def run(tmp_path: Path, new_run: Callable[[Path], Run]) -> Run:
    return new_run(tmp_path / "run")


@pytest.fixture(scope="session")
def small_recipe() -> Callable[..., dict[str, Any]]:
    """Gives a small recipe as plain values, changed at dotted paths."""

    def build(changes: dict[str, Any] | None = None) -> dict[str, Any]:
        plain = copy.deepcopy(SMALL)
        for path, value in (changes or {}).items():
            *nodes, last = path.split(".")
            node: dict[str, Any] = plain
            for name in nodes:
                node = node.setdefault(name, {})
            node[last] = value
        return plain

    return build


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"{host}:{port}"
    server.stop()


@pytest.fixture
def s3(s3_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of an empty bucket of S3."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    bucket = f"bucket-{tmp_path.name.replace('_', '-').lower()}"[:60].rstrip("-")
    files = fs.S3FileSystem(endpoint_override=s3_server, scheme="http", region="us-east-1", allow_bucket_creation=True)
    files.create_dir(bucket)
    return f"s3://{bucket}/raysk?endpoint_override={s3_server}&scheme=http&region=us-east-1"


@pytest.fixture(params=["folder", "s3"])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Storage that several machines see."""
    return str(tmp_path / "shared") if request.param == "folder" else request.getfixturevalue("s3")
