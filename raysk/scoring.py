"""The scores of rows, from the predictions in a run; without torch."""

import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import raysk
from raysk.artifacts import read_json, write_json
from raysk.errors import ArtifactError
from raysk.evaluation.ensemble import Ensemble, member_probabilities
from raysk.evaluation.leaderboard import Row
from raysk.evaluation.metrics import Metric
from raysk.evaluation.operating_points import LabelledRows, OperatingPoint, operating_points
from raysk.evaluation.predictions import OutOfFold, Predictions, TestPredictions, fold_average
from raysk.evaluation.requirement_checks import RequirementCheck, check_requirement
from raysk.evaluation.row_scores import scores_on_test, scores_out_of_fold
from raysk.records import Part
from raysk.run import Run

if TYPE_CHECKING:  # torch, which only a recipe needs
    from raysk.recipe import Recipe

HELD_OUT = "held-out folds"
TEST_PART = "locked test part"
NOTHING = "nothing"

# The one view of the predictions of an ensemble, whose members have views of their own.
_OF_AN_ENSEMBLE = "weighted mean"


def read_held_out(run: Run, key: str) -> OutOfFold:
    """Reads the predictions of a recipe's fold models on their held-out rows; or of an ensemble, if it has a row.

    Raises:
        ArtifactError: A fold is missing.
    """
    return OutOfFold.from_folds(_of_all_folds(run, key, "held_out"), run.folds)


def read_test(run: Run, recipe_key: str) -> TestPredictions:
    """Reads the predictions of a recipe's fold models on the locked test part, averaged.

    Raises:
        ArtifactError: A fold is missing.
    """
    return fold_average(_of_all_folds(run, recipe_key, "test"), run.folds)


def probabilities_on_test(run: Run, row: Row) -> np.ndarray:
    """Returns the probabilities (N, C) of a row on the locked test part.

    Raises:
        ArtifactError: A fold of the recipe, or of a member of the ensemble, is missing.
    """
    if row.kind != "ensemble":
        return read_test(run, row.key).mean()
    return combined_test(run, Ensemble.read(run.ensemble_file(row.name)))


def combined_test(run: Run, ensemble: Ensemble) -> np.ndarray:
    """Returns the probabilities (N, C) of an ensemble on the locked test part."""
    keys = dict.fromkeys(member.recipe_key for member in ensemble.members)
    return ensemble.combine(member_probabilities([read_test(run, key) for key in keys]))


def write_held_out(run: Run, key: str, where: OutOfFold, probabilities: np.ndarray) -> None:
    """Writes the out-of-fold predictions of an ensemble, so that `read_held_out` finds them as those of a recipe.

    Args:
        run: The run directory.
        key: Key of the ensemble.
        where: Has the rows.
        probabilities: (N, C); with several divisions, those of each row are written for each of them.
    """
    for fold in range(len(run.folds)):
        places = np.searchsorted(where.rows, run.folds.scored_rows(fold, "held_out"))
        Predictions.of_fold(
            run.manifest,
            run.folds,
            fold=fold,
            part="held_out",
            recipe_key=key,
            views=[_OF_AN_ENSEMBLE],
            probabilities=probabilities[np.newaxis, places].astype(where.probabilities.dtype),
            class_names=run.class_names,
        ).write(run.predictions_file(key, fold, "held_out"))


def _of_all_folds(run: Run, key: str, part: Part) -> list[Predictions]:
    folds = range(len(run.folds))
    for fold in folds:
        if not run.predictions_file(key, fold, part).exists():
            rows = "test" if part == "test" else "held-out"
            raise ArtifactError(
                f"all {len(folds)} fold models must have predicted the {rows} rows, but fold {fold} of recipe {key} "
                "has not: choose a row of the leaderboard, or continue the study with --resume"
            )
    return [run.predictions(key, fold, part) for fold in folds]


def all_scores(run: Run, where: OutOfFold, held_out: np.ndarray, test: np.ndarray, metric: Metric) -> dict[str, float]:
    """Returns the scores out of fold and on the test part.

    Args:
        run: The labels and groups.
        where: The rows and folds of `held_out`.
        held_out: (N, C) probabilities.
        test: (M, C) probabilities of the test part.
        metric: The metric that orders the rows.
    """
    manifest, names = run.manifest, run.class_names
    out_of_fold = scores_out_of_fold(held_out, run.truth[where.rows], where.fold_of_row, names, metric)
    rows = run.folds.test_rows
    return out_of_fold | scores_on_test(test, run.truth[rows], manifest.groups[rows], names, metric)


def requirement_checks(run: Run, where: OutOfFold, held_out: np.ndarray) -> tuple[RequirementCheck, ...]:
    """Returns how a row meets each requirement of the study; arguments as in `all_scores`."""
    labels, groups = run.truth[where.rows], run.manifest.groups[where.rows]
    return tuple(check_requirement(requirement, held_out, labels, groups) for requirement in run.goal.requirements)


def row_operating_points(
    run: Run, where: OutOfFold, held_out: np.ndarray, test: np.ndarray
) -> tuple[OperatingPoint, ...]:
    """Returns the operating points of a row; arguments as in `all_scores`."""
    labels = run.truth
    of_folds, of_test = LabelledRows(held_out, labels[where.rows]), LabelledRows(test, labels[run.folds.test_rows])
    return operating_points(run.goal.requirements, of_folds, where.fold_of_row, of_test)


def chosen_on(recipe: "Recipe", earlier: str = NOTHING) -> str:
    """Returns the rows that influenced a recipe.

    Args:
        recipe: The recipe; a probe that can end stage one reads the held-out folds.
        earlier: The rows on which an earlier run chose it; nothing if it was fixed before any score was seen.
    """
    if earlier != NOTHING:
        return earlier
    return HELD_OUT if recipe.stage_one is not None and recipe.stage_one.patience > 0 else NOTHING


def encoder_note(run: Run, recipe_keys: Iterable[str]) -> str:
    """Returns what is known of the weights that recipes began with, for their row; "" if nothing is to be said."""
    sources = {str(run.recipe(key).model.source) for key in recipe_keys}
    return "; ".join(dict.fromkeys(note for source, note in sorted(run.facts.notes.items()) if source in sources))


def strictest(chosen_on: Iterable[str]) -> str:
    """Returns what an average of rows was chosen on, from what each of them was: nothing only if all were."""
    return next((rows for rows in chosen_on if rows != NOTHING), NOTHING)


def count_opening(run: Run, recipe_keys: Sequence[str]) -> int:
    """Records that a study looks at the test part, and returns how often it has; the same recipes again count once.

    Args:
        run: The run directory; `test_openings.json` in it lists the recipes of each opening.
        recipe_keys: The recipes that are scored there.

    Raises:
        ArtifactError: The file holds something else.
    """
    path, keys = run.folder / "test_openings.json", sorted(recipe_keys)
    # A run of an older version has a leaderboard, but did not count.
    openings = read_json(path) if path.exists() else [[]] * (run.folder / "leaderboard.json").exists()
    if not isinstance(openings, list):
        raise ArtifactError(f"{path} must be a list of openings, but got {openings!r:.40}: restore it")
    if not openings or openings[-1] != keys:
        openings = [*openings, keys]
        write_json(path, openings)
    return len(openings)


def training_cost(run: Run, recipe_key: str) -> tuple[float, int]:
    """Returns the seconds and images of all folds; a shared encoder counts in full for each recipe."""
    seconds, images = 0.0, 0
    for record in run.training_records(recipe_key):
        for stage in filter(None, (record.stage_one, record.stage_two)):
            seconds, images = seconds + stage.seconds, images + stage.images
    return seconds, images


def commit() -> str:
    """Returns the commit of the running source tree, or the version of an installed package."""
    tree = Path(raysk.__file__).parent.parent
    if not (tree / ".git").exists():
        return raysk.__version__
    git = subprocess.run(["git", "-C", str(tree), "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return git.stdout.strip() or raysk.__version__
