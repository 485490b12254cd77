"""A finished run with trained models, and its bundles, shared by all tests of a session."""

import pytest
import torch

from raysk.inference.packing import pack_row
from raysk.recipe import Job, Recipe
from raysk.run import GREEDY, Run
from raysk.scoring import HELD_OUT, NOTHING
from raysk.search.candidates import Candidate
from raysk.search.results import read_entries, result_rows, select_ensemble, write_results
from raysk.training.job import run_job
from raysk.training.world import World

# Two recipes share an encoder, one shifts its logits, one trains end to end at another size, one has a cosine head.
RECIPES = {
    "linear": {},
    "cosine, shifted": {"stage_two.head": {"name": "cosine"}, "stage_two.adjustment": 0.5},
    "end to end": {"stage_one": None, "stage_two.frozen": False, "image_size": 24, "model.backbone": "test_resnet"},
}


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory, cache, manifest, folds, small_recipe) -> Run:
    facts = {"space": "x", "overrides": [], "command": "raysk tune --space x", "repeating command": "raysk tune",
             "data": {}, "divide": {}}  # fmt: skip
    run = Run.create(tmp_path_factory.mktemp("finished") / "run", cache, manifest, folds, facts)
    candidates = []
    for name, changes in RECIPES.items():
        recipe = Recipe.from_plain(small_recipe({"test_views": "dihedral", **changes}))
        run.keep_recipe(recipe)
        for fold in range(len(folds)):
            run_job(Job(recipe, fold), run, World(0, 1, torch.device("cpu")), lambda progress: None)
            run_job(Job(recipe, fold).for_test(), run, World(0, 1, torch.device("cpu")), lambda progress: None)
        candidates.append(Candidate(recipe, name, "", (), NOTHING if name == "linear" else HELD_OUT))
    entries = read_entries(run, candidates)
    ensemble, crossed = select_ensemble(run, [entry.held_out for entry in entries])
    write_results(run, result_rows(run, entries, ensemble, crossed), {})
    return run


@pytest.fixture(scope="session")
def bundle(finished_run):
    """The greedy ensemble as a value."""
    return pack_row(finished_run, GREEDY)


@pytest.fixture(scope="session")
def bundle_file(tmp_path_factory, bundle):
    path = tmp_path_factory.mktemp("bundle") / "greedy.raysk"
    bundle.write(path)
    return path
