"""Energy inside the lesion and the pointing game, against loops."""

import numpy as np
import pytest

from raysk.evaluation.attention_scores import attention_columns, mean_scores, scores_of_images


def in_loops(maps, lesions):
    energies, points, areas = [], [], []
    for attention, lesion in zip(maps, lesions, strict=True):
        if not lesion.any():
            continue
        inside = sum(attention[i, j] for i in range(len(attention)) for j in range(len(attention)) if lesion[i, j])
        total = attention.sum()
        energies.append(inside / total if total else 0.0)
        where = np.unravel_index(attention.argmax(), attention.shape)
        points.append(bool(lesion[where]) and total > 0)
        areas.append(lesion.mean())
    return len(energies), np.mean(energies), np.mean(points), np.mean(areas)


def test_the_scores_are_their_definitions():
    random = np.random.default_rng(0)
    maps, lesions = random.random((9, 8, 8)), random.random((9, 8, 8)) < 0.4
    lesions[3], maps[5] = False, 0
    scores = mean_scores(scores_of_images(maps, lesions))
    assert (scores.count, scores.energy, scores.pointing, scores.area) == pytest.approx(in_loops(maps, lesions))


def test_attention_that_is_the_same_everywhere_has_the_area_of_the_lesion():
    lesions = np.zeros((2, 10, 10), bool)
    lesions[0, :5], lesions[1, :2] = True, True
    scores = mean_scores(scores_of_images(np.full((2, 10, 10), 0.3), lesions))
    assert scores.energy == pytest.approx(scores.area) == pytest.approx(0.35)


def test_without_a_lesion_there_are_no_scores():
    scores = mean_scores(scores_of_images(np.ones((2, 4, 4)), np.zeros((2, 4, 4), bool)))
    assert scores.count == 0 and np.isnan(scores.energy)


def test_the_columns_are_means_of_all_images_and_of_each_class():
    random = np.random.default_rng(1)
    maps, lesions = random.random((30, 6, 6)), random.random((30, 6, 6)) < 0.5
    labels, groups = np.arange(30) % 3, np.arange(30) // 2
    lesions[4], lesions[labels == 2] = False, False
    columns = attention_columns(scores_of_images(maps, lesions), labels, groups, ["a", "low", "c"])
    assert set(columns) == {
        *(f"test_attention_{score}{end}" for score in ("energy", "pointing") for end in ("", "_low", "_high")),
        *(f"test_{score}_{name}" for score in ("energy", "pointing") for name in ("a", "low")),
    }
    for label, name in enumerate(("a", "low")):
        _, energy, pointing, _ = in_loops(maps[labels == label], lesions[labels == label])
        assert (columns[f"test_energy_{name}"], columns[f"test_pointing_{name}"]) == pytest.approx((energy, pointing))
    assert columns["test_attention_energy"] == pytest.approx(in_loops(maps, lesions)[1])
    for score in ("energy", "pointing"):
        low, middle, high = (columns[f"test_attention_{score}{end}"] for end in ("_low", "", "_high"))
        assert 0 <= low < middle < high <= 1


def test_without_a_lesion_there_are_no_columns():
    of_images = scores_of_images(np.ones((2, 4, 4)), np.zeros((2, 4, 4), bool))
    assert attention_columns(of_images, np.arange(2), np.arange(2), ["a", "b"]) == {}
