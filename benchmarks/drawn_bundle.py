"""A classifier of random weights, for benchmarks whose time does not depend on what it has learnt."""

import torch

from raysk.data.views import DIHEDRAL
from raysk.inference.bundle import SCHEMA, Bundle, BundleFacts, EncoderFacts, HeadFacts, Provenance
from raysk.parts.heads import LinearHead
from raysk.recipe import Model
from raysk.training.checkpoints import pack
from raysk.training.networks import blank_encoder

CLASSES = tuple("abcdefg")


def random_bundle(backbone: str, size: int, num_members: int, num_views: int) -> Bundle:
    """A classifier of random weights."""
    torch.manual_seed(0)
    tensors, encoders, heads = {}, [], []
    for place in range(num_members):
        encoder = blank_encoder(Model(backbone=backbone), size)
        tensors |= pack(f"encoders/{place}", encoder.state_dict())
        tensors |= pack(f"heads/{place}", LinearHead().build(encoder.num_features, len(CLASSES)).state_dict())
        encoders.append(
            EncoderFacts(
                backbone=backbone, pooling="network", layers=1, image_size=size, mean=(0.5,) * 3, std=(0.25,) * 3
            )
        )
        weights = dict.fromkeys(DIHEDRAL[:num_views], 1 / num_views / num_members)
        shift = (0.0,) * len(CLASSES)
        heads.append(
            HeadFacts(encoder=place, settings={"name": "linear"}, shift=shift, weights=weights, recipe="", fold=place)
        )
    provenance = Provenance(
        name="random", key="", kind="ensemble", settings="", chosen_on="", scored_on="", scores={}, refitted=False,
        class_counts=(1,) * len(CLASSES), num_groups=0, test_counts=(1,) * len(CLASSES), metric="macro_f1",
        assumed_shares=(1 / len(CLASSES),) * len(CLASSES), data={}, folds={}, manifest="", command="",
        commit="", created="", versions={}, weights_licence="", data_licence="",
    )  # fmt: skip
    facts = BundleFacts(
        schema_version=SCHEMA,
        class_names=CLASSES,
        bits=None,
        operating_points=(),
        encoders=tuple(encoders),
        heads=tuple(heads),
        provenance=provenance,
    )
    return Bundle(facts, tensors, "")
