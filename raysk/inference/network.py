"""The network of a bundle: all encoders, heads and views, from pixels to one probability per class."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from raysk.errors import ArtifactError, ConfigError, in_one_line
from raysk.inference.bundle import Bundle, EncoderFacts
from raysk.inference.turning import TURNS
from raysk.parts.backbones import create_backbone
from raysk.parts.encoder import Encoder
from raysk.parts.heads import Head, heads
from raysk.settings import within
from raysk.training.checkpoints import unpack
from raysk.training.precision import autocast


class Output(NamedTuple):
    """The prediction of images.

    Attributes:
        probabilities: (B, C) float64, the weighted mean over heads and views.
        votes: (B, C) float64, the weight of the heads and views whose most probable class this is.
    """

    probabilities: Tensor
    votes: Tensor


class BundleNetwork(nn.Module):
    """The weighted mean of all heads and views of a bundle. Each encoder sees each view of an image once.

    The mean is computed in double precision, and in that of `to` or `float` after their call.

    Args:
        bundle: Facts and weights.

    Raises:
        ArtifactError: The weights do not fit the networks that the facts name.
    """

    shifts: Tensor

    def __init__(self, bundle: Bundle) -> None:
        super().__init__()
        facts = bundle.facts
        try:
            encoders = [_encoder(encoder) for encoder in facts.encoders]
            built = [
                _head(head.settings).build(encoders[head.encoder].num_features, len(facts.class_names))
                for head in facts.heads
            ]
        except ConfigError as error:
            raise ArtifactError(f"a bundle must name parts of this raysk, but {error}") from error
        self.encoders, self.heads = nn.ModuleList(encoders), nn.ModuleList(built)
        for kind, modules in (("encoders", self.encoders), ("heads", self.heads)):
            for place, module in enumerate(modules):
                _load(module, unpack(f"{kind}/{place}", bundle.tensors), f"{kind}/{place}")
        self.facts = facts
        shifts = torch.tensor([head.shift for head in facts.heads], dtype=torch.float64)
        self.register_buffer("shifts", shifts, persistent=False)
        self.eval()

    def forward(self, images: Mapping[int, Tensor]) -> Output:
        """Predicts images.

        Args:
            images: (B, size, size, 3) uint8 for each of `facts.image_sizes`.
        """
        first = next(iter(images.values()))
        # Not len(): a traced graph would keep the number of its first images.
        shape = (first.shape[0], len(self.facts.class_names))
        probabilities = first.new_zeros(shape, dtype=self.shifts.dtype)
        votes = torch.zeros_like(probabilities)
        for place, encoder in enumerate(self.facts.encoders):
            on_encoder = [number for number, head in enumerate(self.facts.heads) if head.encoder == place]
            views = list(dict.fromkeys(view for number in on_encoder for view in self.facts.heads[number].weights))
            for view, features in zip(views, self._features(place, images[encoder.image_size], views), strict=True):
                for number in on_encoder:
                    weight = self.facts.heads[number].weights.get(view)
                    if weight is not None:
                        of_head = self._of_head(number, features)
                        probabilities = probabilities + weight * of_head
                        votes = votes + weight * nn.functional.one_hot(of_head.argmax(dim=1), shape[1])
        return Output(probabilities, votes)

    def _features(self, place: int, images: Tensor, views: Sequence[str]) -> Iterable[Tensor]:
        """Yields the features (B, D) of images in each view, one after the other, to save memory."""
        for view in views:
            turned = TURNS[view](images).contiguous()
            with autocast(turned.device):
                features: Tensor = self.encoders[place](turned).float()
            yield features

    def _of_head(self, number: int, features: Tensor) -> Tensor:
        logits = self.heads[number](features).to(self.shifts.dtype) - self.shifts[number]
        # The run keeps single precision, and the bundle predicts what the run did.
        return logits.softmax(dim=1).float().to(self.shifts.dtype)


def _encoder(facts: EncoderFacts) -> Encoder:
    encoder = Encoder(create_backbone(facts.backbone, False, None, facts.image_size, facts.pooling))
    # A later timm may normalise otherwise; the weights expect what they were trained with.
    encoder.mean = torch.tensor(facts.mean).view(1, 3, 1, 1)
    encoder.std = torch.tensor(facts.std).view(1, 3, 1, 1)
    return encoder


def _head(settings: Mapping[str, object]) -> Head:
    kind = heads[str(settings.get("name"))]
    return within("head", kind, {name: value for name, value in settings.items() if name != "name"})


def _load(module: nn.Module, tensors: Mapping[str, Tensor], name: str) -> None:
    try:
        module.load_state_dict(dict(tensors))
    except RuntimeError as error:
        raise ArtifactError(
            f"{name} of a bundle must fit its network, but {in_one_line(error)[:200]}: make the bundle again"
        ) from error
