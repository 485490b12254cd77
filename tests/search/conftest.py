"""Runs of the tests' tiny dataset with three folds, and the facts that `raysk tune` writes down."""

import pytest

from raysk.data.folds import make_folds
from raysk.run import Run


@pytest.fixture(scope="session")
def new_run(cache, manifest):
    folds = make_folds(manifest, k=3)
    facts = {"space": "supcon", "overrides": [], "command": "raysk tune --space supcon"}
    return lambda folder: Run.create(folder, cache, manifest, folds, facts)
