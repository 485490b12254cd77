"""Health against its formulas in plain loops, and on features whose health is known."""

import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from raysk.errors import DataError, TrainingError
from raysk.training.health import alignment, collapsed_classes, effective_rank, measure, probe_rows, uniformity

NAMES = ("common", "second", "third", "rare")


def noise(num_rows, width, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(num_rows, width)))


def unit(num_rows, width, seed=0):
    return F.normalize(noise(num_rows, width, seed), dim=1)


def clusters(labels, centres, spread=0.0, seed=0):
    return centres[torch.as_tensor(labels)] + spread * noise(len(labels), centres.shape[1], seed)


def squared_distance(a, b):
    return sum((x - y) ** 2 for x, y in zip(a, b, strict=True))


def health_of(train, held_out=None, labels=None, names=NAMES):
    labels = np.arange(len(train)) % len(names) if labels is None else labels
    return measure(train, labels, train if held_out is None else held_out, labels, names)


@settings(max_examples=20, deadline=None)
@given(labels=st.lists(st.integers(0, 3), min_size=2, max_size=9), seed=st.integers(0, 99))
def test_alignment_and_uniformity_are_their_formulas(labels, seed):
    z = unit(len(labels), 3, seed)
    rows = z.tolist()
    pairs = [(i, j) for i in range(len(rows)) for j in range(i)]
    of_a_class = [squared_distance(rows[i], rows[j]) for i, j in pairs if labels[i] == labels[j]]
    of_all = [math.exp(-2 * squared_distance(rows[i], rows[j])) for i, j in pairs]
    expected = sum(of_a_class) / len(of_a_class) if of_a_class else 0.0
    assert alignment(z, torch.tensor(labels)) == pytest.approx(expected, abs=1e-12)
    assert uniformity(z) == pytest.approx(math.log(sum(of_all) / len(of_all)), abs=1e-12)


def test_uniformity_over_several_blocks():
    z = unit(1500, 3)
    assert uniformity(z) == pytest.approx(float(torch.pdist(z).square().mul(-2).exp().mean().log()), rel=1e-9)


@pytest.mark.parametrize("shape", [(12, 5), (5, 12)])
def test_effective_rank_is_its_formula(shape):
    z = unit(*shape)
    values = np.linalg.svd((z - z.mean(dim=0)).numpy(), compute_uv=False)
    shares = [value / values.sum() for value in values if value > 1e-9]
    assert effective_rank(z) == pytest.approx(math.exp(-sum(p * math.log(p) for p in shares)), rel=1e-9)


def test_effective_rank_counts_the_directions_in_use():
    opposite_pairs = torch.cat([torch.eye(8)[:3], -torch.eye(8)[:3]]).double()
    assert effective_rank(opposite_pairs) == pytest.approx(3)
    assert effective_rank(unit(2000, 10)) == pytest.approx(10, abs=0.05)  # noise, alike in all directions
    on_a_line = torch.tensor([[1.0, 0.0], [-1.0, 0.0]]).double()
    assert effective_rank(on_a_line) == pytest.approx(1)


def test_perfect_clusters_are_in_perfect_health():
    health = health_of(clusters(np.arange(40) % 4, torch.eye(4).double()))
    assert health.probe == 1.0
    assert health.alignment == pytest.approx(0, abs=1e-12)
    assert health.effective_rank == pytest.approx(3)  # four corners of equal distances span three directions
    assert health.collapsed == ()
    assert health.alarm is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_equal_features_raise_the_alarm(dtype):
    health = health_of(torch.full((20, 6), 0.3, dtype=dtype))
    assert health.effective_rank == 0.0
    assert health.alignment == pytest.approx(0, abs=1e-12)
    assert health.uniformity == pytest.approx(0, abs=1e-12)
    assert health.probe == pytest.approx(2 * 5 / (20 + 5) / 4)  # all rows are taken for one class
    assert health.collapsed == NAMES
    assert health.alarm.startswith("the features have collapsed")


def test_rounding_does_not_count_as_a_direction():
    same = torch.full((40, 16), 0.3) * (1 + 1e-7 * noise(40, 16).float())
    assert health_of(same).effective_rank == 0.0


def test_a_line_is_too_few_directions_for_seven_classes_and_enough_for_two():
    labels = np.arange(28) % 7
    on_a_curve = torch.tensor([[math.cos(t), math.sin(t)] for t in labels / 6])
    seven = measure(on_a_curve, labels, on_a_curve, labels, [f"class {k}" for k in range(7)])
    assert seven.probe == 1.0
    assert "directions, where 7 classes need 6" in seven.alarm
    two = measure(on_a_curve, labels % 2, on_a_curve, labels % 2, ["a", "b"])
    assert two.effective_rank > 0.5


def test_a_minority_on_the_majority_is_named():
    """In 64 directions the means of 20 and 100 rows are nearly two deviations apart by chance."""
    labels = np.repeat([0, 1, 2, 3], [100, 60, 60, 20])
    centres = 3 * torch.eye(64)[:4].double()
    apart = measure(clusters(labels, centres, 0.5), labels, clusters(labels, centres, 0.5, 1), labels, NAMES)
    assert apart.collapsed == ()
    assert apart.probe > 0.9
    assert apart.alarm is None
    centres[3] = centres[0]
    on_top = measure(clusters(labels, centres, 0.5), labels, clusters(labels, centres, 0.5, 1), labels, NAMES)
    assert on_top.collapsed == ("rare",)
    assert on_top.alarm.endswith(": rare")
    assert on_top.probe < apart.probe


@pytest.mark.parametrize(("deviations", "expected"), [(0.0, [1]), (0.3, [1]), (0.8, []), (3.0, [])])
def test_classes_closer_than_half_a_deviation_have_collapsed(deviations, expected):
    """Measured on a small patch of the sphere, which is nearly flat."""
    labels = torch.from_numpy(np.repeat([0, 1], [4000, 3000]))
    offsets = noise(7000, 3) + deviations * labels[:, None] * torch.tensor([1.0, 0.0, 0.0])
    patch = F.normalize(torch.cat([torch.full((7000, 1), 100.0), offsets], dim=1), dim=1)
    assert collapsed_classes(patch[::2], labels[::2], patch[1::2], labels[1::2], 2) == expected


def test_equal_classes_that_coincide_are_both_named():
    labels = np.arange(40) % 4
    centres = torch.eye(4).double()
    centres[2] = centres[1]
    assert health_of(clusters(labels, centres), labels=labels).collapsed == ("second", "third")


@pytest.mark.parametrize(("train", "held_out"), [([0, 0, 2], [0, 2, 3]), ([0, 0, 2, 3], [0, 2]), ([0, 0], [0])])
def test_a_class_without_rows_in_a_part_is_not_named(train, held_out):
    centres = torch.eye(4).double()
    centres[3] = centres[0]
    parts = [(clusters(labels, centres), torch.tensor(labels)) for labels in (train, held_out)]
    assert collapsed_classes(*parts[0], *parts[1], 4) == []


def test_the_probe_is_of_the_held_out_rows():
    labels = np.arange(40) % 4
    train = clusters(labels, torch.eye(4).double())
    wrong = clusters((labels + 1) % 4, torch.eye(4).double())
    assert health_of(train, wrong, labels).probe == 0.0


@pytest.mark.parametrize("change", ["rotation", "shift of the size"])
def test_rotation_and_scale_of_the_features_do_not_matter(change):
    labels = np.arange(60) % 4
    train, held_out = (clusters(labels, torch.eye(5).double(), 0.4, seed) for seed in (0, 1))
    rotation = torch.linalg.qr(noise(5, 5, 7)).Q if change == "rotation" else 40 * torch.eye(5).double()
    before, after = health_of(train, held_out, labels), health_of(train @ rotation, held_out @ rotation, labels)
    assert after.collapsed == before.collapsed
    for name in ("probe", "alignment", "uniformity", "effective_rank"):
        assert getattr(after, name) == pytest.approx(getattr(before, name), rel=1e-9)


@pytest.mark.parametrize("labels", [[0, 1, 2, 3], [0, 0, 0, 0], [3]], ids=str)
def test_health_is_plain_json_whatever_the_rows(labels):
    health = health_of(noise(len(labels), 3), labels=np.array(labels))
    plain = json.loads(json.dumps(health.to_plain(), allow_nan=False))
    assert plain["alarm"] == health.alarm
    assert plain["collapsed"] == list(health.collapsed)


def test_features_that_are_not_finite_are_refused():
    broken = torch.ones(8, 2)
    broken[3, 1] = torch.nan
    with pytest.raises(TrainingError, match="choose a smaller learning rate"):
        health_of(broken)


def test_health_requires_rows_of_both_parts():
    none = np.array([], dtype=np.int64)
    with pytest.raises(DataError, match="got 4 and 0"):
        measure(torch.ones(4, 2), np.zeros(4, np.int64), torch.ones(0, 2), none, NAMES)


@settings(max_examples=30, deadline=None)
@given(
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=40), per_class=st.integers(1, 12), seed=st.integers(0, 9)
)
def test_probe_rows_are_a_few_rows_of_each_class(labels, per_class, seed):
    labels = np.array(labels)
    rows = 7 * np.arange(len(labels)) + 3
    chosen = probe_rows(labels, rows, per_class, seed)
    assert np.array_equal(chosen, np.unique(chosen))
    counts = np.bincount(labels[(chosen - 3) // 7], minlength=5)
    assert counts.tolist() == np.minimum(np.bincount(labels, minlength=5), per_class).tolist()
    assert np.array_equal(chosen, probe_rows(labels, rows, per_class, seed))


def test_another_seed_chooses_other_rows():
    labels, rows = np.zeros(100, np.int64), np.arange(100)
    assert not np.array_equal(probe_rows(labels, rows, 10, 0), probe_rows(labels, rows, 10, 1))
