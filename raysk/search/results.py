"""The results of a study: the ensemble, the predictions of the locked test part, and the leaderboard."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from optuna.trial import FrozenTrial

from raysk.artifacts import digest_of
from raysk.data.manifest import NO_LABEL, Manifest
from raysk.evaluation.comparison import ChoiceScore
from raysk.evaluation.comparison_tables import ComparisonTable
from raysk.evaluation.ensemble import AVERAGE, GREEDY, Ensemble, member_probabilities
from raysk.evaluation.formats import write_leaderboard
from raysk.evaluation.leaderboard import Leaderboard, Row
from raysk.evaluation.predictions import OutOfFold, TestPredictions
from raysk.evaluation.requirement_checks import requirement_facts
from raysk.evaluation.summary import BEST_SINGLE, CHOICE, TEST_OPENED, cross_fitted_fact
from raysk.mask_sheet import write_mask_sheet
from raysk.run import Run
from raysk.run_facts import unlabelled_facts
from raysk.scoring import (
    HELD_OUT,
    TEST_PART,
    all_scores,
    combined_test,
    commit,
    encoder_note,
    read_held_out,
    read_test,
    requirement_checks,
    row_operating_points,
    strictest,
    training_cost,
    write_held_out,
)
from raysk.search.candidates import Candidate
from raysk.search.trial_records import TrialRecord

_OF_ONE_FOLD = (
    "racing stopped recipes, so only the last fold of the race scores the choice of the others: without bias, but with "
    "the noise of one fold"
)

# A class with fewer groups in the test part is named beside the leaderboard.
FEW_GROUPS = 15


@dataclass(frozen=True)
class Entry:
    """A candidate with a row, and its predictions.

    Args:
        candidate: The candidate.
        held_out: Its out-of-fold predictions.
        test: Its predictions of the locked test part, averaged over the fold models.
    """

    candidate: Candidate
    held_out: OutOfFold
    test: TestPredictions


def read_entries(run: Run, candidates: Sequence[Candidate]) -> list[Entry]:
    """Reads the predictions of all candidates that have a row."""
    shown = [candidate for candidate in candidates if candidate.has_row]
    return [
        Entry(candidate, read_held_out(run, candidate.recipe.key), read_test(run, candidate.recipe.key))
        for candidate in shown
    ]


def select_ensemble(run: Run, held_out: Sequence[OutOfFold]) -> tuple[Ensemble, np.ndarray]:
    """Selects the ensemble on the held-out rows alone and writes it, before the test part is opened.

    Returns:
        The ensemble, and its cross-fitted predictions (N, C); see `Ensemble.select`.
    """
    ensemble, crossed = Ensemble.select(held_out, run.truth[held_out[0].rows], run.goal)
    ensemble.write(run.ensemble_file(GREEDY))
    return ensemble, crossed


def result_rows(run: Run, entries: Sequence[Entry], ensemble: Ensemble, crossed: np.ndarray) -> list[Row]:
    """Returns the rows of all recipes and ensembles, and writes what the ensembles predict out of fold."""
    rows = [_recipe_row(run, entry) for entry in entries]
    held_out = member_probabilities([entry.held_out for entry in entries])
    average = Ensemble(tuple(held_out), (1,) * len(held_out), (), 0.0, run.folds.digest)
    average.write(run.ensemble_file(AVERAGE))
    where, members = entries[0].held_out, strictest(entry.candidate.chosen_on for entry in entries)
    return [
        *rows,
        _ensemble_row(run, where, GREEDY, ensemble, crossed, HELD_OUT),
        _ensemble_row(run, where, AVERAGE, average, average.combine(held_out), members),
    ]


def best_single(run: Run, rows: Sequence[Row]) -> Row:
    """Returns the row of the best single recipe on the held-out folds, by the goal of the study."""
    goal, name = run.goal, f"oof_{run.goal.metric.name}"

    def merit(row: Row) -> float:
        shortfall = goal.shortfalls(run.fold_scores(row.key).mean(axis=1))
        return float(goal.merits_of(np.array(row.scores[name]), shortfall))

    return max((row for row in rows if row.kind != "ensemble"), key=merit)


def study_facts(run: Run, rows: Sequence[Row], best: Row, choice: ChoiceScore, num_openings: int) -> dict[str, str]:
    """Returns what the leaderboard says about all its rows.

    Args:
        run: The run directory.
        rows: All rows.
        best: The best single recipe on the held-out folds.
        choice: The honest score of that choice.
        num_openings: How often the study has looked at the test part.
    """
    repeats = f", {len(run.folds.divisions)} times" if len(run.folds.divisions) > 1 else ""
    opened = "opened once, after the held-out folds had chosen"
    if num_openings > 1:
        opened = f"opened {num_openings} times: what was chosen after the first time may follow from its scores"
    return {
        "space": run.facts.space,
        "rows": _rows(run.manifest),
        **unlabelled_facts(run.folds),
        "folds": f"{run.folds.k}{repeats}, and {len(run.folds.test_rows)} images locked away as the test part",
        BEST_SINGLE: best.name,
        cross_fitted_fact(run.goal.metric): f"{choice.score:.3f}",
        **({CHOICE: _OF_ONE_FOLD} if choice.is_of_one_fold else {}),
        TEST_OPENED: opened,
        GREEDY: "its weights are cross-fitted, but all rows of the folds ranked the recipes that it could pick from, "
        "which flatters its score out of fold a little",
        **_rare_classes(run),
        **requirement_facts(run.goal.requirements, {row.name: row.requirements for row in rows}),
        "command": run.facts.command,
    }


def _rows(manifest: Manifest) -> str:
    labelled = np.flatnonzero(manifest.labels != NO_LABEL)
    return f"{len(labelled)} images in {len(np.unique(manifest.groups[labelled]))} groups"


def _rare_classes(run: Run) -> dict[str, str]:
    """Returns a warning that names the classes with few groups in the test part, if there are any."""
    labels, groups = run.manifest.labels[run.folds.test_rows], run.manifest.groups[run.folds.test_rows]
    num_groups = {name: len(np.unique(groups[labels == label])) for label, name in enumerate(run.class_names)}
    few = [f"{name} ({number})" for name, number in num_groups.items() if number < FEW_GROUPS]
    return {"few groups in the test part": f"{', '.join(few)}: scores of these classes say little"} if few else {}


def write_results(
    run: Run, rows: Sequence[Row], notes: Mapping[str, str], tables: Sequence[ComparisonTable] = (), chosen: str = ""
) -> Leaderboard:
    """Writes the leaderboard in every format; `chosen` is the key of the best single recipe on the held-out folds."""
    names, metric = run.class_names, run.goal.metric.name
    leaderboard = Leaderboard(tuple(rows), names, notes, tuple(tables), metric, chosen)
    write_leaderboard(leaderboard, run.folder)
    if leaderboard.rows and not run.class_names:
        write_mask_sheet(run, leaderboard)
    return leaderboard


def _recipe_row(run: Run, entry: Entry) -> Row:
    candidate = entry.candidate
    seconds, images = training_cost(run, candidate.recipe.key)
    crossfit = {} if candidate.crossfit is None else {f"oof_{run.goal.metric.name}_crossfit": candidate.crossfit}
    return Row(
        key=candidate.recipe.key,
        name=candidate.name,
        kind=candidate.recipe.kind,
        scores=all_scores(run, entry.held_out, entry.held_out.mean(), entry.test.mean(), run.goal.metric) | crossfit,
        chosen_on=candidate.chosen_on,
        scored_on=TEST_PART,
        seconds=seconds + candidate.seconds,
        images=images,
        commit=commit(),
        command=command(run, candidate),
        settings=", ".join(candidate.overrides),
        encoder=encoder_note(run, [candidate.recipe.key]),
        requirements=requirement_checks(run, entry.held_out, entry.held_out.mean()),
        operating_points=row_operating_points(run, entry.held_out, entry.held_out.mean(), entry.test.mean()),
    )


def _ensemble_row(
    run: Run,
    where: OutOfFold,
    name: str,
    ensemble: Ensemble,
    held_out: np.ndarray,
    chosen_on: str,
) -> Row:
    used = {member.recipe_key for member in ensemble.members}
    costs = [training_cost(run, key) for key in used]
    members = [[*member, weight] for member, weight in zip(ensemble.members, ensemble.weights, strict=True)]
    key, test = digest_of([name, members]), combined_test(run, ensemble)
    write_held_out(run, key, where, held_out)
    return Row(
        key=key,
        name=name,
        kind="ensemble",
        scores=all_scores(run, where, held_out, test, run.goal.metric),
        chosen_on=chosen_on,
        scored_on=TEST_PART,
        seconds=sum(seconds for seconds, _ in costs),
        images=sum(images for _, images in costs),
        commit=commit(),
        command=run.facts.repeating_command,
        settings=f"{len(ensemble.members)} members of {len(used)} recipes",
        encoder=encoder_note(run, used),
        requirements=requirement_checks(run, where, held_out),
        operating_points=row_operating_points(run, where, held_out, test),
    )


def loose_ends(run: Run, trials: Sequence[FrozenTrial], left_out: str = "") -> dict[str, str]:
    """Returns notes on the recipes that have no row, or not the row that they should have.

    Args:
        run: The run directory.
        trials: All trials of the study.
        left_out: The controls that it did not begin; "" if it began all.
    """
    notes = {"controls left out": left_out} if left_out else {}
    for trial in trials:
        record = TrialRecord.of(trial)
        name = record.point
        if record.reason is not None:
            notes[f"not ranked: {name}"] = f"failed: {record.reason}"
        elif trial.state.name == "RUNNING" and len(run.folds) in trial.intermediate_values:
            notes[f"ranked without its search of stage two: {name}"] = "--resume goes on with the search"
        elif trial.state.name == "RUNNING":
            notes[f"not ranked: {name}"] = "unfinished: --resume goes on with it"
        elif trial.state.name == "PRUNED":
            done = f"{len(trial.intermediate_values)} of {len(run.folds)} folds"
            notes[f"not ranked: {name}"] = f"stopped after {done}, another recipe is better"
    return notes


def command(run: Run, candidate: Candidate) -> str:
    """Returns the command line that repeats one row from its run."""
    folder = shlex.quote(str(run.folder))
    return f"raysk recipe {folder} {candidate.recipe.key} > recipe.yaml && raysk train recipe.yaml"
