"""Recipes that are refused: invalid settings, and rows that a recipe cannot train on."""

import numpy as np
import pytest

from raysk.errors import ConfigError
from raysk.parts.samplers import samplers
from raysk.recipe import Recipe
from raysk.run_checks import check_recipe

REFUSALS = {
    "a loss on logits in stage one": (
        {"stage_one": {"loss": {"name": "focal"}}},
        r"stage_one\.loss must be one of batch_hard, .*supcon.*, but got 'focal': ",
    ),
    "a loss on embeddings in stage two": (
        {"stage_two": {"loss": {"name": "supcon"}}},
        r"stage_two\.loss must be one of balanced_softmax, .* but got 'supcon': ",
    ),
    "an unknown loss": (
        {"stage_one": {"loss": {"name": "supcom"}}},
        r"stage_one\.loss must be a known name, but got 'supcom'; did you mean supcon ",
    ),
    "a loss without a name": ({"stage_one": {"loss": {"temperature": 1}}}, r"stage_one\.loss must have a name"),
    "a loss that is no mapping": ({"stage_one": {"loss": "supcon"}}, r"stage_one\.loss must have a name"),
    "a setting of another loss": (
        {"stage_two": {"loss": {"name": "focal", "temperature": 1}}},
        r"stage_two\.loss\.temperature must be a known setting of Focal, .*known here: .*gamma",
    ),
    "a rate of the head with a frozen encoder": (
        {"stage_two": {"optimizer": {"head_factor": 10}}},
        r"stage_two\.optimizer\.head_factor must be 1 with a frozen encoder, .* but got 10: set optimizer\.lr",
    ),
    "rates by layer with a frozen encoder": (
        {"stage_two": {"optimizer": {"layer_decay": 0.5}}},
        r"stage_two\.optimizer\.layer_decay must be 1 with a frozen encoder, .* but got 0.5: ",
    ),
    "an alpha of one": (
        {"stage_two": {"loss": {"name": "focal", "alpha": 1}}},
        r"stage_two\.loss\.alpha must be a number in",
    ),
    "a negative class weight": (
        {"stage_one": {"classifier_loss": {"name": "balanced_softmax", "weights": [1, -1]}}},
        r"stage_one\.classifier_loss\.weights must be a number in \(0, 1e\+09\], but got -1: ",
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
        r"model must have trained weights for a frozen encoder without a stage one.*: set model\.checkpoint=FILE.*"
        r"or set stage_two\.frozen=false",
    ),
    "one view for SimCLR": (
        {"stage_one": {"loss": {"name": "simclr"}, "views": ["supercon"]}},
        r"stage_one\.views must name at least 2 for the loss simclr, but got \['supercon'\]: ",
    ),
    "one copy of one view for a loss that needs two": (
        {"stage_one": {"loss": {"name": "gravis"}, "views": ["gravis"], "copies": 1}},
        r"stage_one\.views must name at least 2 for the loss gravis, but got \['gravis'\]: add a view",
    ),
    "no copy": ({"stage_one": {"copies": 0}}, r"stage_one\.copies must be a whole number in \[1, 20\], but got 0"),
    "embeddings of any length for a loss of distances": (
        {"stage_one": {"loss": {"name": "batch_hard"}, "normalise": False}},
        r"stage_one\.normalise must be true for the loss batch_hard, but got false: leave it out, or choose gravis",
    ),
    "embeddings of any length without a loss on them": (
        {"stage_one": {"loss": None, "classifier_loss": {"name": "focal"}, "normalise": False}},
        r"stage_one\.normalise must be true for a training, but got false",
    ),
    "epochs of the head with a frozen encoder": (
        {"stage_two": {"head_epochs": 1}},
        r"stage_two\.head_epochs must be 0 with frozen=true, but got 1: ",
    ),
    "epochs of the head alone": (
        {"stage_two": {"frozen": False, "epochs": 3, "head_epochs": 3}},
        r"stage_two\.head_epochs must be less than epochs 3, but got 3: ",
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
    "a focus below zero": (
        {"stage_two": {"loss": {"name": "focal", "gamma": -0.5}}},
        r"stage_two\.loss\.gamma must be a number in \[0, 20\], but got -0\.5: ",
    ),
    "a temperature below zero": (
        {"stage_one": {"loss": {"name": "bcl", "temperature": -0.1}}},
        r"stage_one\.loss\.temperature must be a number in .*, but got -0\.1: ",
    ),
    "an effective number of all rows": (
        {"stage_two": {"loss": {"name": "class_balanced", "beta": 1.0}}},
        r"stage_two\.loss\.beta must be a number in \[0, 1\), but got 1\.0: ",
    ),
    "a loss on embeddings beside": (
        {"stage_one": {"classifier_loss": {"name": "supcon"}}},
        r"stage_one\.classifier_loss must be one of balanced_softmax, .* but got 'supcon': ",
    ),
    "two losses that are not there": (
        {"stage_one": {"loss": None, "classifier_loss": None}},
        r"stage_one\.loss must be given if classifier_loss is null, but both are null: give one",
    ),
    "no view for a classifier": (
        {"stage_one": {"loss": None, "classifier_loss": {"name": "focal"}, "views": []}},
        r"stage_one\.views must name at least 1 for a training, but got \[\]: add a view",
    ),
    "a weight of nothing": (
        {"stage_one": {"loss_weight": 0}},
        r"stage_one\.loss_weight must be a number in \(0, 1000\], but got 0: ",
    ),
    "patience below zero": ({"stage_one": {"patience": -1}}, r"stage_one\.patience must be a whole number in \[0, "),
    "margins on a linear head": (
        {"stage_two": {"loss": {"name": "ldam"}}},
        r"stage_two\.head must be cosine with the scale 30 for the loss ldam, but got linear: set head\.name=cosine",
    ),
    "margins of another scale": (
        {"stage_two": {"loss": {"name": "ldam", "scale": 20}, "head": {"name": "cosine"}}},
        r"stage_two\.head must be cosine with the scale 20 for the loss ldam, but got cosine: .* head\.scale=20",
    ),
    "class means end to end": (
        {"stage_two": {"frozen": False, "head": {"name": "ncm"}}},
        r"stage_two\.head must be trainable with frozen=false, but got ncm: choose linear or cosine",
    ),
    "a scaled classifier end to end": (
        {"stage_one": None, "stage_two": {"frozen": False, "head": {"name": "lws"}}},
        r"stage_two\.head must be trainable with frozen=false, but got lws: choose linear or cosine",
    ),
    "mixed features": (
        {"stage_two": {"mixing": {"name": "mixup"}}},
        r"stage_two\.mixing must be none with a frozen encoder, .*, but got mixup: set frozen=false",
    ),
    "mixed images for a loss on embeddings": (
        {"stage_one": {"mixing": {"name": "mixup"}, "classifier_loss": {"name": "cross_entropy"}}},
        r"stage_one\.mixing must be none with a loss on embeddings, .*, but got mixup: set loss=null",
    ),
    "shifted batch norm of an encoder that is trained": (
        {"stage_two": {"frozen": False, "shift_batch_norm": True}},
        r"stage_two\.shift_batch_norm must be false with frozen=false, .*, but got true: set frozen=true",
    ),
    "shifted batch norm without training": (
        {"stage_two": {"shift_batch_norm": True, "head": {"name": "tau_norm"}}},
        r"stage_two\.head must be trained with shift_batch_norm=true, but got tau_norm: choose lws or linear",
    ),
    "shifted batch norm that is no switch": (
        {"stage_two": {"shift_batch_norm": "some"}},
        r"stage_two\.shift_batch_norm must be true or false, but got 'some'",
    ),
    "shifted batch norm without a stage one": (
        {"stage_one": None, "stage_two": {"shift_batch_norm": True}},
        r"model must have trained weights for a frozen encoder without a stage one",
    ),
    "an unknown mixing": (
        {"stage_two": {"mixing": {"name": "cutmixx"}}},
        r"stage_two\.mixing must be a known name, but got 'cutmixx'; did you mean cutmix",
    ),
    "an adjustment below zero": (
        {"stage_two": {"adjustment": -1}},
        r"stage_two\.adjustment must be a number in \[0, 10\], but got -1: ",
    ),
    "two sources of weights": (
        {"model": {"checkpoint": "a.safetensors", "weights": "folder"}},
        r"model\.weights must be null with a checkpoint, .*: give one",
    ),
    "a crop where boxes guide": (
        {"crop": {"region": "mask"}, "stage_two": {"frozen": False, "attention": {"name": "care"}}},
        r"crop\.region must be none where masks or boxes guide the attention, but got mask: choose one",
    ),
    "attention of a frozen encoder": (
        {"stage_two": {"attention": {"name": "care"}}},
        r"stage_two.attention must be none with a frozen encoder, but got care: set frozen=false",
    ),
    "attention of mixed images": (
        {"stage_two": {"frozen": False, "attention": {"name": "care"}, "mixing": {"name": "mixup"}}},
        r"stage_two.attention must be none with mixing mixup, whose images have two lesions, but got care: set mix",
    ),
    "layers that the network pools": (
        {"model": {"layers": 2}},
        r"model\.layers must be 1 with pooling=network, .*: set model\.pooling=avg",
    ),
    "half a pooling": ({"model": {"pooling": "max"}}, r"model\.pooling must be a known name, but got 'max'"),
    "an average that never moves": ({"stage_one": {"ema": 1}}, r"stage_one\.ema must be a number in \[0, 1\), but got"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_an_invalid_setting_is_refused_in_one_line_that_starts_with_its_path(case):
    plain, message = REFUSALS[case]
    with pytest.raises(ConfigError, match=f"^{message}") as caught:
        Recipe.from_plain(plain)
    assert "\n" not in str(caught.value)


def test_an_unknown_backbone_shows_the_nearest_names():
    with pytest.raises(ConfigError, match="did you mean resnet18"):
        Recipe.from_plain({"model": {"backbone": "resnet_18"}})


# Rows that a recipe cannot train on.


def per_class(stage: str, batch_size: int, **settings: int) -> Recipe:
    sampler = {"name": "per_class", **settings}
    return Recipe.from_plain({stage: {"batch_size": batch_size, "sampler": sampler}})


@pytest.mark.parametrize("stage", ["stage_one", "stage_two"])
def test_blocks_that_do_not_fill_batches_are_refused(stage):
    counts = np.array([60, 30, 10])
    with pytest.raises(ConfigError) as caught:
        per_class(stage, 24, classes=3, images=4).check_rows(counts)
    message = str(caught.value)
    assert message.startswith(f"{stage}.sampler.classes must be such that classes x images is the batch size 24, ")
    assert "but got 3 x 4 = 12: set batch_size=12" in message
    per_class(stage, 12, classes=3, images=4).check_rows(counts)


def test_blocks_with_more_classes_than_exist_are_refused():
    with pytest.raises(ConfigError, match=r"^stage_one\.sampler\.classes must be at most the 3 classes .*got 4 x 4: "):
        per_class("stage_one", 16, classes=4, images=4).check_rows(np.array([60, 30, 10]))


@pytest.mark.parametrize("node", ["stage_one.classifier_loss", "stage_two.loss"])
def test_class_weights_that_do_not_fit_the_classes_are_refused(node):
    stage, name = node.split(".")
    recipe = Recipe.from_plain({stage: {name: {"name": "cross_entropy", "weights": [1, 2]}}})
    with pytest.raises(ConfigError, match=rf"^{node}\.weights must be .* each of the 3 classes, but got 2: "):
        recipe.check_rows(np.array([60, 30, 10]))
    recipe.check_rows(np.array([60, 30]))


@pytest.mark.parametrize("sampler", list(samplers))
def test_a_class_without_training_rows_is_refused_by_every_sampler(sampler):
    recipe = Recipe.from_plain({"stage_two": {"sampler": {"name": sampler}}})
    with pytest.raises(ConfigError, match=r"sampler\.name .* must find training rows of every class") as caught:
        recipe.check_rows(np.array([60, 0, 40]))
    assert "but classes [1] have none: use fewer folds" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_recipe_is_checked_on_the_training_rows_of_every_fold(manifest, folds):
    check_recipe(per_class("stage_one", 14, classes=7, images=2), manifest, folds)
    with pytest.raises(ConfigError, match=r"^stage_two\.sampler\.classes must be such"):
        check_recipe(per_class("stage_two", 28, classes=7, images=2), manifest, folds)
