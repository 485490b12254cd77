"""The metrics of masks against plain loops."""

import numpy as np
import pytest

from raysk.errors import DataError
from raysk.evaluation.goals import Goal
from raysk.evaluation.metrics import metrics, parse_metric
from raysk.evaluation.metrics.masks import MaskMetric
from raysk.evaluation.resampling import bootstrap_interval, resampled_scores
from raysk.evaluation.selection import greedy_selection

SIDE = 9
NAMES = [name for name in metrics if issubclass(metrics[name], MaskMetric)]


def drawn(num_rows=6, seed=0):
    """Masks with one lesion each, and probabilities that find a shifted one."""
    random = np.random.default_rng(seed)
    masks = np.zeros((num_rows, SIDE, SIDE), np.uint8)
    found = np.zeros((num_rows, SIDE, SIDE))
    for mask, shares in zip(masks, found, strict=True):
        top, left, height, width = random.integers((0, 0, 2, 2), (4, 4, 6, 6))
        mask[top : top + height, left : left + width] = 255
        down, right = random.integers(0, 3, 2)
        shares[top + down : top + down + height, left + right : left + right + width] = 0.9
    return found.reshape(num_rows, -1), masks.reshape(num_rows, -1)


def boundary(mask):
    """The pixels of a mask with a neighbour outside it, as pairs; outside the picture is outside the mask."""
    inside = {(y, x) for y in range(SIDE) for x in range(SIDE) if mask[y * SIDE + x]}
    steps = ((0, 1), (1, 0), (0, -1), (-1, 0))
    return [(y, x) for y, x in sorted(inside) if any((y + down, x + right) not in inside for down, right in steps)]


def in_loops(name, found, mask):
    """A metric of one picture."""
    found, mask = found >= 0.5, mask > 0
    if name in ("dice", "jaccard", "thresholded_jaccard"):
        both = sum(1 for a, b in zip(found, mask, strict=True) if a and b)
        either = sum(1 for a, b in zip(found, mask, strict=True) if a or b)
        if name == "dice":
            return 2 * both / (both + either) if either else 1.0
        index = both / either if either else 1.0
        return index if name == "jaccard" or index >= 0.65 else 0.0
    first, second = boundary(found), boundary(mask)
    if not first or not second:
        return float(bool(first) != bool(second))
    there = [min(np.hypot(y - v, x - u) for v, u in second) for y, x in first]
    back = [min(np.hypot(y - v, x - u) for v, u in first) for y, x in second]
    if name == "hausdorff95":
        distance = max(np.percentile(there, 95), np.percentile(back, 95))
    else:
        distance = (sum(there) + sum(back)) / (len(there) + len(back))
    return distance / np.hypot(SIDE, SIDE)


@pytest.mark.parametrize("name", NAMES)
def test_a_score_is_the_mean_over_pictures_in_loops(name):
    found, masks = drawn()
    found[0], masks[1], found[2], masks[2] = 0, 0, 0, 0  # nothing found, nothing there, neither
    expected = np.mean([in_loops(name, *pair) for pair in zip(found, masks, strict=True)])
    assert parse_metric(name)(found, masks) == pytest.approx(expected)
    both = parse_metric(name)(np.stack([found, np.roll(found, 1, axis=1)]), masks)
    assert both.shape == (2,)
    assert both[0] == pytest.approx(expected)


@pytest.mark.parametrize("name", NAMES)
def test_the_true_mask_has_the_best_score_and_its_opposite_a_worse_one(name):
    _, masks = drawn()
    metric = parse_metric(name)
    best, opposite = metric(np.stack([masks / 255, 1 - masks / 255]), masks)
    assert best == metric.range[1] if metric.larger_is_better else best == metric.range[0]
    assert metric.oriented(best) > metric.oriented(opposite)


@pytest.mark.parametrize("name", NAMES)
def test_resamples_repeat_whole_groups(name):
    found, masks = drawn(8)
    groups, metric = np.repeat([0, 1, 2, 3], 2), parse_metric(name)
    times = np.array([[1, 1, 1, 1], [2, 0, 1, 1], [0, 0, 0, 4]])
    rows = [np.repeat(np.arange(8), of_group[groups]) for of_group in times]
    expected = [metric(found[drawn_rows], masks[drawn_rows]) for drawn_rows in rows]
    np.testing.assert_allclose(metric.resampler(found, masks, groups)(times), expected)
    low, high = bootstrap_interval(metric, found, masks, groups)
    assert low <= metric(found, masks) <= high
    assert resampled_scores(metric, found, masks, groups, 20).shape == (20,)


def test_the_greedy_ensemble_averages_masks_that_complete_each_other():
    _, masks = drawn(10)
    left = np.where(np.arange(SIDE * SIDE) % SIDE < SIDE // 2, masks / 255, 0.4)
    right = np.where(np.arange(SIDE * SIDE) % SIDE >= SIDE // 2, masks / 255, 0.4)
    useless = np.full_like(left, 0.2)
    goal = Goal.parse("dice", (), ())
    selection = greedy_selection(np.stack([useless, left, right]), masks, goal, num_picks=4)
    assert selection.weights[0] == 0
    assert min(selection.weights[1:]) > 0
    assert max(selection.scores) > selection.scores[0]


def test_masks_of_other_pixels_and_class_labels_are_refused():
    found, masks = drawn()
    for truth in (masks[:, :-1], masks[:-1], np.zeros(len(masks), np.int64)):
        with pytest.raises(DataError, match="masks of the same size"):
            parse_metric("dice")(found, truth)
