"""Ensembles over recipes and test-time views."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from raysk.artifacts import read_json, write_json
from raysk.errors import ArtifactError, DataError
from raysk.evaluation.goals import Goal
from raysk.evaluation.predictions import OutOfFold, TestPredictions
from raysk.evaluation.selection import cross_fitted_predictions, greedy_selection, weighted_mean

# The names of a study's ensembles.
GREEDY = "ensemble: greedy"
AVERAGE = "ensemble: plain average"


class Member(NamedTuple):
    """A member of an ensemble: one recipe in one test-time view."""

    recipe_key: str
    view: str


def member_probabilities(results: Sequence[OutOfFold] | Sequence[TestPredictions]) -> dict[Member, np.ndarray]:
    """Returns the (N, C) probabilities of every recipe and view, on the same rows in the same order.

    Raises:
        ArtifactError: The results are of different folds or rows, or a recipe occurs twice.
    """
    for result in results[1:]:
        if result.folds_digest != results[0].folds_digest or not np.array_equal(result.rows, results[0].rows):
            raise ArtifactError(
                f"members of an ensemble must share their folds, but recipe {results[0].recipe_key} is on "
                f"{results[0].folds_digest} and {result.recipe_key} on {result.folds_digest}: keep to one study"
            )
    by_member: dict[Member, np.ndarray] = {}
    for result in results:
        for view, probabilities in zip(result.views, result.probabilities, strict=True):
            member = Member(result.recipe_key, view)
            if member in by_member:
                raise ArtifactError(f"a recipe must be a candidate once, but got {member} twice: remove the duplicate")
            by_member[member] = probabilities
    return by_member


@dataclass(frozen=True)
class Ensemble:
    """A weighted average of members.

    Attributes:
        members: The members.
        weights: How often the selection picked each member, at least once.
        scores: Score after each pick, by the study's metric, on the rows that made the selection: not for reporting.
        cross_fitted_score: Score of the same procedure on rows that did not make the selection.
        folds_digest: The folds of all members.

    Raises:
        ArtifactError: There is no member, a member occurs twice, or a weight is not positive.
    """

    members: tuple[Member, ...]
    weights: tuple[int, ...]
    scores: tuple[float, ...]
    cross_fitted_score: float
    folds_digest: str

    def __post_init__(self) -> None:
        fitting = len(self.members) == len(self.weights) > 0 and min(self.weights) > 0
        if not fitting or len(set(self.members)) != len(self.members):
            raise ArtifactError(
                "an ensemble must have different members with a positive weight each, "
                f"but got {len(self.members)} members and weights {list(self.weights)}: select it again"
            )

    @classmethod
    def select(
        cls, results: Sequence[OutOfFold], labels: np.ndarray, goal: Goal, num_picks: int = 25
    ) -> tuple["Ensemble", np.ndarray]:
        """Selects an ensemble greedily from all recipes and views, on all out-of-fold rows.

        Args:
            results: The candidates.
            labels: (N,) classes of the results' rows.
            goal: As in `greedy_selection`.
            num_picks: As in `greedy_selection`.

        Returns:
            The ensemble, and its cross-fitted predictions (N, C): the rows that chose the weights cannot score them, so
            each fold is predicted with the weights that the other folds choose.

        Raises:
            ArtifactError: The results are of different folds or rows, or a recipe occurs twice.
            DataError: There are no results, or the number of labels is not N.
        """
        if not results:
            raise DataError("an ensemble needs at least one recipe with all of its folds, but got none: finish one")
        candidates = member_probabilities(results)
        probabilities = np.stack(list(candidates.values()))
        selection = greedy_selection(probabilities, labels, goal, num_picks)
        picked = [(member, int(weight)) for member, weight in zip(candidates, selection.weights, strict=True) if weight]
        picked.sort(key=lambda pair: -pair[1])
        crossed = cross_fitted_predictions(probabilities, labels, results[0].fold_of_row, goal, num_picks)
        ensemble = cls(
            tuple(member for member, _ in picked),
            tuple(weight for _, weight in picked),
            selection.scores,
            float(goal.metric(crossed, labels)),
            results[0].folds_digest,
        )
        return ensemble, crossed

    def combine(self, probabilities: Mapping[Member, np.ndarray]) -> np.ndarray:
        """Returns the weighted mean of the members, (N, C).

        Args:
            probabilities: (N, C) by member, as from `member_probabilities`; other members are ignored.

        Raises:
            ArtifactError: A member is missing.
        """
        missing = [member for member in self.members if member not in probabilities]
        if missing:
            raise ArtifactError(
                f"all members of an ensemble must be predicted, but got no {missing[0].view!r} view of recipe "
                f"{missing[0].recipe_key}: predict it first"
            )
        return weighted_mean(np.stack([probabilities[member] for member in self.members]), np.array(self.weights))

    def write(self, path: Path) -> None:
        """Writes the ensemble as JSON."""
        members = [
            {"recipe_key": member.recipe_key, "view": member.view, "weight": weight}
            for member, weight in zip(self.members, self.weights, strict=True)
        ]
        write_json(
            path,
            {
                "members": members,
                "scores": self.scores,
                "cross_fitted_score": self.cross_fitted_score,
                "folds_digest": self.folds_digest,
            },
        )

    @classmethod
    def read(cls, path: Path) -> "Ensemble":
        """Reads the file that `write` wrote.

        Raises:
            ArtifactError: The file is missing or does not hold an ensemble.
        """
        content = read_json(path)
        try:
            return cls(
                tuple(Member(member["recipe_key"], member["view"]) for member in content["members"]),
                tuple(member["weight"] for member in content["members"]),
                tuple(content["scores"]),
                content["cross_fitted_score"],
                content["folds_digest"],
            )
        except (KeyError, TypeError) as error:
            raise ArtifactError(
                f"{path} must hold an ensemble, but its content is wrong ({error}): select it again"
            ) from error
