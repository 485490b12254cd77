"""The end of a study: the ensemble, the locked test part, the leaderboard."""

import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from optuna.trial import FrozenTrial

import raysk
from raysk.artifacts import digest_of
from raysk.evaluation.ensemble import Ensemble, member_probabilities
from raysk.evaluation.formats import write_leaderboard
from raysk.evaluation.leaderboard import Leaderboard, Row, scores_on_test, scores_out_of_fold
from raysk.evaluation.predictions import OutOfFold, TestPredictions, fold_average
from raysk.evaluation.selection import cross_fitted_predictions
from raysk.recipe import Job, Recipe
from raysk.run import Run

TEST_PART = "locked test part"
HELD_OUT = "held-out folds"


@dataclass(frozen=True)
class Entry:
    """A recipe with all folds, and what it said of every row.

    Args:
        trial: Optuna's record of it.
        recipe: The recipe.
        held_out: Its predictions out of fold.
        test: Its predictions of the locked test part, fold models averaged.
    """

    trial: FrozenTrial
    recipe: Recipe
    held_out: OutOfFold
    test: TestPredictions


def read_entries(run: Run, trials: Sequence[FrozenTrial]) -> list[Entry]:
    """Reads the predictions of every recipe that has all folds; equal recipes are one entry."""
    entries = {}
    for trial in trials:
        key = trial.user_attrs["recipe"]
        if key not in entries:
            held_out, test = (
                [run.predictions(key, f, part) for f in range(run.folds.k)] for part in ("held_out", "test")
            )
            entries[key] = Entry(
                trial, run.recipe(key), OutOfFold.from_folds(held_out, run.folds), fold_average(test, run.folds)
            )
    return list(entries.values())


def select_ensemble(run: Run, held_out: Sequence[OutOfFold]) -> Ensemble:
    """Selects the ensemble on the held-out rows alone, and keeps it, before the test part is looked at."""
    ensemble = Ensemble.select(held_out, run.manifest.labels[held_out[0].rows])
    ensemble.write(run.folder / "ensemble.json")
    return ensemble


def write_results(run: Run, entries: Sequence[Entry], ensemble: Ensemble, notes: dict[str, str]) -> Leaderboard:
    """Scores recipes and ensembles, and writes the leaderboard in every format."""
    rows = [_recipe_row(run, entry) for entry in entries]
    tests = member_probabilities([entry.test for entry in entries])
    held_out = member_probabilities([entry.held_out for entry in entries])
    everything = Ensemble(
        members=tuple(held_out),
        weights=(1,) * len(held_out),
        scores=(),
        cross_fitted_score=0.0,
        folds_digest=run.folds.digest,
    )
    where = entries[0].held_out
    # What chose the weights cannot score them: each fold is scored with the weights that the other folds choose.
    crossed = cross_fitted_predictions(
        np.stack(list(held_out.values())), run.manifest.labels[where.rows], where.fold_of_row
    )
    rows += [
        _ensemble_row(run, entries, "ensemble: greedy", ensemble, crossed, ensemble.combine(tests)),
        _ensemble_row(
            run, entries, "ensemble: plain average", everything, everything.combine(held_out), everything.combine(tests)
        ),
    ]
    leaderboard = Leaderboard(tuple(rows), run.manifest.class_names, notes)
    write_leaderboard(leaderboard, run.folder)
    return leaderboard


def _recipe_row(run: Run, entry: Entry) -> Row:
    trial = entry.trial
    seconds, images = _cost(run, entry.recipe)
    return Row(
        key=entry.recipe.key,
        name=trial.user_attrs["point"],
        kind=entry.recipe.kind,
        scores=_scores(run, entry.held_out, entry.held_out.mean(), entry.test.mean()),
        # A named recipe was fixed before any score was seen; the search drew the others after looking at the folds.
        chosen_on=HELD_OUT if trial.user_attrs["kind"] == "drawn" else "nothing",
        scored_on=TEST_PART,
        seconds=seconds,
        images=images,
        commit=commit(),
        command=command(run, trial.user_attrs["overrides"]),
        settings=", ".join(trial.user_attrs["overrides"]),
    )


def _ensemble_row(
    run: Run, entries: Sequence[Entry], name: str, ensemble: Ensemble, held_out: np.ndarray, test: np.ndarray
) -> Row:
    used = {member.recipe_key for member in ensemble.members}
    costs = [_cost(run, entry.recipe) for entry in entries if entry.recipe.key in used]
    members = [[*member, weight] for member, weight in zip(ensemble.members, ensemble.weights, strict=True)]
    was_selected = bool(ensemble.scores)
    return Row(
        key=digest_of([name, members]),
        name=name,
        kind="ensemble",
        scores=_scores(run, entries[0].held_out, held_out, test),
        chosen_on=HELD_OUT if was_selected else "nothing",
        scored_on=TEST_PART,
        seconds=sum(seconds for seconds, _ in costs),
        images=sum(images for _, images in costs),
        commit=commit(),
        command=run.facts["command"],
        settings=f"{len(ensemble.members)} members of {len(used)} recipes",
    )


def _scores(run: Run, where: OutOfFold, held_out: np.ndarray, test: np.ndarray) -> dict[str, float]:
    manifest, names = run.manifest, run.manifest.class_names
    found = scores_out_of_fold(held_out, manifest.labels[where.rows], where.fold_of_row, names)
    rows = run.folds.test_rows
    return found | scores_on_test(test, manifest.labels[rows], manifest.groups[rows], names)


def _cost(run: Run, recipe: Recipe) -> tuple[float, int]:
    """Returns training seconds and images over all folds; a shared encoder counts in full for each recipe."""
    seconds, images = 0.0, 0
    for fold in range(run.folds.k):
        record = run.record(Job(recipe, fold))
        for stage in ("stage_one", "stage_two"):
            facts = record.get(stage, {"seconds": 0.0, "images": 0})
            seconds, images = seconds + facts["seconds"], images + facts["images"]
    return seconds, images


def command(run: Run, overrides: Sequence[str]) -> str:
    """Returns the command line that tries one point of the run's space, and nothing else."""
    words = ["raysk", "tune", "--space", run.facts["space"], "--trials", "1", *run.facts["overrides"], *overrides]
    return shlex.join(words)


def commit() -> str:
    """Returns the commit of the source tree that runs, or the version of the package."""
    tree = Path(raysk.__file__).parent.parent
    if not (tree / ".git").exists():
        return raysk.__version__
    found = subprocess.run(["git", "-C", str(tree), "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return found.stdout.strip() or raysk.__version__
