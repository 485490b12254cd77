import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from raysk.errors import ConfigError
from raysk.parts.backbones import create_backbone
from raysk.parts.weights import SCHEMA, Origin, read_weights, write_weights

ORIGIN = Origin(
    schema_version=SCHEMA, backbone="test_resnet", image_size=32, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225),
    row="crt", recipe="abc", fold=-1, manifest="def", published=False, pictures=("aa", "bb"), groups=("cc",),
)  # fmt: skip


@pytest.fixture(scope="module")
def tensors():
    torch.manual_seed(3)
    return create_backbone("test_resnet", False, None).network.state_dict()


@pytest.fixture
def file(tmp_path, tensors):
    path = tmp_path / "encoder.safetensors"
    write_weights(path, tensors, replace(ORIGIN, mean=normalising()[0], std=normalising()[1]))
    return path


def normalising():
    backbone = create_backbone("test_resnet", False, None)
    return backbone.mean, backbone.std


def rewritten(path, change, tensors=None):
    """Writes the file again, with another header."""
    header = json.loads(path.read_bytes()[8 : 8 + int.from_bytes(path.read_bytes()[:8], "little")])
    text = change(header["__metadata__"]["raysk_encoder"])
    save_file(tensors or load_file(path), path, {"raysk_encoder": text})


def test_weights_and_origin_come_back_and_fill_the_network(file, tensors):
    weights = read_weights(file)
    assert (weights.origin.pictures, weights.origin.groups, weights.origin.row) == (("aa", "bb"), ("cc",), "crt")
    filled = create_backbone("test_resnet", False, file).network.state_dict()
    assert all(torch.equal(filled[name], tensor) for name, tensor in tensors.items())


def test_a_file_that_raysk_did_not_write_has_no_origin(tmp_path, tensors):
    save_file(tensors, tmp_path / "foreign.safetensors", {"format": "pt"})
    assert read_weights(tmp_path / "foreign.safetensors").origin is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: "{", "its header is broken"),
        (lambda text: "[]", "its header is broken"),
        (lambda text: "null", "its header is broken"),
        (lambda text: "{}", "its header is broken"),
        (lambda text: "[" * 100_000, "its header is broken"),
        (lambda text: text.replace('"schema_version": 1', '"schema_version": 9'), "has schema 9: write it again"),
        (lambda text: text.replace('"fold": -1', '"fold": "x"'), "its header is broken"),
        (lambda text: text.replace('"aa", ', ""), "its header or its weights were changed: write it again"),
        (lambda text: text.replace("test_resnet", "test_vit"), "its header or its weights were changed"),
        (lambda text: text.replace('"std": [', '"std": [-'), "its header is broken"),
    ],
)
def test_a_header_that_is_broken_or_lies_is_refused_in_one_line(file, change, message):
    rewritten(file, change)
    with pytest.raises(ConfigError, match=message) as caught:
        read_weights(file)
    assert "\n" not in str(caught.value)


def test_a_changed_weight_is_found(file, tensors):
    changed = {name: tensor.clone() for name, tensor in tensors.items()}
    changed["conv1.0.weight"][0] += 1e-3
    rewritten(file, lambda text: text, changed)
    with pytest.raises(ConfigError, match="its header or its weights were changed"):
        read_weights(file)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"backbone": "test_vit"}, "must be that of the weights, but got test_resnet .* set model.backbone=test_vit"),
        ({"mean": (0.1, 0.1, 0.1)}, "must be that of the weights, but got test_resnet"),
    ],
)
def test_the_encoder_of_another_network_is_refused_and_named(tmp_path, tensors, header, message):
    write_weights(tmp_path / "other.safetensors", tensors, replace(ORIGIN, **header))
    with pytest.raises(ConfigError, match=message):
        create_backbone("test_resnet", False, tmp_path / "other.safetensors")


def test_a_file_inside_a_run_is_refused(tmp_path, tensors):
    save_file(tensors, tmp_path / "fold0.safetensors", {"raysk": "{}"})
    with pytest.raises(ConfigError, match="is a file inside a run: write one with raysk encoder"):
        read_weights(tmp_path / "fold0.safetensors")


def test_the_positions_of_a_transformer_follow_the_image_size(tmp_path):
    torch.manual_seed(0)
    small = create_backbone("test_vit", False, None, 48)
    save_file(small.network.state_dict(), tmp_path / "vit.safetensors")
    large = create_backbone("test_vit", False, tmp_path / "vit.safetensors", 96)
    assert large.network.pos_embed.shape[1] > small.network.pos_embed.shape[1]
    assert torch.equal(large.network.patch_embed.proj.weight, small.network.patch_embed.proj.weight)
    same = create_backbone("test_vit", False, tmp_path / "vit.safetensors", 48)
    assert torch.equal(same.network.pos_embed, small.network.pos_embed)
