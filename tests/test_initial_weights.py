from dataclasses import replace

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import save_file

from raysk.config import Config
from raysk.data.folds.assignment import WHOLE
from raysk.data.folds.dividing import FoldSettings
from raysk.data.seen import Identities
from raysk.data.sources import DataSettings
from raysk.data.store.image_store import find_store
from raysk.errors import ConfigError
from raysk.initial_weights import PUBLISHED, check_networks, notes_on_weights, weights_digest
from raysk.loading import prepare_rows, read_rows
from raysk.model import Model
from raysk.parts.backbones import create_backbone
from raysk.parts.weights import SCHEMA, Origin, write_weights
from raysk.recipe import Recipe


@pytest.fixture(scope="module")
def backbone():
    torch.manual_seed(0)
    return create_backbone("test_resnet", False, None)


def encoder_file(path, backbone, seen, published=False):
    """Writes an encoder that has seen something."""
    origin = Origin(
        schema_version=SCHEMA, backbone="test_resnet", image_size=32, mean=backbone.mean, std=backbone.std, row="crt",
        recipe="abc", fold=-1, manifest="def", published=published, pictures=tuple(seen.pictures),
        groups=tuple(seen.groups),
    )  # fmt: skip
    write_weights(path, backbone.network.state_dict(), origin)
    return Model(checkpoint=str(path))


def probe(model, **more):
    stage_two = {"frozen": True}
    return Recipe.from_plain({"model": model.to_plain(), "stage_one": None, "stage_two": stage_two, **more})


def test_an_encoder_that_has_seen_scored_rows_is_refused_unless_the_user_says_so(tmp_path, backbone, manifest, folds):
    identities = Identities(manifest)
    model = encoder_file(tmp_path / "a.safetensors", backbone, identities.seen(folds.train_rows(WHOLE)))
    num_scored = int(np.sum(folds.fold >= -1))
    num_seen = len(folds.train_rows(WHOLE))
    has_seen = rf"has seen {num_seen} of {num_scored}"
    with pytest.raises(
        ConfigError, match=rf"a\.safetensors {has_seen}, or others .* or set model\.seen=true"
    ) as caught:
        notes_on_weights([model], manifest, folds)
    assert "\n" not in str(caught.value)
    told = replace(model, seen=True)
    assert notes_on_weights([told], manifest, folds) == {
        told.source: f"has seen {num_seen} of {num_scored} scored rows"
    }


def test_one_seen_row_is_enough_for_its_whole_group(tmp_path, backbone, manifest, folds):
    groups = manifest.groups.tolist()
    row = next(row for row in range(len(manifest)) if groups.count(groups[row]) == 2)
    model = encoder_file(tmp_path / "a.safetensors", backbone, Identities(manifest).seen(np.array([row])))
    with pytest.raises(ConfigError, match=r"has seen 2 of"):
        notes_on_weights([model], manifest, folds)


def test_an_encoder_that_has_seen_other_rows_has_no_note_and_a_foreign_file_is_published(
    tmp_path, backbone, manifest, folds
):
    unseen = Identities(manifest).seen(np.array([], dtype=int))
    own = encoder_file(tmp_path / "own.safetensors", backbone, unseen)
    from_published = encoder_file(tmp_path / "tuned.safetensors", backbone, unseen, published=True)
    save_file(backbone.network.state_dict(), tmp_path / "test_resnet.safetensors")
    foreign, fetched = Model(weights=str(tmp_path)), Model(backbone="test_vit", pretrained=True)
    models = [own, from_published, foreign, fetched, Model()]
    assert notes_on_weights(models, manifest, folds) == {
        from_published.source: PUBLISHED,
        foreign.source: PUBLISHED,
        "test_vit": PUBLISHED,
    }


def test_the_digest_follows_the_content_of_the_files(tmp_path, backbone):
    save_file(backbone.network.state_dict(), tmp_path / "test_resnet.safetensors")
    model = Model(weights=str(tmp_path))
    assert weights_digest([Model()]) is None
    before = weights_digest([model])
    save_file({name: tensor + 1 for name, tensor in backbone.network.state_dict().items()}, model.file)
    assert before != weights_digest([model])


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"weights": "{folder}", "backbone": "test_vit"}, r"test_vit\.safetensors is not a file"),
        ({"checkpoint": "{folder}/test_resnet.safetensors", "backbone": "test_vit"}, "those of test_vit, but .* lacks"),
        ({"weights": "{folder}", "pooling": "token"}, "without a class token, but got token for test_resnet"),
        ({"weights": "{folder}", "pooling": "avg", "layers": 50}, "at most the number of layers of test_resnet"),
    ],
)
def test_weights_and_pooling_that_do_not_fit_are_refused_before_the_start(tmp_path, backbone, model, message):
    save_file(backbone.network.state_dict(), tmp_path / "test_resnet.safetensors")
    given = {name: value.format(folder=tmp_path) if isinstance(value, str) else value for name, value in model.items()}
    with pytest.raises(ConfigError, match=message) as caught:
        check_networks([probe(Model(**given))])
    assert "\n" not in str(caught.value)


def test_paths_do_not_depend_on_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Model(checkpoint="a.safetensors").checkpoint == str(tmp_path / "a.safetensors")
    assert Model(weights="w").file == tmp_path / "w" / "test_resnet.safetensors"


def test_every_image_size_that_can_be_drawn_is_decoded_before_the_start(cache, manifest, small_recipe):
    data = DataSettings(source="csv", path=str(cache / "drawn" / "metadata.csv"), image="file", group="group")
    recipe = Recipe.from_plain(small_recipe())
    config = Config(data=data, folds=FoldSettings(k=2), recipe=recipe, cache=str(cache))
    smaller = replace(recipe, image_size=24)
    rows, _, facts = prepare_rows(
        read_rows(config, Console(quiet=True)), config, [recipe], Console(quiet=True), encoders=[smaller]
    )
    assert list(facts.images) == ["32", "24"]
    assert len(rows) == len(manifest)
    assert find_store(facts.images["24"], cache).pixels.shape[1] == 24
