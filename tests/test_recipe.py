import copy
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysk.data.views import training_views
from raysk.errors import ConfigError
from raysk.parts.heads import heads
from raysk.parts.losses import EmbeddingLoss, LogitLoss, losses
from raysk.parts.samplers import samplers
from raysk.recipe import Job, Optimizer, Recipe, StageOne, StageTwo

LOGIT_LOSSES = [name for name in losses if issubclass(losses[name], LogitLoss)]
EMBEDDING_LOSSES = [name for name in losses if issubclass(losses[name], EmbeddingLoss)]

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
    "sampler": st.builds(lambda name: {"name": name}, st.sampled_from(list(samplers))),
}
STAGES_ONE = st.fixed_dictionaries(
    {},
    optional=STAGE
    | {
        "loss": st.builds(lambda name: {"name": name}, st.sampled_from(EMBEDDING_LOSSES)),
        "views": st.lists(st.sampled_from(list(training_views)), min_size=2, max_size=3),
    },
)
STAGES_TWO = st.fixed_dictionaries(
    {"frozen": st.just(False)},
    optional=STAGE
    | {
        "loss": st.builds(lambda name: {"name": name}, st.sampled_from(LOGIT_LOSSES)),
        "head": st.builds(lambda name: {"name": name}, st.sampled_from(list(heads))),
        "view": st.sampled_from(list(training_views)),
    },
)
RECIPES = st.builds(
    lambda one, two, seed: {"stage_one": one, "stage_two": two, "seed": seed},
    st.none() | STAGES_ONE,
    STAGES_TWO,
    st.integers(0, 9),
)


def shuffled(plain: object) -> object:
    """Turns the order of all keys round."""
    if isinstance(plain, dict):
        return {name: shuffled(value) for name, value in reversed(plain.items())}
    return [shuffled(item) for item in plain] if isinstance(plain, list) else plain


@given(plain=RECIPES)
@settings(max_examples=25, deadline=None)
def test_a_recipe_comes_back_from_json_with_its_key(plain):
    recipe = Recipe.from_plain(plain)
    back = Recipe.from_plain(shuffled(json.loads(json.dumps(recipe.to_plain()))))
    assert back == recipe
    assert back.key == recipe.key
    assert back.encoder_key == recipe.encoder_key
    job = Job(recipe, 2).for_test()
    assert Job.from_plain(json.loads(json.dumps(job.to_plain()))) == job


def test_a_key_does_not_depend_on_the_process():
    """Hashes of strings differ between processes, and sets with them."""
    program = "from raysk.recipe import Recipe; print(Recipe().key, Recipe().encoder_key)"
    root = Path(__file__).parents[1]
    environment = os.environ | {"PYTHONHASHSEED": "12345", "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [Recipe().key, Recipe().encoder_key]


def test_what_is_left_out_and_what_is_said_as_default_is_one_recipe():
    assert Recipe.from_plain({}).key == Recipe.from_plain(Recipe().to_plain()).key
    said = {"stage_two": {"head": {"name": "linear"}, "optimizer": {"momentum": Optimizer().momentum}}}
    assert Recipe.from_plain(said).key == Recipe().key


# Said rather than left out, so that another default changes nothing here.
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
        "views": ["none", "supercon"],
        "projection": 128,
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
    "test_views": "none",
}
ENCODER_CHANGES = {
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
def test_recipes_that_differ_in_stage_one_do_not(path):
    recipe = changed(path, ENCODER_CHANGES[path])
    assert recipe.key != Recipe.from_plain(BASE).key
    assert recipe.encoder_key != Recipe.from_plain(BASE).encoder_key


def test_each_change_makes_another_key():
    recipes = [changed(path, value) for path, value in (CHANGES | ENCODER_CHANGES).items()]
    assert len({recipe.key for recipe in recipes}) == len(recipes)


def test_a_recipe_without_stage_one_is_a_control():
    recipe = Recipe(stage_one=None, stage_two=StageTwo(frozen=False))
    assert (recipe.kind, recipe.encoder_key) == ("one-stage", None)
    assert (Recipe().kind, Recipe().encoder_key is None) == ("two-stage", False)


def test_a_job_is_named_by_recipe_fold_and_part():
    job = Job(Recipe(), 0)
    jobs = [job, Job(job.recipe, 1), job.for_test(), Job(replace(job.recipe, seed=1), 0)]
    assert len({one.id for one in jobs}) == 4
    assert job.for_test() == Job(job.recipe, 0, "test")


REFUSALS = {
    "a loss on logits in stage one": (
        {"stage_one": {"loss": {"name": "focal"}}},
        r"stage_one\.loss must be one of simclr, supcon, but got 'focal': ",
    ),
    "a loss on embeddings in stage two": (
        {"stage_two": {"loss": {"name": "supcon"}}},
        r"stage_two\.loss must be one of balanced_softmax, .* but got 'supcon': ",
    ),
    "an unknown loss": (
        {"stage_one": {"loss": {"name": "supcom"}}},
        r"stage_one\.loss must be a known name, but got 'supcom'; did you mean supcon\?",
    ),
    "a loss without a name": ({"stage_one": {"loss": {"temperature": 1}}}, r"stage_one\.loss must have a name"),
    "a loss that is no mapping": ({"stage_one": {"loss": "supcon"}}, r"stage_one\.loss must have a name"),
    "a setting of another loss": (
        {"stage_two": {"loss": {"name": "focal", "temperature": 1}}},
        r"stage_two\.loss\.temperature must be a known setting of Focal, .*known here: gamma",
    ),
    "a temperature of zero": (
        {"stage_one": {"loss": {"name": "supcon", "temperature": 0}}},
        r"stage_one\.loss\.temperature must be a number in \[0\.001, 10\], but got 0: ",
    ),
    "pieces that do not divide the batch": (
        {"stage_one": {"batch_size": 128, "accumulate": 3}},
        r"stage_one\.accumulate must divide batch_size 128, but got 3: ",
    ),
    "pieces that do not divide the batch of stage two": (
        {"stage_two": {"batch_size": 128, "accumulate": 3}},
        r"stage_two\.accumulate must divide batch_size 128, but got 3: ",
    ),
    "a frozen encoder that nobody trains": (
        {"stage_one": None},
        r"stage_two\.frozen must be false without a stage one.*: set stage_two\.frozen=false",
    ),
    "one view for SimCLR": (
        {"stage_one": {"loss": {"name": "simclr"}, "views": ["supercon"]}},
        r"stage_one\.views must name at least 2 for the loss simclr, but got \['supercon'\]: ",
    ),
    "no view": ({"stage_one": {"views": []}}, r"stage_one\.views must name at least 1"),
    "an unknown view": (
        {"stage_one": {"views": ["none", "supercom"]}},
        r"stage_one\.views must be a known name, but got 'supercom'; did you mean supercon\?",
    ),
    "views that are no list": ({"stage_one": {"views": "none"}}, r"stage_one\.views must be a list"),
    "an unknown backbone": (
        {"model": {"backbone": "lcnet_05"}},
        r"model\.backbone must be a known name, but got 'lcnet_05'; did you mean lcnet_",
    ),
    "a rate of zero": (
        {"stage_one": {"optimizer": {"lr": 0}}},
        r"stage_one\.optimizer\.lr must be a number in \(0, 100\], but got 0: ",
    ),
    "an unknown optimizer": (
        {"stage_two": {"optimizer": {"name": "adam"}}},
        r"stage_two\.optimizer\.name must be a known name, but got 'adam'; did you mean adamw\?",
    ),
    "an unknown sampler": (
        {"stage_two": {"sampler": {"name": "balanced"}}},
        r"stage_two\.sampler must be a known name, .*did you mean class_balanced",
    ),
    "an unknown head": (
        {"stage_two": {"head": {"name": "linea"}}},
        r"stage_two\.head must be a known name, but got 'linea'; did you mean linear",
    ),
    "unknown test views": ({"test_views": "all"}, r"test_views must be a known name"),
    "a misspelt setting": (
        {"stage_one": {"epoch": 3}},
        r"stage_one\.epoch must be a known setting of StageOne, but is not; did you mean epochs\?",
    ),
    "code to import": ({"_target_": "os.system"}, "_target_ must be a known setting of Recipe"),
    "a stage that is no mapping": ({"stage_two": 3}, "stage_two must be a mapping of settings, but got 3: "),
    "an image that is too small": (
        {"image_size": 8},
        r"image_size must be a whole number in \[16, 4096\], but got 8: ",
    ),
    "a negative seed": ({"seed": -1}, "seed must be a whole number in"),
    "an average that never moves": ({"stage_one": {"ema": 1}}, r"stage_one\.ema must be a number in \[0, 1\), but got"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_cannot_be_right_is_refused_in_one_line_that_begins_with_the_path(case):
    plain, message = REFUSALS[case]
    with pytest.raises(ConfigError, match=f"^{message}") as caught:
        Recipe.from_plain(plain)
    assert "\n" not in str(caught.value)


def test_an_unknown_backbone_shows_the_nearest_names():
    with pytest.raises(ConfigError, match="did you mean resnet18"):
        Recipe.from_plain({"model": {"backbone": "resnet_18"}})


@pytest.mark.parametrize("name", EMBEDDING_LOSSES)
def test_every_loss_on_embeddings_can_be_that_of_stage_one(name):
    assert isinstance(StageOne.from_plain({"loss": {"name": name}}).loss, losses[name])
