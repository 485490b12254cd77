import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysk.parts.samplers import samplers

HAM = np.array([1113, 6705, 514, 327, 1099, 115, 142])


def test_square_root_probabilities_of_ham():
    expected = [0.157521, 0.386625, 0.107046, 0.085382, 0.156527, 0.050634, 0.056265]
    assert samplers["square_root"]().probabilities(HAM) == pytest.approx(expected, abs=5e-7)


def test_instance_and_class_balanced_probabilities():
    assert samplers["instance"]().probabilities(HAM) == pytest.approx(HAM / 10015)
    assert samplers["class_balanced"]().probabilities(HAM) == pytest.approx([1 / 7] * 7)


@pytest.mark.parametrize("name", ["instance", "square_root", "class_balanced"])
def test_a_class_without_rows_is_never_drawn(name):
    assert samplers[name]().probabilities(np.array([4, 0, 2]))[1] == 0
    order = samplers[name]().epoch_order(np.array([0, 0, 0, 0, 2, 2]), 0, 0, 40)
    assert len(order) == 40


def test_an_epoch_of_instance_sampling_visits_every_row_once():
    order = samplers["instance"]().epoch_order(np.repeat([0, 1], [90, 10]), epoch=3, seed=1, length=100)
    assert sorted(order) == list(range(100))
    assert list(order) != sorted(order)


@settings(max_examples=25, deadline=None)
@given(num_rows=st.integers(1, 12), length=st.integers(0, 40), seed=st.integers(0, 9))
def test_a_longer_epoch_of_instance_sampling_begins_anew_only_after_all_rows(num_rows, length, seed):
    order = samplers["instance"]().epoch_order(np.zeros(num_rows, dtype=np.int64), 0, seed, length)
    for start in range(0, length, num_rows):
        part = order[start : start + num_rows]
        assert len(set(part)) == len(part)


@pytest.mark.parametrize("name", ["square_root", "class_balanced"])
def test_classes_are_drawn_as_often_as_they_should(name):
    sampler = samplers[name]()
    labels = np.repeat(np.arange(7), HAM)
    length = 20_000
    drawn = np.bincount(labels[sampler.epoch_order(labels, 0, 0, length)], minlength=7)
    probabilities = sampler.probabilities(HAM)
    deviations = (drawn - length * probabilities) / np.sqrt(length * probabilities * (1 - probabilities))
    assert np.abs(deviations).max() < 4


@pytest.mark.parametrize("name", ["square_root", "class_balanced"])
def test_a_class_repeats_a_row_only_after_all_its_rows(name):
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [50, 7, 1]))
    order = samplers[name]().epoch_order(labels, 0, 0, 300)
    for label, num_rows in enumerate([50, 7, 1]):
        rows = order[labels[order] == label]
        for start in range(0, len(rows), num_rows):
            part = rows[start : start + num_rows]
            assert len(set(part)) == len(part)
