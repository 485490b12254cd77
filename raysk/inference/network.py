"""The network of a bundle: all encoders, heads and views, from pixels to one probability per class."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from raysk.errors import ArtifactError, ConfigError, shown
from raysk.inference.bundle import Bundle, EncoderFacts
from raysk.inference.turning import TURNS
from raysk.parts.backbones import create_backbone
from raysk.parts.encoder import Encoder
from raysk.parts.heads import Head, heads
from raysk.settings import within

M = TypeVar("M", bound=nn.Module)


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
        tensors = _by_module(bundle)
        try:
            encoders = [
                _built(partial(_encoder, encoder), tensors[f"encoders/{place}"], f"encoders/{place}")
                for place, encoder in enumerate(facts.encoders)
            ]
            built = [
                _built(
                    partial(_head(head.settings).build, encoders[head.encoder].num_features, len(facts.class_names)),
                    tensors[f"heads/{place}"],
                    f"heads/{place}",
                )
                for place, head in enumerate(facts.heads)
            ]
        except ConfigError as error:
            raise ArtifactError(f"a bundle must name parts of this raysk, but {shown(error)}") from error
        self.encoders, self.heads = nn.ModuleList(encoders), nn.ModuleList(built)
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
            features: Tensor = self.encoders[place](turned)
            yield features

    def _of_head(self, number: int, features: Tensor) -> Tensor:
        logits = self.heads[number](features).to(self.shifts.dtype) - self.shifts[number]
        # The run keeps single precision, and the bundle predicts what the run did.
        return logits.softmax(dim=1).float().to(self.shifts.dtype)


def _encoder(facts: EncoderFacts) -> Encoder:
    encoder = Encoder(
        create_backbone(facts.backbone, False, None, facts.image_size, facts.pooling, facts.layers, facts.output_stride)
    )
    # A later timm may normalise otherwise; the weights expect what they were trained with.
    encoder.mean = torch.tensor(facts.mean).view(1, 3, 1, 1)
    encoder.std = torch.tensor(facts.std).view(1, 3, 1, 1)
    return encoder


def _head(settings: Mapping[str, object]) -> Head:
    kind = heads[str(settings.get("name"))]
    return within("head", kind, {name: value for name, value in settings.items() if name != "name"})


def _by_module(bundle: Bundle) -> dict[str, dict[str, Tensor]]:
    """Returns the tensors of each encoder and head.

    Raises:
        ArtifactError: A tensor belongs to none.
    """
    facts = bundle.facts
    names = [f"encoders/{place}" for place in range(len(facts.encoders))]
    names += [f"heads/{place}" for place in range(len(facts.heads))]
    modules: dict[str, dict[str, Tensor]] = {name: {} for name in names}
    for name, tensor in bundle.tensors.items():
        kind, _, rest = name.partition("/")
        place, _, inside = rest.partition("/")
        if f"{kind}/{place}" not in modules:
            raise ArtifactError(
                f"a tensor of a bundle must belong to an encoder or a head, but got {shown(name, 100)}: make the "
                "bundle again"
            )
        modules[f"{kind}/{place}"][inside] = tensor
    return modules


def _built(build: Callable[[], M], tensors: Mapping[str, Tensor], name: str) -> M:
    """Builds a module with these weights. Facts that name a larger one than the weights fill take no memory.

    Raises:
        ArtifactError: The weights are not those of the module, or not finite.
    """
    with torch.device("meta"):
        expected = build().state_dict()
    wrong = [key for key in {**expected, **tensors} if _kind(expected, key) != _kind(tensors, key)]
    if wrong:
        raise ArtifactError(
            f"{name} of a bundle must fit its network, but {shown(wrong[0], 100)} must be "
            f"{_kind(expected, wrong[0])} and is {_kind(tensors, wrong[0])}: make the bundle again"
        )
    if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
        raise ArtifactError(f"{name} of a bundle must have finite weights, but has others: make the bundle again")
    module = build()
    module.load_state_dict(dict(tensors))
    return module


def _kind(tensors: Mapping[str, Tensor], name: str) -> str:
    """Returns the type and shape of a tensor, as text."""
    return f"{tensors[name].dtype} {tuple(tensors[name].shape)}" if name in tensors else "absent"
