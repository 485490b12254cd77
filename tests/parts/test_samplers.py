from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysk.errors import ConfigError
from raysk.parts.samplers import samplers

HAM = np.array([1113, 6705, 514, 327, 1099, 115, 142])


def test_square_root_probabilities_of_ham():
    expected = [0.157521, 0.386625, 0.107046, 0.085382, 0.156527, 0.050634, 0.056265]
    assert samplers["square_root"]().probabilities(HAM) == pytest.approx(expected, abs=5e-7)


def test_progressive_probabilities_of_ham():
    sampler = samplers["progressive"]()
    half_way = [0.126995, 0.406176, 0.097090, 0.087754, 0.126296, 0.077170, 0.078518]
    assert sampler.probabilities(HAM, 0.5) == pytest.approx(half_way, abs=5e-7)
    assert sampler.probabilities(HAM, 0.0) == pytest.approx(HAM / 10015)
    assert sampler.probabilities(HAM, 1.0) == pytest.approx([1 / 7] * 7)


@pytest.mark.parametrize("epochs", [1, 2, 7])
def test_progressive_sampling_ends_class_balanced(epochs):
    labels = np.repeat(np.arange(7), HAM)
    last = samplers["progressive"]().epoch_order(labels, epochs - 1, epochs, 3, 500)
    assert np.array_equal(last, samplers["class_balanced"]().epoch_order(labels, epochs - 1, epochs, 3, 500))


@pytest.mark.parametrize("beta", [0.0, 0.9, 0.9999])
def test_effective_number_probabilities_are_those_of_weighted_rows(beta):
    row_weights = [(1 - beta) / (1 - beta ** int(n)) for n in HAM]
    totals = [n * weight for n, weight in zip(HAM, row_weights, strict=True)]
    expected = [total / sum(totals) for total in totals]
    assert samplers["effective_number"](beta=beta).probabilities(HAM) == pytest.approx(expected, rel=1e-9)


def test_effective_number_sampling_lies_between_instance_and_class_balanced():
    for beta, name in ((0.0, "instance"), (1 - 1e-7, "class_balanced")):
        expected = samplers[name]().probabilities(HAM)
        assert samplers["effective_number"](beta=beta).probabilities(HAM) == pytest.approx(expected, rel=1e-3)


@settings(max_examples=30, deadline=None)
@given(
    counts=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    seed=st.integers(0, 5),
    epochs=st.integers(1, 4),
)
def test_under_sampling_keeps_the_same_rows_of_equal_classes(counts, seed, epochs):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    kept = len(counts) * min(counts)
    orders = [samplers["under_sampling"]().epoch_order(labels, e, epochs, seed, 3 * kept) for e in range(epochs)]
    for order in orders:
        for shuffle in np.split(order, 3):
            assert sorted(shuffle) == sorted(orders[0][:kept])
            assert np.bincount(labels[shuffle], minlength=len(counts)).tolist() == [min(counts)] * len(counts)
            assert len(set(shuffle)) == kept


def test_another_seed_keeps_other_rows():
    labels = np.repeat([0, 1], [50, 5])
    kept = [set(samplers["under_sampling"]().epoch_order(labels, 0, 1, seed, 10)) for seed in (0, 1)]
    assert kept[0] != kept[1]


def test_reversed_probabilities_are_those_of_the_inverse_counts():
    expected = [(1 / n) / sum(1 / m for m in HAM) for n in HAM]
    assert samplers["reversed"]().probabilities(HAM) == pytest.approx(expected)
    # Integers have no negative powers in numpy.
    assert samplers["reversed"]().probabilities(np.array([1, 3])) == pytest.approx([0.75, 0.25])


def test_instance_and_class_balanced_probabilities():
    assert samplers["instance"]().probabilities(HAM) == pytest.approx(HAM / 10015)
    assert samplers["class_balanced"]().probabilities(HAM) == pytest.approx([1 / 7] * 7)


@pytest.mark.parametrize("name", ["instance", "square_root", "class_balanced", "reversed", "effective_number"])
def test_a_class_without_rows_is_never_drawn(name):
    assert samplers[name]().probabilities(np.array([4, 0, 2]))[1] == 0
    order = samplers[name]().epoch_order(np.array([0, 0, 0, 0, 2, 2]), 0, 1, 0, 40)
    assert len(order) == 40


def test_an_epoch_of_instance_sampling_visits_every_row_once():
    order = samplers["instance"]().epoch_order(np.repeat([0, 1], [90, 10]), epoch=3, epochs=5, seed=1, length=100)
    assert sorted(order) == list(range(100))
    assert list(order) != sorted(order)


@settings(max_examples=25, deadline=None)
@given(num_rows=st.integers(1, 12), length=st.integers(0, 40), seed=st.integers(0, 9))
def test_instance_sampling_repeats_a_row_only_after_all_rows(num_rows, length, seed):
    order = samplers["instance"]().epoch_order(np.zeros(num_rows, dtype=np.int64), 0, 1, seed, length)
    for start in range(0, length, num_rows):
        part = order[start : start + num_rows]
        assert len(set(part)) == len(part)


@pytest.mark.parametrize("name", ["square_root", "class_balanced", "reversed", "effective_number"])
def test_class_frequencies_match_the_probabilities(name):
    sampler = samplers[name]()
    labels = np.repeat(np.arange(7), HAM)
    length = 20_000
    drawn = np.bincount(labels[sampler.epoch_order(labels, 0, 1, 0, length)], minlength=7)
    probabilities = sampler.probabilities(HAM)
    deviations = (drawn - length * probabilities) / np.sqrt(length * probabilities * (1 - probabilities))
    assert np.abs(deviations).max() < 4


@pytest.mark.parametrize("name", ["square_root", "class_balanced", "reversed", "effective_number"])
def test_a_class_repeats_a_row_only_after_all_its_rows(name):
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [50, 7, 1]))
    order = samplers[name]().epoch_order(labels, 0, 1, 0, 300)
    for label, num_rows in enumerate([50, 7, 1]):
        rows = order[labels[order] == label]
        for start in range(0, len(rows), num_rows):
            part = rows[start : start + num_rows]
            assert len(set(part)) == len(part)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("instance", [6, 3, 1, 0, 2, 4, 7, 5, 7, 4, 1, 2]),
        ("square_root", [5, 4, 1, 2, 0, 6, 7, 3, 1, 5, 3, 2]),
        ("class_balanced", [7, 4, 1, 2, 5, 6, 7, 0, 3, 5, 1, 3]),
    ],
)
def test_the_order_of_a_recipe_never_changes(name, expected):
    """If this changes, RECIPE_SCHEMA must too: else the same key would name other weights."""
    labels = np.array([0, 0, 0, 0, 0, 1, 1, 2])
    assert samplers[name]().epoch_order(labels, epoch=1, epochs=9, seed=7, length=12).tolist() == expected


def test_progressive_sampling_moves_from_row_shares_to_equal_shares():
    labels = np.repeat(np.arange(7), HAM)
    length = 20_000
    for epoch in (0, 5, 10):
        drawn = np.bincount(labels[samplers["progressive"]().epoch_order(labels, epoch, 11, 0, length)], minlength=7)
        expected = np.array([(1 - epoch / 10) * n / 10015 + epoch / 10 / 7 for n in HAM])
        deviations = (drawn - length * expected) / np.sqrt(length * expected * (1 - expected))
        assert np.abs(deviations).max() < 4


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(1, 9), min_size=2, max_size=6),
    data=st.data(),
    images=st.integers(1, 7),
    seed=st.integers(0, 5),
)
def test_a_block_holds_p_classes_and_k_rows_of_each(counts, data, images, seed):
    classes = data.draw(st.integers(2, len(counts)))
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    sampler = samplers["per_class"](classes=classes, images=images)
    block, num_blocks = classes * images, 11
    order = sampler.epoch_order(labels, 0, 1, seed, num_blocks * block)
    turns = []
    for batch in np.split(order, num_blocks):
        rows_of = {label: [row for row in batch.tolist() if labels[row] == label] for label in set(labels[batch])}
        assert [len(rows) for rows in rows_of.values()] == [images] * classes
        turns += sorted(rows_of)
        for label, rows in rows_of.items():
            times = Counter(rows)
            least, rest = divmod(images, counts[label])
            assert set(times.values()) <= ({least, least + 1} if rest else {least})
            assert len(times) == min(images, counts[label])
        for share in np.split(batch, images):  # the smallest share that holds all classes
            assert set(labels[share]) == set(rows_of)
    # Classes take turns: after any number of blocks none is more than a block's turn ahead of another.
    times = Counter(turns)
    assert max(times.values()) - min(times[label] for label in range(len(counts))) <= 1


def test_the_rows_of_a_class_take_turns_over_the_blocks():
    labels = np.repeat([0, 1], [10, 4])
    order = samplers["per_class"](classes=2, images=3).epoch_order(labels, 0, 1, 0, 60)
    for label, num_rows in ((0, 10), (1, 4)):
        times = np.bincount(order[labels[order] == label])[-num_rows:]
        assert times.max() - times.min() <= 1


def test_the_last_block_is_cut_to_the_epoch():
    sampler = samplers["per_class"](classes=2, images=4)
    labels = np.repeat([0, 1, 2], 6)
    whole = sampler.epoch_order(labels, 0, 1, 0, 24)
    assert np.array_equal(sampler.epoch_order(labels, 0, 1, 0, 19), whole[:19])


@pytest.mark.parametrize(
    ("classes", "images", "message"),
    [
        (8, 16, "classes must be at most the 7 classes of the manifest, or .* a multiple of them, but got 8 x 16"),
        (4, 16, "classes must be such that classes x images is the batch size 128, but got 4 x 16 = 64: set batch_siz"),
    ],
)
def test_blocks_that_cannot_be_batches_are_refused(classes, images, message):
    with pytest.raises(ConfigError, match=f"^{message}"):
        samplers["per_class"](classes=classes, images=images).check(HAM, 128)
    samplers["per_class"](classes=4, images=32).check(HAM, 128)


def test_with_fewer_classes_than_p_a_block_holds_all_classes_equally():
    sampler = samplers["per_class"](classes=4, images=16)
    sampler.check(np.array([982, 18]), 64)
    labels = np.repeat([0, 1], [90, 10])
    order = sampler.epoch_order(labels, 0, 1, 0, 128)
    assert [np.bincount(labels[block]).tolist() for block in np.split(order, 2)] == [[32, 32], [32, 32]]
