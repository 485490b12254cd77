import copy
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysk.artifacts import read_json
from raysk.data.views import training_views
from raysk.parts.heads import FrozenHead, heads
from raysk.parts.losses import EmbeddingLoss, LogitLoss, losses
from raysk.parts.mixing import mixings
from raysk.parts.samplers import samplers
from raysk.recipe import PART_NODES, RECIPE_SCHEMA, Job, Recipe, StageOne
from raysk.stage import Optimizer
from raysk.stage_two import StageTwo

LOGIT_LOSSES = [name for name in losses if issubclass(losses[name], LogitLoss)]
EMBEDDING_LOSSES = [name for name in losses if issubclass(losses[name], EmbeddingLoss)]
# LDAM needs a certain head.
FREE_LOSSES = [name for name in LOGIT_LOSSES if losses[name]().head is None]


def named(names: Iterable[str]) -> st.SearchStrategy[dict[str, str]]:
    return st.sampled_from(list(names)).map(lambda name: {"name": name})


OPTIMIZERS = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["sgd", "adamw"]),
        "lr": st.floats(1e-6, 1) | st.just(1),
        "schedule": st.sampled_from(["cosine", "step", "constant"]),
    },
)
STAGE = {
    "epochs": st.integers(1, 100),
    "batch_size": st.sampled_from([64, 128]),
    "accumulate": st.sampled_from([1, 4]),
    "optimizer": OPTIMIZERS,
    "sampler": named(samplers),
}
STAGES_ONE = st.fixed_dictionaries(
    {},
    optional=STAGE
    | {
        "loss": named(EMBEDDING_LOSSES),
        "copies": st.integers(1, 3),
        "views": st.lists(st.sampled_from(list(training_views)), min_size=2, max_size=3),
        "classifier_loss": st.none() | named(FREE_LOSSES),
        "loss_weight": st.floats(0.1, 10),
        "patience": st.integers(0, 5),
    },
)
STAGES_TWO = st.fixed_dictionaries(
    {"frozen": st.just(False)},
    optional=STAGE
    | {
        "loss": named(FREE_LOSSES),
        "head": named([name for name in heads if not issubclass(heads[name], FrozenHead)]),
        "view": st.sampled_from(list(training_views)),
        "mixing": named(mixings),
        "adjustment": st.floats(0, 2),
    },
)
RECIPES = st.builds(
    lambda stage_one, stage_two, seed: {"stage_one": stage_one, "stage_two": stage_two, "seed": seed},
    st.none() | STAGES_ONE,
    STAGES_TWO,
    st.integers(0, 9),
)


def shuffled(plain: object) -> object:
    """Reverses the order of all keys."""
    if isinstance(plain, dict):
        return {name: shuffled(value) for name, value in reversed(plain.items())}
    return [shuffled(item) for item in plain] if isinstance(plain, list) else plain


@given(plain=RECIPES)
@settings(max_examples=25, deadline=None)
def test_a_recipe_survives_json_with_its_key(plain):
    recipe = Recipe.from_plain(plain)
    back = Recipe.from_plain(shuffled(json.loads(json.dumps(recipe.to_plain()))))
    assert back == recipe
    assert back.key == recipe.key
    assert back.encoder_key == recipe.encoder_key
    job = Job(recipe, 2).for_test()
    assert Job.from_plain(json.loads(json.dumps(job.to_plain()))) == job


def test_a_key_does_not_depend_on_the_process():
    """Hashes of strings, and so the order of sets, differ between processes."""
    program = "from raysk.recipe import Recipe; print(Recipe().key, Recipe().encoder_key)"
    root = Path(__file__).parents[1]
    environment = os.environ | {"PYTHONHASHSEED": "12345", "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [Recipe().key, Recipe().encoder_key]


def test_a_missing_setting_and_its_default_make_the_same_recipe():
    assert Recipe.from_plain({}).key == Recipe.from_plain(Recipe().to_plain()).key
    given_defaults = {"stage_two": {"head": {"name": "linear"}, "optimizer": {"momentum": Optimizer().momentum}}}
    assert Recipe.from_plain(given_defaults).key == Recipe().key


# Given rather than left out, so that a new default changes nothing here.
BASE = {
    "model": {"backbone": "lcnet_050", "pretrained": False, "checkpoint": None},
    "image_size": 64,
    "stage_one": {
        "epochs": 10,
        "batch_size": 128,
        "accumulate": 1,
        "optimizer": {"name": "sgd", "lr": 0.05},
        "sampler": {"name": "instance"},
        "ema": 0.0,
        "loss": {"name": "supcon", "temperature": 0.07},
        "loss_weight": 1.0,
        "classifier_loss": None,
        "views": ["none", "supercon"],
        "projection": 128,
        "patience": 0,
    },
    "stage_two": {
        "epochs": 10,
        "optimizer": {"name": "sgd", "lr": 0.05},
        "sampler": {"name": "instance"},
        "loss": {"name": "cross_entropy"},
        "head": {"name": "linear"},
        "frozen": True,
        "view": "none",
        "passes": 1,
        "mixing": {"name": "none"},
        "adjustment": 0.0,
    },
    "test_views": "dihedral",
    "seed": 0,
}
CHANGES = {
    "stage_two.epochs": 11,
    "stage_two.optimizer.lr": 0.3,
    "stage_two.sampler": {"name": "class_balanced"},
    "stage_two.loss": {"name": "focal"},
    "stage_two.head": {"name": "cosine"},
    "stage_two.frozen": False,
    "stage_two.view": "light",
    "stage_two.passes": 2,
    "stage_two.shift_batch_norm": True,
    "stage_two.adjustment": 1.0,
    "test_views": "none",
}
ENCODER_CHANGES = {
    "stage_one.defer_sampler": 0.5,
    "stage_one.sync_batch_norm": False,
    "stage_one.optimizer.head_factor": 10.0,
    "stage_one.optimizer.layer_decay": 0.75,
    "model.backbone": "test_resnet",
    "model.pretrained": True,
    "model.checkpoint": "weights.safetensors",
    "image_size": 32,
    "seed": 1,
    "stage_one.epochs": 11,
    "stage_one.batch_size": 64,
    "stage_one.accumulate": 2,
    "stage_one.optimizer.name": "adamw",
    "stage_one.sampler": {"name": "square_root"},
    "stage_one.ema": 0.9,
    "stage_one.loss": {"name": "supcon", "temperature": 0.1},
    "stage_one.views": ["supercon", "none"],
    "stage_one.projection": 64,
    "stage_one.classifier_loss": {"name": "cross_entropy"},
    "stage_one.loss_weight": 0.5,
    "stage_one.patience": 3,
    "model.pooling": "none",
    "model.seen": True,
}


def changed(path: str, value: object) -> Recipe:
    plain: Any = copy.deepcopy(BASE)
    *nodes, last = path.split(".")
    node = plain
    for name in nodes:
        node = node[name]
    node[last] = value
    return Recipe.from_plain(plain)


@pytest.mark.parametrize("path", CHANGES)
def test_recipes_that_differ_after_stage_one_share_their_encoder(path):
    recipe = changed(path, CHANGES[path])
    assert recipe.key != Recipe.from_plain(BASE).key
    assert recipe.encoder_key == Recipe.from_plain(BASE).encoder_key


@pytest.mark.parametrize("path", ENCODER_CHANGES)
def test_recipes_that_differ_in_stage_one_have_different_encoders(path):
    recipe = changed(path, ENCODER_CHANGES[path])
    assert recipe.key != Recipe.from_plain(BASE).key
    assert recipe.encoder_key != Recipe.from_plain(BASE).encoder_key


def test_each_change_makes_a_different_key():
    recipes = [changed(path, value) for path, value in (CHANGES | ENCODER_CHANGES).items()]
    assert len({recipe.key for recipe in recipes}) == len(recipes)


def test_a_recipe_without_stage_one_is_one_stage():
    recipe = Recipe(stage_one=None, stage_two=StageTwo(frozen=False))
    assert (recipe.kind, recipe.encoder_key) == ("one-stage", None)
    assert (Recipe().kind, Recipe().encoder_key is None) == ("two-stage", False)


def test_a_job_is_named_by_recipe_fold_and_part():
    job = Job(Recipe(), 0)
    jobs = [job, Job(job.recipe, 1), job.for_test(), Job(replace(job.recipe, seed=1), 0)]
    assert len({job.id for job in jobs}) == 4
    assert job.for_test() == Job(job.recipe, 0, "test")


@pytest.mark.parametrize("name", EMBEDDING_LOSSES)
def test_stage_one_accepts_every_loss_on_embeddings(name):
    assert isinstance(StageOne.from_plain({"loss": {"name": name}}).loss, losses[name])


def test_a_stage_one_may_learn_from_logits_alone():
    stage = StageOne.from_plain({"loss": None, "classifier_loss": {"name": "focal"}, "views": ["none"]})
    assert StageOne.from_plain(stage.to_plain()) == stage
    assert stage.to_plain()["classifier_loss"]["name"] == "focal"


def test_ldam_accepts_the_head_with_its_scale():
    plain = {"loss": {"name": "ldam", "scale": 20}, "head": {"name": "cosine", "scale": 20}}
    assert StageTwo.from_plain(plain).loss.scale == 20


def test_choices_leave_out_defaults():
    assert Recipe().choices() == {}
    stage_two = {"loss": {"name": "focal", "gamma": 3.0}, "epochs": 7, "frozen": False}
    other = Recipe.from_plain({"stage_two": stage_two, "stage_one": None, "seed": 0})
    assert other.choices()["stage_two"]["loss"] == {"name": "focal", "gamma": 3.0}
    assert other.choices()["stage_one"] is None


def flat(plain, path=""):
    """The leaves of a mapping, by dotted path."""
    if not isinstance(plain, dict):
        return {path: plain}
    leaves = [flat(value, f"{path}.{key}".lstrip(".")) for key, value in plain.items()]
    return {name: leaf for part in leaves for name, leaf in part.items()}


def test_a_default_that_changes_raises_the_schema():
    """Keys leave out defaults, so a changed default would give two recipes one key."""
    defaults = flat({"recipe": Recipe().to_plain()})
    for kind, registry in PART_NODES.items():
        defaults |= flat({kind: {name: registry[name]().to_plain() for name in registry}})
    recorded = read_json(Path(__file__).with_name("defaults.json"))
    assert recorded["schema"] == RECIPE_SCHEMA, "tests/defaults.json is of another schema: write it again"
    changed = {path for path, value in recorded["defaults"].items() if defaults.get(path, "gone") != value}
    assert not changed, f"raise RECIPE_SCHEMA, and write tests/defaults.json again: {changed}"
    assert defaults.keys() == recorded["defaults"].keys(), "new settings: add them to tests/defaults.json"
