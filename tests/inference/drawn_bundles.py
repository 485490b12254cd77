"""Bundles of blank networks: quick to make, and as varied as a test needs."""

from collections.abc import Sequence

import torch

from raysk.inference.bundle import SCHEMA, Bundle, BundleFacts, EncoderFacts, HeadFacts, Provenance
from raysk.inference.card import card_of
from raysk.parts.heads import heads
from raysk.recipe import Model
from raysk.training.checkpoints import pack
from raysk.training.networks import blank_encoder

CLASSES = ("mel", "nv", "bkl")
PROVENANCE = Provenance(
    name="ensemble, greedy", key="k", kind="ensemble", settings="", chosen_on="folds", scored_on="test part",
    scores={"test_macro_f1": 0.8, "test_macro_f1_low": 0.7, "test_macro_f1_high": 0.9}, refitted=False,
    class_counts=(3, 9, 6), num_groups=5, num_unlabelled=0, test_counts=(2, 4, 3), assumed_shares=(0.2, 0.5, 0.3),
    metric="macro_f1", data={}, folds={}, manifest="m", command="raysk tune",
    commit="c", created="2026-01-01", versions={}, weights_licence="none", data_licence="none",
)  # fmt: skip


def draw_bundle(
    encoders: Sequence[tuple[str, int]], heads_of: Sequence[tuple[int, str]], views: Sequence[str]
) -> Bundle:
    """A bundle of random weights.

    Args:
        encoders: Backbone and image size of each.
        heads_of: Encoder and registered name of each head.
        views: The views of each head.
    """
    torch.manual_seed(0)
    tensors, networks = {}, []
    for place, (backbone, size) in enumerate(encoders):
        networks.append(blank_encoder(Model(backbone=backbone), size))
        tensors |= pack(f"encoders/{place}", networks[-1].state_dict())
    of_heads = []
    for place, (encoder, name) in enumerate(heads_of):
        head = heads[name]().build(networks[encoder].num_features, len(CLASSES))
        state = {name: torch.randn_like(tensor) for name, tensor in head.state_dict().items()}
        tensors |= pack(f"heads/{place}", state)
        weights = dict.fromkeys(views, 1 / len(views) / len(heads_of))
        settings = heads[name]().to_plain() | {"name": name}
        shift = (0.5, -0.25, 0.0)
        of_heads.append(
            HeadFacts(encoder=encoder, settings=settings, shift=shift, weights=weights, recipe="r", fold=place)
        )
    facts = BundleFacts(
        schema_version=SCHEMA,
        class_names=CLASSES,
        bits=None,
        operating_points=(),
        encoders=tuple(
            EncoderFacts(
                backbone=backbone,
                pooling="network",
                layers=1,
                output_stride=32,
                image_size=size,
                mean=(0.5, 0.4, 0.6),
                std=(0.2, 0.3, 0.2),
            )
            for backbone, size in encoders
        ),
        heads=tuple(of_heads),
        provenance=PROVENANCE,
    )
    return Bundle(facts, tensors, card_of(facts))
