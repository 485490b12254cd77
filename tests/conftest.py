"""What all tests share, made once: drawn images, small recipes, and a finished run with its bundle."""

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
from raysk.data.store.region_store import build_regions
from raysk.data.synthetic import make_synthetic
from raysk.evaluation.ensemble import GREEDY
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


# Two recipes share an encoder, one shifts its logits, one trains end to end at another size, one has a cosine head.
TRAINED = {
    "linear": {},
    "cosine, shifted": {"stage_two.head": {"name": "cosine"}, "stage_two.adjustment": 0.5},
    "end to end": {"stage_one": None, "stage_two.frozen": False, "image_size": 24, "model.backbone": "test_resnet"},
}


@pytest.fixture(scope="session")
def finished_run(
    tmp_path_factory: pytest.TempPathFactory, cache: Path, manifest: Manifest, folds: Folds, small_recipe: Any
) -> Run:
    """A run with trained models and a leaderboard; do not change it."""
    facts = run_facts(
        manifest,
        folds,
        cache,
        space="x",
        command="raysk tune --space x",
        repeating_command="raysk tune",
        data={"source": "csv", "path": "/home/anna/lesions.csv"},
    )
    run = Run.create(tmp_path_factory.mktemp("finished") / "run", manifest, folds, facts)
    recipes = {name: small_recipe({"test_views": "dihedral", **changes}) for name, changes in TRAINED.items()}
    return _finish(run, recipes)


OF_MASKS = {
    "task": {"name": "segmentation", "width": 16},
    "stage_one": None,
    "stage_two.frozen": False,
    "stage_two.view": "medium",
    "stage_two.epochs": 3,
    "stage_two.optimizer": {"name": "adamw", "lr": 0.003},
}


@pytest.fixture(scope="session")
def new_mask_run(cache: Path, manifest: Manifest, folds: Folds) -> Callable[[Path], Run]:
    """Makes a run of the drawn lesions that predicts their masks."""
    regions = build_regions(manifest, SIZE, cache)
    facts = run_facts(manifest, folds, cache, metric="dice", regions={str(SIZE): regions.key})
    return lambda folder: Run.create(folder, manifest, folds, facts)


@pytest.fixture(scope="session")
def finished_mask_run(
    tmp_path_factory: pytest.TempPathFactory, new_mask_run: Callable[[Path], Run], small_recipe: Any
) -> Run:
    """A run of two recipes that predict masks, with a leaderboard; do not change it."""
    run = new_mask_run(tmp_path_factory.mktemp("finished_masks") / "run")
    changes = {"resnet": {"model.backbone": "test_resnet", "test_views": "dihedral"}, "convnext": {}}
    return _finish(run, {name: small_recipe({**OF_MASKS, **more}) for name, more in changes.items()})


def _finish(run: Run, recipes: dict[str, dict[str, Any]]) -> Run:
    """Trains recipes on all folds, and writes their leaderboard."""
    # Most tests need neither torch nor the search.
    import torch

    from raysk.recipe import Job, Recipe
    from raysk.scoring import HELD_OUT, NOTHING
    from raysk.search.candidates import Candidate
    from raysk.search.results import read_entries, result_rows, select_ensemble, write_results
    from raysk.training.job import run_job
    from raysk.training.world import World

    alone, candidates = World(0, 1, torch.device("cpu")), []
    for name, plain in recipes.items():
        recipe = Recipe.from_plain(plain)
        run.keep_recipe(recipe)
        for fold in range(len(run.folds)):
            for job in (Job(recipe, fold), Job(recipe, fold).for_test()):
                run_job(job, run, alone, lambda progress: None)
        candidates.append(Candidate(recipe, name, "", (), NOTHING if name == "linear" else HELD_OUT))
    entries = read_entries(run, candidates)
    ensemble, crossed = select_ensemble(run, [entry.held_out for entry in entries])
    write_results(run, result_rows(run, entries, ensemble, crossed), {})
    return run


@pytest.fixture(scope="session")
def bundle(finished_run: Run) -> Any:
    """The greedy ensemble as a value."""
    from raysk.inference.packing import pack_row

    return pack_row(finished_run, GREEDY)


@pytest.fixture(scope="session")
def bundle_file(tmp_path_factory: pytest.TempPathFactory, bundle: Any) -> Path:
    """The greedy ensemble as a file."""
    path = tmp_path_factory.mktemp("bundle") / "greedy.raysk"
    bundle.write(path)
    return path
