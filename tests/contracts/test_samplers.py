"""The contract of every sampler."""

import random
from contextlib import nullcontext

import numpy as np
import pytest

from raysk.errors import ConfigError

LABELS = np.random.default_rng(0).permutation(np.repeat([0, 1, 2, 4], [60, 9, 1, 30]))  # class 3 has no rows


@pytest.mark.parametrize("length", [0, 1, 50, 100, 250])
def test_an_order_has_the_requested_length_and_holds_rows(sampler, length):
    order = sampler.epoch_order(LABELS, epoch=0, epochs=9, seed=0, length=length)
    assert order.shape == (length,)
    assert order.dtype == np.int64
    assert set(order) <= set(range(len(LABELS)))


def test_an_order_follows_from_seed_and_epoch(sampler):
    order = sampler.epoch_order(LABELS, epoch=2, epochs=9, seed=5, length=100)
    assert np.array_equal(order, sampler.epoch_order(LABELS, epoch=2, epochs=9, seed=5, length=100))
    assert not np.array_equal(order, sampler.epoch_order(LABELS, epoch=3, epochs=9, seed=5, length=100))
    assert not np.array_equal(order, sampler.epoch_order(LABELS, epoch=2, epochs=9, seed=6, length=100))
    assert not np.array_equal(order, sampler.epoch_order(LABELS, epoch=5, epochs=9, seed=2, length=100))


def test_an_order_reads_the_labels_unless_the_sampler_says_otherwise(sampler):
    unlabelled = np.full_like(LABELS, -1)
    if not sampler.reads_labels:
        order = sampler.epoch_order(LABELS, epoch=0, epochs=9, seed=0, length=100)
        assert np.array_equal(order, sampler.epoch_order(unlabelled, epoch=0, epochs=9, seed=0, length=100))
    counts = np.array([60, 9, 1, 3, 30])
    with_unlabelled = (
        pytest.raises(
            ConfigError, match=r"^name must be instance where 7 unlabelled rows take part, .*: choose instance"
        )
        if sampler.reads_labels
        else nullcontext()
    )
    with with_unlabelled:
        sampler.check(counts, 64, 7)


def test_global_generators_are_not_used(sampler):
    before, python_before = np.random.get_state()[1].copy(), random.getstate()
    sampler.epoch_order(LABELS, epoch=0, epochs=9, seed=0, length=100)
    assert np.array_equal(before, np.random.get_state()[1])
    assert python_before == random.getstate()


def test_labels_stay_unchanged(sampler):
    labels = LABELS.copy()
    labels.setflags(write=False)
    sampler.epoch_order(labels, epoch=0, epochs=9, seed=0, length=100)
    assert np.array_equal(labels, LABELS)


def test_positions_do_not_depend_on_the_dtype_of_the_labels(sampler):
    order = sampler.epoch_order(LABELS, epoch=1, epochs=9, seed=0, length=100)
    assert np.array_equal(order, sampler.epoch_order(LABELS.astype(np.int32), epoch=1, epochs=9, seed=0, length=100))


def test_a_class_without_training_rows_is_refused(sampler):
    with pytest.raises(
        ConfigError, match=r"^name \w+ must find training rows of every class, but classes \[3\]"
    ) as error:
        sampler.check(np.bincount(LABELS), batch_size=128)
    assert "\n" not in str(error.value)


def test_every_class_is_visited_in_a_long_epoch(sampler):
    order = sampler.epoch_order(LABELS, epoch=0, epochs=9, seed=0, length=5000)
    assert set(LABELS[order]) == {0, 1, 2, 4}


def test_one_row_is_enough(sampler):
    assert sampler.epoch_order(np.array([0]), epoch=0, epochs=9, seed=0, length=3).tolist() == [0, 0, 0]
