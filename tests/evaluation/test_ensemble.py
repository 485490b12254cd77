"""Ensembles of recipes and views."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raysk.artifacts import read_json, write_json
from raysk.errors import ArtifactError, DataError
from raysk.evaluation.ensemble import Ensemble, Member, member_probabilities
from raysk.evaluation.goals import Goal
from raysk.evaluation.predictions import OutOfFold
from raysk.evaluation.predictions import TestPredictions as FoldAverage  # pytest collects what is called Test…
from raysk.evaluation.selection import cross_fitted_predictions

GOAL = Goal.parse("macro_f1", (), ())
LABELS = np.random.default_rng(9).integers(3, size=60)


def make_out_of_fold(recipe_key: str, skill: float, seed: int) -> OutOfFold:
    random = np.random.default_rng(seed)
    logits = random.normal(size=(2, 60, 3)) + skill * np.eye(3)[LABELS]
    probabilities = (np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)).astype(np.float32)
    return OutOfFold(np.arange(60), np.arange(60) % 3, ("identity", "rot90"), probabilities, recipe_key, "folds")


RESULTS = [make_out_of_fold("a", 0.5, 0), make_out_of_fold("b", 1.5, 1), make_out_of_fold("c", 1.4, 2)]


def make_ensemble() -> Ensemble:
    members = (Member("b", "rot90"), Member("a", "identity"))
    return Ensemble(members, (3, 1), (0.5, 0.6, 0.7, 0.8), 0.65, "folds")


def test_the_selection_weights_recipes_and_views() -> None:
    ensemble, crossed = Ensemble.select(RESULTS, LABELS, GOAL, num_picks=10)
    candidates = member_probabilities(RESULTS)
    assert set(ensemble.members) <= set(candidates)
    assert sum(ensemble.weights) == np.argmax(ensemble.scores) + 1
    assert list(ensemble.weights) == sorted(ensemble.weights, reverse=True)
    assert len(ensemble.scores) == 10
    assert GOAL.metric(ensemble.combine(candidates), LABELS) == pytest.approx(max(ensemble.scores))
    stacked = np.stack(list(candidates.values()))
    expected = cross_fitted_predictions(stacked, LABELS, RESULTS[0].fold_of_row, GOAL, 10)
    np.testing.assert_array_equal(crossed, expected)
    assert ensemble.cross_fitted_score == GOAL.metric(crossed, LABELS)
    assert ensemble.cross_fitted_score < max(ensemble.scores)


def test_candidates_are_all_recipes_in_all_views() -> None:
    candidates = member_probabilities(RESULTS)
    assert set(candidates) == {Member(key, view) for key in "abc" for view in ("identity", "rot90")}
    np.testing.assert_array_equal(candidates[Member("b", "rot90")], RESULTS[1].probabilities[1])


def test_combining_is_the_weighted_mean_of_its_members_alone() -> None:
    rows = np.arange(5)
    results = [
        FoldAverage(rows, ("identity", "rot90"), result.probabilities[:, :5], result.recipe_key, "folds")
        for result in RESULTS
    ]
    combined = make_ensemble().combine(member_probabilities(results))
    expected = (3 * RESULTS[1].probabilities[1, :5] + RESULTS[0].probabilities[0, :5]) / 4
    np.testing.assert_allclose(combined, expected, rtol=1e-6)
    with pytest.raises(ArtifactError, match="no 'rot90' view of recipe b"):
        make_ensemble().combine(member_probabilities(results[:1]))


@pytest.mark.parametrize("change", [{"folds_digest": "other"}, {"rows": np.arange(60) + 1}])
def test_results_of_other_folds_or_rows_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ArtifactError, match="share their folds"):
        Ensemble.select([RESULTS[0], replace(RESULTS[1], **change)], LABELS, GOAL)


def test_a_recipe_that_occurs_twice_is_refused() -> None:
    with pytest.raises(ArtifactError, match="a candidate once"):
        Ensemble.select([RESULTS[0], RESULTS[0]], LABELS, GOAL)


def test_a_selection_without_results_is_refused() -> None:
    with pytest.raises(DataError, match="got none"):
        Ensemble.select([], LABELS, GOAL)


@pytest.mark.parametrize(
    "change",
    [
        {"weights": (1, 0)},
        {"weights": (1,)},
        {"members": (Member("a", "identity"),) * 2},
        {"members": (), "weights": ()},
    ],
)
def test_invalid_members_or_weights_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ArtifactError, match="positive weight"):
        replace(make_ensemble(), **change)


def test_a_written_ensemble_is_read_back_unchanged(tmp_path: Path) -> None:
    make_ensemble().write(tmp_path / "ensemble.json")
    assert Ensemble.read(tmp_path / "ensemble.json") == make_ensemble()


@pytest.mark.parametrize("spoiled", [[], {}, {"members": [{"view": "identity"}]}, {"members": 3}, {"members": None}])
def test_a_file_of_something_else_is_refused(tmp_path: Path, spoiled: object) -> None:
    write_json(tmp_path / "ensemble.json", spoiled)
    with pytest.raises(ArtifactError, match="must hold an ensemble"):
        Ensemble.read(tmp_path / "ensemble.json")


def test_a_file_without_the_cross_fitted_score_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ensemble.json"
    make_ensemble().write(path)
    write_json(path, {name: value for name, value in read_json(path).items() if name != "cross_fitted_score"})
    with pytest.raises(ArtifactError, match="cross_fitted_score"):
        Ensemble.read(path)
