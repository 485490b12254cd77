"""Energy inside the lesion and the pointing game, against loops."""

import numpy as np
import pytest

from raysk.evaluation.attention_scores import attention_scores


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
    scores = attention_scores(maps, lesions)
    assert (scores.count, scores.energy, scores.pointing, scores.area) == pytest.approx(in_loops(maps, lesions))


def test_attention_that_is_the_same_everywhere_has_the_area_of_the_lesion():
    lesions = np.zeros((2, 10, 10), bool)
    lesions[0, :5], lesions[1, :2] = True, True
    scores = attention_scores(np.full((2, 10, 10), 0.3), lesions)
    assert scores.energy == pytest.approx(scores.area) == pytest.approx(0.35)


def test_without_a_lesion_there_are_no_scores():
    scores = attention_scores(np.ones((2, 4, 4)), np.zeros((2, 4, 4), bool))
    assert scores.count == 0 and np.isnan(scores.energy)
