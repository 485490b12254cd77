"""A run as pandas data frames, for a notebook: `raysk.open_run`. Only a recipe needs torch; nothing here needs ray."""

import os
from collections.abc import Callable, Iterator
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pandas as pd

from raysk.errors import ArtifactError, ConfigError
from raysk.evaluation.class_columns import class_columns
from raysk.evaluation.ensemble import GREEDY, Ensemble, member_probabilities
from raysk.evaluation.leaderboard import Leaderboard, find_row
from raysk.evaluation.metrics.masks import scores_of_pictures
from raysk.evaluation.predictions import OutOfFold, TestPredictions
from raysk.records import StageRecord
from raysk.reranking import rerank
from raysk.run import Run
from raysk.scoring import read_held_out, read_test

if TYPE_CHECKING:
    from raysk.recipe import Recipe

_MEASURES = ("probe", "linear_probe", "neighbour_probe", "alignment", "uniformity", "effective_rank")
_Result = TypeVar("_Result", OutOfFold, TestPredictions)


def open_run(folder: str | Path) -> "RunResults":
    """Opens the run directory of `raysk tune` or `raysk train`.

    Raises:
        ArtifactError: The folder has no run, or a run of another schema.
        ConfigError: The folder is not local.
    """
    if "://" in str(folder):
        raise ConfigError(f"a run directory must be a local folder, but got {str(folder)!r}: copy it first")
    return RunResults(Run.open(Path(os.path.expanduser(folder))))


class RunResults:
    """The results of a run. Each method reads its files anew and returns a new data frame.

    A `row` of the leaderboard is given by its place (1 is the best), its name, or its key or the start of its key. The
    whole key of a recipe also names a recipe without a row, such as a member of an ensemble.

    Attributes:
        run: The run directory.
    """

    def __init__(self, run: Run) -> None:
        self.run = run

    def __repr__(self) -> str:
        return f"raysk.open_run({str(self.run.folder)!r})"

    @property
    def folder(self) -> Path:
        """The path of the run directory."""
        return self.run.folder

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes, in the order of their columns; none if the run predicts masks."""
        return self.run.class_names

    def board(self, metric: str | None = None) -> pd.DataFrame:
        """Returns the leaderboard: one line per row under its place, with the columns of leaderboard.csv.

        Args:
            metric: Ranks the rows anew by another metric, such as "auc@mel"; None is the study's.

        Raises:
            ArtifactError: The study has not written its leaderboard yet.
            ConfigError: The metric does not exist, or is not defined on these rows.
        """
        board = self._leaderboard() if metric is None else rerank(self.run, metric)
        places = pd.RangeIndex(1, len(board.rows) + 1, name="place")
        return board.to_table().to_pandas().set_index(places)

    def row(self, row: int | str) -> pd.Series:
        """Returns one row of the leaderboard; its name is its place.

        Raises:
            ArtifactError: No row matches, or several do.
        """
        board = self._leaderboard()
        return self.board().iloc[board.rows.index(find_row(board, _text(row)))]

    def recipe(self, row: int | str) -> "Recipe":
        """Returns the recipe of a row; `to_plain()` gives it as plain values. This loads torch.

        Raises:
            ArtifactError: No row matches, several do, or the row is an ensemble.
        """
        return self.run.recipe(self._recipe_key(row))

    def members(self, row: int | str = GREEDY) -> pd.DataFrame:
        """Returns the members of an ensemble, one recipe in one test-time view per line.

        Returns:
            The columns "recipe" (its key), "name" (of its row; empty without one), "view", "weight" and "share" (the
            weight divided by the sum of all).

        Raises:
            ArtifactError: No row matches, several do, or the row is a single recipe.
        """
        key, ensemble = self._find(row)
        if ensemble is None:
            raise ArtifactError(f"ROW must be an ensemble to have members, but {key} is one recipe: name an ensemble")
        names = {entry.key: entry.name for entry in self._leaderboard().rows}
        frame = pd.DataFrame(list(ensemble.members), columns=["recipe", "view"])
        frame.insert(1, "name", [names.get(member.recipe_key, "") for member in ensemble.members])
        return frame.assign(weight=ensemble.weights, share=np.array(ensemble.weights) / sum(ensemble.weights))

    def out_of_fold(self, row: int | str) -> pd.DataFrame:
        """Returns the probabilities of all rows of the folds, each by models that did not learn from it.

        They are the mean over the test-time views, or over the members of an ensemble with their weights. All folds
        chose the weights of the greedy ensemble, so score it with the leaderboard's cross-fitted scores instead.

        Returns:
            One line per image under its row of the manifest, with the columns "image", "group", "label", "fold", and
            one per class. A class that is called like one of the other columns gets the column "p(NAME)". Of masks, one
            per usual score of a picture, such as "dice".

        Raises:
            ArtifactError: No row matches, several do, or a fold is missing.
        """
        result, probabilities = self._predicted(row, read_held_out)
        return self._frame(result.rows, probabilities, fold=result.fold_of_row)

    def test_part(self, row: int | str) -> pd.DataFrame:
        """Returns the probabilities of the locked test part, the mean over the fold models.

        Returns:
            As `out_of_fold`, without the column "fold".

        Raises:
            ArtifactError: No row matches, several do, or the study has not predicted the test part with this recipe.
        """
        result, probabilities = self._predicted(row, read_test)
        return self._frame(result.rows, probabilities)

    def curves(self, row: int | str) -> pd.DataFrame:
        """Returns the learning curves of a recipe over its finished folds.

        Returns:
            One line per fold, stage and epoch, with the columns "fold", "stage", "epoch" (from 1), "loss" and the
            health of stage one ("probe", "linear_probe", "neighbour_probe", "alignment", "uniformity",
            "effective_rank"; NaN in stage two).

        Raises:
            ArtifactError: No row matches, several do, the row is an ensemble, or no fold is finished.
        """
        key = self._recipe_key(row)
        records = self.run.training_records(key)
        if not records:
            raise ArtifactError(f"a recipe must have a finished fold to have curves, but {key} has none: finish one")
        lines = [
            line
            for record in records
            for stage, course in (("stage one", record.stage_one), ("stage two", record.stage_two))
            if course is not None
            for line in _lines(record.fold, stage, course)
        ]
        return pd.DataFrame(lines, columns=["fold", "stage", "epoch", "loss", *_MEASURES])

    def _leaderboard(self) -> Leaderboard:
        path = self.run.folder / "leaderboard.json"
        if not path.exists():
            raise ArtifactError(f"{path} must exist, but the study has not ended: wait, or continue it with --resume")
        return Leaderboard.read(path)

    def _find(self, row: int | str) -> tuple[str, Ensemble | None]:
        """Returns the key of a row, and its ensemble if it is one."""
        text = _text(row)
        if text in {path.stem for path in (self.run.folder / "recipes").glob("*.json")}:
            return text, None
        match = find_row(self._leaderboard(), text)
        return match.key, Ensemble.read(self.run.ensemble_file(match.name)) if match.kind == "ensemble" else None

    def _recipe_key(self, row: int | str) -> str:
        key, ensemble = self._find(row)
        if ensemble is not None:
            raise ArtifactError(f"ROW must be a single recipe, but {row!r} averages several: take one of its members()")
        return key

    def _predicted(self, row: int | str, read: Callable[[Run, str], _Result]) -> tuple[_Result, np.ndarray]:
        """Returns a result with the rows, and the probabilities (N, C)."""
        key, ensemble = self._find(row)
        if ensemble is None:
            result = read(self.run, key)
            return result, result.mean()
        results = [read(self.run, key) for key in dict.fromkeys(member.recipe_key for member in ensemble.members)]
        return results[0], ensemble.combine(member_probabilities(results))

    def _frame(self, rows: np.ndarray, probabilities: np.ndarray, **more: np.ndarray) -> pd.DataFrame:
        known = self.run.manifest.table.select(["image", "group", "label"]).take(rows).to_pandas().assign(**more)
        if self.class_names:
            predicted = pd.DataFrame(probabilities, columns=class_columns(self.class_names, list(known.columns)))
        else:
            predicted = pd.DataFrame(scores_of_pictures(probabilities, self.run.truth[rows]))
        return pd.concat([known, predicted], axis=1).set_index(pd.Index(rows, name="row"))


def _text(row: object) -> str:
    if isinstance(row, bool) or not isinstance(row, (str, int, np.integer)):
        raise ConfigError(
            f"ROW must be a place, a name or a key, but got a {type(row).__name__}: give a number or text"
        )
    return str(row)


def _lines(fold: int, stage: str, course: StageRecord) -> Iterator[dict[str, Any]]:
    """Yields one line per epoch of a stage."""
    for place in range(max(len(course.losses), len(course.health))):
        loss = course.losses[place] if place < len(course.losses) else nan
        health = course.health[place] if place < len(course.health) else None
        measures = {name: nan if health is None else getattr(health, name) for name in _MEASURES}
        yield {"fold": fold, "stage": stage, "epoch": place + 1, "loss": loss} | measures
