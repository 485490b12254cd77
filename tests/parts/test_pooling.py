import pytest
import torch

from raysk.errors import ConfigError
from raysk.parts.backbones import create_backbone
from raysk.parts.pooling import Layer

IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def features(name, pooling, layers=1):
    torch.manual_seed(0)
    backbone = create_backbone(name, False, None, 64, pooling, layers).eval()
    with torch.no_grad():
        result = backbone(IMAGES)
    assert result.shape == (2, backbone.num_features)
    return result, backbone.network


def test_the_generalised_mean_is_that_of_the_formula():
    positions = torch.tensor([[[1.0, -2.0], [3.0, 0.5]]])
    first = ((1.0**3 + 3.0**3) / 2) ** (1 / 3)
    second = ((1e-6**3 + 0.5**3) / 2) ** (1 / 3)
    torch.testing.assert_close(Layer(positions, None).pooled("gem"), torch.tensor([[first, second]]))


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_byobnet"])
def test_the_mean_is_what_a_convolutional_network_pools_itself(name):
    torch.testing.assert_close(features(name, "avg")[0], features(name, "network")[0])


def test_maps_with_the_channels_last_are_pooled_over_their_positions():
    pooled, network = features("test_mambaout", "avg")
    with torch.no_grad():
        torch.testing.assert_close(pooled, network.forward_features(IMAGES).mean(dim=(1, 2)))


def test_a_transformer_has_a_token_beside_its_positions():
    token, network = features("test_vit", "token")
    with torch.no_grad():
        tokens = network.forward_features(IMAGES)
    torch.testing.assert_close(token, tokens[:, 0])
    torch.testing.assert_close(features("test_vit", "avg")[0], tokens[:, 1:].mean(dim=1))
    torch.testing.assert_close(features("test_vit", "both")[0], torch.cat([tokens[:, 0], tokens[:, 1:].mean(1)], 1))


@pytest.mark.parametrize(("name", "widths"), [("test_resnet", (96, 192, 48)), ("test_vit", (64, 64, 64))])
def test_the_last_layers_stand_side_by_side_the_last_one_first(name, widths):
    pooled, network = features(name, "avg", layers=3)
    assert pooled.shape[1] == sum(widths)
    torch.testing.assert_close(pooled[:, : widths[0]], features(name, "avg")[0])
    norm = {"norm": True} if name == "test_vit" else {}
    with torch.no_grad():
        maps = network.forward_intermediates(IMAGES, indices=3, intermediates_only=True, **norm)
    torch.testing.assert_close(pooled[:, widths[0] : widths[0] + widths[1]], maps[1].mean(dim=(2, 3)))
    torch.testing.assert_close(pooled[:, -widths[2] :], maps[0].mean(dim=(2, 3)))


@pytest.mark.parametrize(
    ("name", "pooling", "layers", "message"),
    [
        ("test_resnet", "token", 1, "without a class token, but got token for test_resnet: choose one"),
        ("test_resnet", "avg", 99, "at most the number of layers of test_resnet, but got 99: choose fewer"),
        ("test_resnet", "network", 2, "must be 1 with model.pooling=network, .*: set model.pooling=avg"),
    ],
)
def test_what_a_network_does_not_have_is_refused_in_one_line(name, pooling, layers, message):
    with pytest.raises(ConfigError, match=message) as caught:
        create_backbone(name, False, None, 64, pooling, layers)
    assert "\n" not in str(caught.value)


def test_a_network_that_gives_no_earlier_layers_is_refused_in_one_line(monkeypatch):
    network = create_backbone("test_resnet", False, None, 64).network
    monkeypatch.delattr(type(network), "forward_intermediates")
    with pytest.raises(ConfigError, match="must be 1 for test_resnet, whose earlier layers timm does not give"):
        create_backbone("test_resnet", False, None, 64, "avg", 2)


def test_weights_that_the_features_do_not_depend_on_are_frozen():
    network = create_backbone("mobilenetv3_small_050", False, None, 64, "avg").network
    frozen = {name for name, weight in network.named_parameters() if not weight.requires_grad}
    assert frozen == {"conv_head.weight", "conv_head.bias"}
    whole = create_backbone("test_resnet", False, None, 64, "gem", 2)
    assert all(weight.requires_grad for weight in whole.parameters())
    assert all(int(value) == 0 for name, value in whole.named_buffers() if name.endswith("num_batches_tracked"))
