from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from raysk.data.folds.dividing import FoldSettings, make_folds
from raysk.data.manifest import Manifest
from raysk.recipe import Job, Recipe
from raysk.run import Run
from raysk.training.job import run_job
from raysk.training.loop import StageProgress
from raysk.training.world import World
from tests.run_facts import run_facts


@pytest.fixture(scope="session")
def alone() -> World:
    return World(0, 1, torch.device("cpu"))


@pytest.fixture(scope="session")
def make_job(small_recipe: Callable[..., dict[str, Any]]) -> Callable[..., Job]:
    """Makes jobs on fold 0 of the small recipe, with changes at dotted paths."""
    return lambda changes=None: Job(Recipe.from_plain(small_recipe(changes)), fold=0)


class Diary:
    """A report that records its calls, and can raise after an epoch, as in a lane that must stop."""

    class Leave(Exception):  # noqa: N818 - stopping is no error
        pass

    def __init__(self, leave_after: tuple[str, int] | None = None, short_after: tuple[str, int] | None = None) -> None:
        self.leave_after, self.short_after = leave_after, short_after
        self.calls: list[tuple[str, int]] = []

    def __call__(self, progress: StageProgress) -> bool:
        self.calls.append((progress.stage, progress.epoch))
        if (progress.stage, progress.epoch) == self.leave_after:
            raise Diary.Leave
        return self.short_after in self.calls


@pytest.fixture(scope="session")
def diary() -> type[Diary]:
    return Diary


@pytest.fixture(scope="session")
def frozen_job(make_job: Callable[..., Job]) -> Job:
    """Two stages, on a backbone with batch norm, predicted in all views."""
    return make_job({"model.backbone": "test_resnet", "test_views": "dihedral"})


@pytest.fixture(scope="session")
def finished(
    tmp_path_factory: pytest.TempPathFactory, new_run: Callable[[Path], Run], frozen_job: Job, alone: World
) -> Run:
    """A run with a finished `frozen_job`; tests may add jobs, but remove nothing."""
    run = new_run(tmp_path_factory.mktemp("finished") / "run")
    run_job(frozen_job, run, alone, Diary())
    return run


@pytest.fixture(scope="session")
def new_unlabelled_run(cache: Path, manifest: Manifest) -> Callable[[Path], Run]:
    """Makes a run in which every second photograph of a common class is unlabelled; some share a labelled lesion."""
    labels, roles = manifest.table.column("label").to_pylist(), []
    rank: dict[str, int] = {}
    for row, label in enumerate(labels):
        rank[label] = rank.get(label, 0) + 1
        is_common = manifest.class_counts[manifest.labels[row]] > 12
        roles.append("unlabelled" if is_common and rank[label] % 2 else "")
    table = manifest.table
    for name, values in (
        ("role", roles),
        ("label", [text * (not role) for text, role in zip(labels, roles, strict=True)]),
    ):
        table = table.set_column(table.column_names.index(name), name, pa.array(values, pa.string()))
    groups = table.column("group").to_pylist()
    labelled = [row for row, role in enumerate(roles) if not role]
    for number, row in enumerate(row for row, role in enumerate(roles) if role):
        groups[row] = groups[labelled[number]] if number < len(labelled) // 2 else f"more {row}"
    table = table.set_column(table.column_names.index("group"), "group", pa.array(groups, pa.string()))
    half = replace(manifest, table=table)
    folds = make_folds(half, FoldSettings(k=2, seed=0, test_share=0.2))
    assert all(0 < len(folds.unlabelled_rows(fold)) < len(half.unlabelled_rows) for fold in range(2))
    return lambda folder: Run.create(folder, half, folds, run_facts(half, folds, cache))
