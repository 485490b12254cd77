"""What a classifier looks at: Grad-CAM over all of its heads, encoders and views (Selvaraju et al. 2017)."""

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional

from raysk.data.views import TURNING_BACK
from raysk.inference.bundle import Bundle
from raysk.inference.network import BundleNetwork
from raysk.inference.turning import TURNS
from raysk.parts.encoder import Encoder
from raysk.parts.maps import check_has_maps, grid, last_maps, pooled


class AttentionMaps:
    """Makes the attention maps of a bundle.

    Args:
        bundle: Facts and weights.
        device: Where it runs.

    Raises:
        ArtifactError: The weights do not fit the networks that the facts name.
        ConfigError: An encoder has no maps, or maps of a single position.
    """

    def __init__(self, bundle: Bundle, device: torch.device) -> None:
        self.facts = bundle.facts
        self.network = BundleNetwork(bundle).to(device)
        for place, encoder in enumerate(self.facts.encoders):
            check_has_maps(self._encoder(place).backbone, encoder.image_size)

    def of(self, images: Mapping[int, Tensor], classes: Tensor) -> Tensor:
        """Returns the attention to a class in each image, (B, S, S) in [0, 1], at the largest of the sizes S.

        It is the weighted mean over heads and views of max(0, sum_k alpha_k A_k), each scaled by its greatest value and
        to the size of the image, and turned back; alpha_k is the mean gradient of the logit of the class over the
        positions of A_k.

        Args:
            images: (B, size, size, 3) uint8 for each of the sizes of the bundle.
            classes: (B,) the codes of the classes.
        """
        largest = max(images)
        total = torch.zeros(images[largest].shape[:3], device=classes.device)
        for place, encoder in enumerate(self.facts.encoders):
            heads = [number for number, head in enumerate(self.facts.heads) if head.encoder == place]
            for view in dict.fromkeys(view for number in heads for view in self.facts.heads[number].weights):
                weights = {number: self.facts.heads[number].weights.get(view, 0.0) for number in heads}
                maps = self._of_view(place, TURNS[view](images[encoder.image_size]).contiguous(), classes, weights)
                scaled = functional.interpolate(maps[:, None], size=largest, mode="bilinear", align_corners=False)
                total += TURNS[TURNING_BACK[view]](scaled[:, 0, :, :, None])[..., 0]
        return total

    def _of_view(self, place: int, images: Tensor, classes: Tensor, weights: Mapping[int, float]) -> Tensor:
        """Returns the weighted sum over heads of the maps of one encoder in one view, (B, h, w)."""
        encoder = self._encoder(place)
        backbone = encoder.backbone
        with torch.no_grad():
            last = last_maps(backbone, encoder.normalised(images))
        leaf = last.detach().requires_grad_()
        features = pooled(backbone, leaf)
        maps, total = grid(backbone, last), torch.zeros((), device=last.device)
        for number, weight in weights.items():
            logits = self.network.heads[number](features)
            score = logits.gather(1, classes[:, None]).sum()
            (gradient,) = torch.autograd.grad(score, leaf, retain_graph=True)
            alphas = grid(backbone, gradient).flatten(2).mean(dim=2)
            seen = torch.einsum("bkhw,bk->bhw", maps, alphas).relu()
            greatest = seen.amax(dim=(1, 2), keepdim=True)
            total = total + weight * seen / torch.where(greatest > 0, greatest, torch.ones_like(greatest))
        return total

    def _encoder(self, place: int) -> Encoder:
        return cast(Encoder, self.network.encoders[place])
