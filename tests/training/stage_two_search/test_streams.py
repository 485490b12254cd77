import numpy as np
import pytest
import torch

from raysk.stage_two import StageTwo
from raysk.training.batches import FeatureBatches, Plan
from raysk.training.stage_two_search.streams import Stream, Streams
from raysk.training.world import World

LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(3), [20, 9, 4]))
FEATURES = {"none": torch.randn(1, 33, 5), "medium": torch.randn(4, 33, 5)}


def stages(batch_size: int) -> list[StageTwo]:
    samplers = [{"name": "instance"}, {"name": "class_balanced"}, {"name": "progressive"}]
    views = [("none", 1), ("medium", 1), ("medium", 3)]
    plain = {"epochs": 3, "batch_size": batch_size}
    return [
        StageTwo.from_plain(plain | {"sampler": sampler, "view": view, "passes": passes, "defer_sampler": defer})
        for sampler in samplers
        for view, passes in views
        for defer in (0.0, 0.5)
    ]


@pytest.mark.parametrize("batch_size", [8, 100])
def test_each_stream_has_the_batches_of_its_stage_alone(batch_size):
    world = World(0, 1, torch.device("cpu"))
    streams = Streams(stages(batch_size), FEATURES, LABELS, 7)
    alone = [
        FeatureBatches(FEATURES[stage.view][: stage.passes], Plan(LABELS, stage, 7, world))
        for stage in stages(batch_size)
    ]
    assert {batches.num_batches for batches in alone} == {streams.num_batches}
    for epoch in range(3):
        batches = [(inputs.clone(), labels) for inputs, labels in streams.epoch(epoch)]
        assert len(batches) == streams.num_batches
        for place, of_stage in enumerate(alone):
            for (inputs, labels), (expected, expected_labels) in zip(batches, of_stage.epoch(epoch), strict=True):
                assert torch.equal(inputs[place], expected)
                assert torch.equal(labels[place], expected_labels)


def test_settings_that_differ_elsewhere_share_a_stream():
    plain = {"passes": 2, "view": "medium", "sampler": {"name": "class_balanced"}}
    first, second = (StageTwo.from_plain(plain | {"optimizer": {"lr": rate}}) for rate in (0.1, 0.2))
    assert Stream.of(first) == Stream.of(second)
    assert len({Stream.of(stage) for stage in stages(8)}) == len(stages(8))
