"""The decoder on every kind of backbone."""

import pytest
import torch
from torch import nn

from raysk.errors import ConfigError
from raysk.parts.backbones import Backbone, create_backbone
from raysk.parts.decoder import decoder_for, maps_of

# A residual network, a dilated one, ConvNeXt, a mobile network with layers after its maps, VGG, and a transformer.
NETWORKS = {
    "test_resnet": {},
    "test_byobnet": {},
    "test_convnext": {},
    "test_efficientnet": {"output_stride": 16},
    "mobilenetv3_small_050": {},
    "vgg11": {},
    "test_vit": {},
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("size", [32, 48])
def test_each_pixel_has_a_logit_that_depends_on_all_maps(name, size):
    torch.manual_seed(0)
    backbone = create_backbone(name, False, None, size, **NETWORKS[name]).eval()
    decoder = decoder_for(backbone, size, 16)
    images = torch.randn(2, 3, size, size)
    maps = maps_of(backbone, images)
    heights = [each.shape[2] for each in maps]
    assert heights == sorted(set(heights))
    maps = [each.detach().requires_grad_() for each in maps]
    logits = decoder(maps)
    assert logits.shape == (2, size, size)
    logits.square().sum().backward()
    for values in [*maps, *decoder.parameters()]:
        assert values.grad.abs().max() > 0
    torch.testing.assert_close(decoder([each[:1] for each in maps]), logits[:1])


def test_a_level_is_at_most_twice_the_one_below_and_the_last_has_half_of_the_image():
    backbone = create_backbone("test_vit", False, None, 64)
    sizes = decoder_for(backbone, 64, 16).sizes
    assert sizes == (8, 16, 32)
    assert backbone.training


def test_a_network_without_maps_is_refused():
    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 3)

    backbone = create_backbone("test_resnet", False, None)
    backbone.network = Flat()
    assert isinstance(backbone, Backbone)
    with pytest.raises(ConfigError, match="must give its maps to a decoder, but test_resnet does not"):
        decoder_for(backbone, 32, 16)
