"""The contract of every mixing."""

import random

import numpy as np
import pytest
import torch

from raysk.parts.mixing import Mixed, Mixing, PairedBatch

COUNTS = torch.tensor([500, 20, 1])


def batch(num_rows: int) -> PairedBatch:
    generator = torch.Generator().manual_seed(0)
    images, partners = torch.randint(0, 256, (2, num_rows, 2, 8, 8, 3), generator=generator, dtype=torch.uint8)
    labels, partner_labels = torch.randint(0, 3, (2, num_rows), generator=generator)
    return PairedBatch(images, labels, partners, partner_labels)


def mix(mixing: Mixing, pairs: PairedBatch, seed: int = 0) -> Mixed:
    return mixing.mix(pairs, COUNTS, np.random.default_rng(seed))


@pytest.mark.parametrize("num_rows", [1, 6])
def test_a_mixture_keeps_shapes_and_ranges(mixing, num_rows):
    images, labels, _, partner_labels = pairs = batch(num_rows)
    for seed in range(10):
        mixed = mix(mixing, pairs, seed)
        assert mixed.images.shape == images.shape
        assert mixed.images.dtype in (torch.uint8, torch.float32)
        assert mixed.images.min() >= 0 and mixed.images.max() <= 255
        assert mixed.labels.shape == mixed.partner_labels.shape == labels.shape
        assert mixed.labels.dtype == mixed.partner_labels.dtype == labels.dtype
        for mixed_labels in (mixed.labels, mixed.partner_labels):
            assert ((mixed_labels == labels) | (mixed_labels == partner_labels)).all()
        assert isinstance(mixed.share, float) and 0 <= mixed.share <= 1


def test_arguments_stay_unchanged(mixing):
    pairs = batch(5)
    copies = [values.clone() for values in pairs]
    mix(mixing, pairs)
    for values, copy in zip(pairs, copies, strict=True):
        assert torch.equal(values, copy)


def test_a_mixture_follows_from_its_generator(mixing):
    first, second = mix(mixing, batch(5), 3), mix(mixing, batch(5), 3)
    assert all(torch.equal(a, b) for a, b in zip(first[:3], second[:3], strict=True))
    assert first.share == second.share


def test_global_generators_are_not_used(mixing):
    before = np.random.get_state()[1].copy(), random.getstate(), torch.get_rng_state()
    mix(mixing, batch(5))
    assert np.array_equal(before[0], np.random.get_state()[1])
    assert before[1] == random.getstate() and torch.equal(before[2], torch.get_rng_state())


def test_ranks_stay_in_step(mixing):
    """Each rank mixes its rows with the same seed: together they give the batch of one worker."""
    pairs = batch(6)
    generators = [np.random.default_rng(4) for _ in range(3)]
    for _ in range(3):
        whole = mixing.mix(pairs, COUNTS, generators[0])
        parts = [
            mixing.mix(PairedBatch(*(values[rows] for values in pairs)), COUNTS, generator)
            for rows, generator in zip((slice(0, 2), slice(2, 6)), generators[1:], strict=True)
        ]
        for name in ("images", "labels", "partner_labels"):
            assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(whole, name))
        assert {part.share for part in parts} == {whole.share}


def test_a_row_mixed_with_itself_stays_itself(mixing):
    images, labels, _, _ = batch(5)
    mixed = mix(mixing, PairedBatch(images, labels, images, labels))
    torch.testing.assert_close(mixed.images.float(), images.float())
    assert torch.equal(mixed.labels, labels) and torch.equal(mixed.partner_labels, labels)
