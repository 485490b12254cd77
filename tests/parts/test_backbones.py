import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from raysk.errors import ConfigError
from raysk.parts.backbones import check_backbone, create_backbone


@pytest.mark.parametrize(
    ("name", "image_size"),
    [
        ("test_resnet", 64),
        ("mobilenetv3_small_050", 64),  # its num_features in timm is not the width of its output
        ("test_vit", 48),  # built for 160 pixels
        ("vgg11", 32),
    ],
)
def test_the_width_is_that_of_the_features(name, image_size):
    backbone = create_backbone(name, pretrained=False, checkpoint=None, image_size=image_size).eval()
    with torch.no_grad():
        features = backbone(torch.zeros(2, 3, image_size, image_size))
    assert features.shape == (2, backbone.num_features)
    assert len(backbone.mean) == len(backbone.std) == 3


@pytest.mark.parametrize(
    ("name", "image_size"),
    [
        ("test_resnet", 64),
        ("test_resnet", 96),
        ("mobilenetv3_small_050", 64),
        ("test_mambaout", 64),
    ],  # the last is NHWC
)
def test_without_pooling_every_position_of_the_maps_is_kept(name, image_size):
    torch.manual_seed(0)
    whole = create_backbone(name, False, None, image_size, pooling="none")
    assert whole.training and all(module.training for module in whole.modules())
    pooled = create_backbone(name, False, None, image_size)
    pooled.load_state_dict(whole.state_dict())
    for key, value in pooled.named_buffers():
        if key.endswith("num_batches_tracked"):
            assert value == 0  # measuring the width has not trained the batch norms
    images = torch.randn(2, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features = whole.eval()(images)
    assert features.shape == (2, whole.num_features)
    assert whole.num_features == pooled.num_features * (image_size // 32) ** 2


def test_the_mean_of_the_maps_equals_the_pooled_features():
    torch.manual_seed(0)
    whole = create_backbone("test_resnet", False, None, 96, pooling="none").eval()
    pooled = create_backbone("test_resnet", False, None, 96).eval()
    pooled.load_state_dict(whole.state_dict())
    images = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        maps = whole(images).view(2, pooled.num_features, 9)
        torch.testing.assert_close(maps.mean(dim=2), pooled(images))


@pytest.mark.parametrize(
    "name",
    [
        "test_vit",  # gives tokens
        "inception_next_atto",  # timm refuses
    ],
)
def test_a_network_without_maps_is_refused_without_pooling(name):
    with pytest.raises(ConfigError, match=f"^model.pooling must be avg .* none for {name} .*: set model.pooling=avg"):
        create_backbone(name, pretrained=False, checkpoint=None, image_size=64, pooling="none")


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(ConfigError, match=r"'resnet81'; did you mean resnet18"):
        check_backbone("resnet81")
    with pytest.raises(ConfigError, match=r"weights of resnet18 .* 'a9_in1k'; did you mean .*a1_in1k"):
        create_backbone("resnet18.a9_in1k", pretrained=False, checkpoint=None)
    check_backbone("resnet18.a1_in1k")


def test_pretrained_is_refused_without_published_weights():
    with pytest.raises(ConfigError, match=r"none for lcnet_035: set model.pretrained=false"):
        create_backbone("lcnet_035", pretrained=True, checkpoint=None)


def test_a_checkpoint_fills_the_network_and_its_classifier_is_left_out(tmp_path):
    source = create_backbone("test_resnet", pretrained=False, checkpoint=None)
    width = source.num_features
    weights = {**source.network.state_dict(), "fc.weight": torch.ones(3, width), "fc.bias": torch.ones(3)}
    path = tmp_path / "weights.safetensors"
    save_file(weights, path)
    # pretrained requests a fetch, which the file makes unnecessary.
    filled = create_backbone("test_resnet", pretrained=True, checkpoint=str(path))
    for key, value in source.state_dict().items():
        assert torch.equal(filled.state_dict()[key], value), key


def without_a_tensor(weights):
    return {key: value for key, value in weights.items() if key != "conv1.0.weight"}


def with_another_tensor(weights):
    return {**weights, "extra.weight": torch.ones(1)}


def with_another_shape(weights):
    return {**weights, "conv1.0.weight": torch.ones(1, 1, 1, 1)}


def with_a_weight_that_is_no_number(weights):
    return {**weights, "conv1.0.weight": weights["conv1.0.weight"] * float("nan")}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_a_weight_that_is_no_number, "has weights that are not finite"),
        (without_a_tensor, "lacks conv1.0.weight"),
        (with_another_tensor, "also has extra.weight"),
        (with_another_shape, "size mismatch for conv1.0.weight"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path, change, message):
    weights = create_backbone("test_resnet", pretrained=False, checkpoint=None).network.state_dict()
    assert "conv1.0.weight" in weights
    save_file(change(weights), tmp_path / "weights.safetensors")
    with pytest.raises(ConfigError, match=f"a file of weights must hold those of test_resnet.*{message}"):
        create_backbone("test_resnet", pretrained=False, checkpoint=str(tmp_path / "weights.safetensors"))


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors", "missing.pth"])
def test_a_broken_or_missing_checkpoint_is_refused_in_one_line(tmp_path, name):
    if not name.startswith("missing"):
        (tmp_path / name).write_bytes(b"not weights")
    with pytest.raises(ConfigError, match=name) as caught:
        create_backbone("test_resnet", pretrained=False, checkpoint=str(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_a_pickle_is_refused_unread(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (Path(tmp_path / "exploded").touch, ())

    torch.save({"conv1.0.weight": Bomb()}, tmp_path / "weights.pth")
    with pytest.raises(ConfigError, match=r"save it as \.safetensors"):
        create_backbone("test_resnet", pretrained=False, checkpoint=str(tmp_path / "weights.pth"))
    assert not (tmp_path / "exploded").exists()


def test_a_failed_fetch_names_both_remedies(tmp_path):
    program = (
        "from raysk.errors import TrainingError\n"
        "from raysk.parts.backbones import create_backbone\n"
        "try:\n"
        "    create_backbone('resnet18', pretrained=True, checkpoint=None)\n"
        "except TrainingError as error:\n"
        "    print(error)\n"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    ran = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert ran.stdout.startswith("the weights of resnet18 must be fetched once, but that failed (")
    assert "model.pretrained=false" in ran.stdout
    assert "model.checkpoint=FILE" in ran.stdout
    assert ran.stdout.count("\n") == 1


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_convnext"])
@pytest.mark.parametrize("stride", [8, 16, 32])
def test_the_last_maps_have_the_stride_and_the_weights_fit_any(name, stride):
    usual = create_backbone(name, False, None, 64)
    dilated = create_backbone(name, False, None, 64, output_stride=stride).eval()
    dilated.load_state_dict(usual.state_dict())
    with torch.no_grad():
        maps = dilated.network.forward_features(torch.zeros(2, 3, 64, 64))
        features = dilated(torch.zeros(2, 3, 64, 64))
    assert maps.shape[2:] == (64 // stride, 64 // stride)
    assert features.shape == (2, usual.num_features)


@pytest.mark.parametrize("name", ["test_vit", "vgg11", "lcnet_050"])
def test_a_network_that_timm_cannot_dilate_is_refused(name):
    message = f"model.output_stride must be 32 for {name}, which timm cannot dilate, but got 8: set it to 32"
    with pytest.raises(ConfigError, match=message):
        create_backbone(name, False, None, 64, output_stride=8)
