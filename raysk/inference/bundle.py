"""A bundle: a trained classifier with all that a run knows of it, as one value and as one file.

A file `NAME.raysk` is a safetensors file. Its header holds the facts as JSON, the model card and a digest of the whole
file, so that one changed byte is found. Reading it runs no code and opens no other file.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, FiniteFloat
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from raysk.artifacts import replacing
from raysk.errors import ArtifactError, shown
from raysk.evaluation.operating_points import OperatingPoint
from raysk.inference.seal import not_a_bundle, open_seal, seal, strict_json
from raysk.inference.turning import TURNS
from raysk.parts.pooling import Pooling
from raysk.records import Record

# Raise it when a bundle means something else.
SCHEMA = 3

_Positive = Annotated[FiniteFloat, Field(gt=0)]


@dataclass(frozen=True, kw_only=True)
class EncoderFacts(Record):
    """The network of an encoder, whose tensors are named "encoders/<place>/...".

    Args:
        backbone: Its timm name.
        pooling: How it pools its last layers.
        layers: Number of last layers whose pooled features are concatenated.
        output_stride: Pixels of the image per position of its last maps.
        image_size: Side of its images, in pixels.
        mean: Mean of each colour that it subtracts, for pixels in [0, 1].
        std: Standard deviation of each colour that it divides by.
    """

    backbone: str
    pooling: Pooling
    layers: Annotated[int, Field(ge=1, le=100)]
    output_stride: Literal[8, 16, 32]
    image_size: Annotated[int, Field(ge=16, le=4096)]
    mean: tuple[FiniteFloat, FiniteFloat, FiniteFloat]
    std: tuple[_Positive, _Positive, _Positive]


@dataclass(frozen=True, kw_only=True)
class HeadFacts(Record):
    """A head on an encoder, whose tensors are named "heads/<place>/...".

    Args:
        encoder: The place of its encoder.
        settings: The registered head: its name and its settings.
        shift: What is subtracted from its logits, (C,): the post-hoc logit adjustment.
        weights: Its weight in the mean of all heads and views, by test-time view.
        recipe: Key of the recipe that trained it.
        fold: The fold that its training did not see; -1 if it saw all rows that were not locked away.
    """

    encoder: Annotated[int, Field(ge=0)]
    settings: dict[str, Any]
    shift: tuple[FiniteFloat, ...]
    weights: dict[str, Annotated[float, Field(gt=0, le=1)]]
    recipe: str
    fold: int


@dataclass(frozen=True, kw_only=True)
class Provenance(Record):
    """Where a classifier comes from, and what its study promised.

    Args:
        name: Name of the leaderboard row.
        key: Key of the row.
        kind: How it was trained or made.
        settings: What distinguishes the row, in one line.
        chosen_on: The rows that chose it.
        scored_on: The rows of its test scores.
        metric: The metric of the study.
        scores: The scores of the row, by the names of the leaderboard; recall and precision of each class on the test
            part also have the ends of their intervals.
        refitted: Whether it was trained again on all rows that were not locked away, so that its scores are those of
            its folds' models.
        class_counts: Number of training rows of each class over all folds, (C,).
        num_groups: Number of groups among these rows.
        num_unlabelled: Number of further rows that the encoders learnt from without labels.
        test_counts: Number of rows of each class in the locked test part, (C,).
        assumed_shares: The class shares that the probabilities assume, (C,); see `evaluation.prior_shift`.
        data: The settings of the rows.
        folds: The settings of the folds.
        manifest: Digest of the rows.
        command: The command of the study.
        commit: The version of the code that trained it.
        created: Date of the bundle, as YYYY-MM-DD.
        versions: Version of each library that prediction depends on.
        weights_licence: What is known of the licence of the weights.
        data_licence: A line on the licence of the images.
    """

    name: str
    key: str
    kind: Literal["two-stage", "one-stage", "probe", "ensemble"]
    settings: str
    chosen_on: str
    scored_on: str
    metric: str
    scores: dict[str, FiniteFloat]
    refitted: bool
    class_counts: tuple[int, ...]
    num_groups: int
    num_unlabelled: int
    test_counts: tuple[int, ...]
    assumed_shares: tuple[float, ...]
    data: dict[str, Any]
    folds: dict[str, Any]
    manifest: str
    command: str
    commit: str
    created: str
    versions: dict[str, str]
    weights_licence: str
    data_licence: str


@dataclass(frozen=True, kw_only=True)
class BundleFacts(Record):
    """The facts in the header of a bundle.

    Args:
        schema_version: `SCHEMA` of the raysk that wrote it.
        class_names: The C classes, in the order of the probabilities.
        bits: The depth of pictures of 16 bits a pixel whose files state none; None takes all 16 bits.
        operating_points: The thresholds by which it decides, where its study had requirements.
        encoders: The encoders.
        heads: The heads; their weights sum to 1 over all heads and views.
        provenance: Where the classifier comes from.
    """

    schema_version: int
    class_names: tuple[str, ...]
    bits: int | None
    operating_points: tuple[OperatingPoint, ...]
    encoders: tuple[EncoderFacts, ...]
    heads: tuple[HeadFacts, ...]
    provenance: Provenance

    @property
    def thresholds(self) -> dict[int, float]:
        """The threshold of each class that has one, by its place among the classes."""
        points = [point for point in self.operating_points if point.threshold is not None]
        return {self.class_names.index(point.class_name): float(point.threshold or 0) for point in points}

    @property
    def image_sizes(self) -> tuple[int, ...]:
        """The sizes at which the encoders need an image, ascending."""
        return tuple(sorted({encoder.image_size for encoder in self.encoders}))


@dataclass(frozen=True, eq=False)
class Bundle:
    """A trained classifier.

    Args:
        facts: Its facts.
        tensors: Its weights, on the CPU, named as `EncoderFacts` and `HeadFacts` say.
        card: The model card, in Markdown.
        digest: That of the file that it was read from; "" if none.

    Raises:
        ArtifactError: The facts contradict one another.
    """

    facts: BundleFacts
    tensors: Mapping[str, Tensor]
    card: str
    digest: str = ""

    def __post_init__(self) -> None:
        facts = self.facts
        widths = {len(head.shift) for head in facts.heads}
        total = sum(weight for head in facts.heads for weight in head.weights.values())
        if widths != {len(facts.class_names)} or len(facts.class_names) < 2 or abs(total - 1) > 1e-6:
            raise ArtifactError(
                "a bundle must have heads whose weights sum to 1, with a number for each of 2 or more classes, but got "
                f"weights that sum to {total:g} and {sorted(widths)} numbers for {len(facts.class_names)} classes: "
                "make it again with raysk bundle"
            )
        for head in facts.heads:
            unknown = sorted(head.weights.keys() - TURNS.keys())
            if head.encoder >= len(facts.encoders) or unknown:
                raise ArtifactError(
                    f"a head must be on one of {len(facts.encoders)} encoders and in the views {', '.join(TURNS)}, but "
                    f"got encoder {shown(head.encoder, 20)} and views {shown(unknown, 100)}: make the bundle again "
                    "with raysk bundle"
                )
        if len(set(facts.class_names)) < len(facts.class_names):
            raise ArtifactError(
                f"the classes of a bundle must differ, but got {shown(facts.class_names, 200)}: make it again with "
                "raysk bundle"
            )
        if {head.encoder for head in facts.heads} != set(range(len(facts.encoders))):
            raise ArtifactError(
                f"each encoder of a bundle must have a head, but {len(facts.heads)} heads are not on all "
                f"{len(facts.encoders)} encoders: make it again with raysk bundle"
            )

    @cached_property
    def content_digest(self) -> str:
        """A digest of all that its predictions depend on; the date of the file and its card do not enter."""
        facts = self.facts.to_plain()
        del facts["provenance"]
        digest = hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=8)
        for name, tensor in sorted(self.tensors.items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def write(self, path: Path) -> str:
        """Writes the file completely or not at all; returns its digest."""
        texts = {"raysk": json.dumps(self.facts.to_plain()), "card": self.card}
        content, digest = seal(self.tensors, texts)
        with replacing(path) as temporary:
            temporary.write_bytes(content)
        return digest

    @classmethod
    def read(cls, path: Path) -> "Bundle":
        """Reads a file that `write` wrote.

        Raises:
            ArtifactError: The file is missing, damaged, of another kind or of another schema.
        """
        try:
            if path.exists() and not path.is_file():  # reading a pipe would wait for ever
                raise OSError("not a regular file")
            content = path.read_bytes()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ArtifactError(
                f"MODEL must be a bundle that raysk bundle wrote, but {shown(path)}: {reason}: check the path"
            ) from error
        header = open_seal(content, path)
        facts = _facts(header["raysk"], path)
        try:
            tensors = load(content)
        except (SafetensorError, LookupError, ValueError, RuntimeError, TypeError, AssertionError) as error:
            raise not_a_bundle(path, f"its weights are damaged ({shown(error, 200)})") from error
        return cls(facts, tensors, header["card"], header["digest"])


def _facts(text: str, path: Path) -> BundleFacts:
    try:
        plain = strict_json(text)
        schema = plain["schema_version"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise not_a_bundle(path, "its facts are not JSON with a schema_version") from error
    if schema != SCHEMA:
        raise ArtifactError(
            f"{path} must be a bundle of schema {SCHEMA}, but has schema {schema!r:.20}: read it with the raysk that "
            "wrote it, or make it again"
        )
    return BundleFacts.from_plain(plain, path)
