"""Comparison tables of a study: families at equal budgets, the ablation, and the significance of differences."""

from collections.abc import Mapping, Sequence

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from raysk.evaluation.comparison import compare, cross_fitted_choice, scores_elsewhere
from raysk.evaluation.comparison_tables import ComparisonTable, expected_best_table, grid_table, significance_table
from raysk.evaluation.leaderboard import Row
from raysk.recipe import Job
from raysk.run import Run
from raysk.search.results import Entry
from raysk.search.trial_records import TrialRecord, latest
from raysk.spaces.space import Space


def study_tables(
    run: Run, space: Space, trials: Sequence[FrozenTrial], entries: Sequence[Entry], rows: Sequence[Row]
) -> list[ComparisonTable]:
    """Returns the comparison tables of a study.

    Args:
        run: The run directory.
        space: The searched space.
        trials: All trials, including those that racing stopped.
        entries: The candidates with a row.
        rows: Their scores.
    """
    tables = []
    if space.grid:
        scores = {row.name: row.scores for row in rows}
        tables.append(grid_table({name: scores.get(name, {}) for name in space.grid}))
    if len(space.families) > 1:
        if budgets := _budgets(run, space, trials):
            tables.append(expected_best_table(budgets))
        winners = _winners(space, entries, {row.key: row for row in rows})
        test = run.folds.test_rows
        if len(winners) > 1:
            contestants = {name: entry.test.mean() for name, entry in winners.items()}
            differences = compare(contestants, run.manifest.labels[test], run.manifest.groups[test])
            tables.append(significance_table(differences))
    return tables


def cross_fitted_best(run: Run, trials: Sequence[FrozenTrial]) -> float:
    """Returns the cross-fitted macro-F1 of choosing the study's best single recipe.

    Each fold is scored with the choice of the other folds, among all recipes and stage-two settings that were tried on
    all folds. (Optuna's late proposals have seen all folds, so a little of the choice remains in the score.)
    """
    scores, guides = [], []
    for trial in trials:
        record = TrialRecord.of(trial)
        recipe = run.recipe(record.recipe)
        of_trial = np.array([[run.record(Job(recipe, fold)).macro_f1 for fold in range(len(run.folds))]])
        scores.append(of_trial)
        guides.append(scores_elsewhere(of_trial, run.folds.k))
        if record.search is not None:
            tried = run.search(record.search).tried
            scores.append(np.array([setting.scores for setting in tried]))
            guides.append(np.array([setting.expected_elsewhere for setting in tried]))
    return float(cross_fitted_choice(np.vstack(scores), run.folds.k, np.vstack(guides)).mean())


def _budgets(run: Run, space: Space, trials: Sequence[FrozenTrial]) -> dict[str, list[float]]:
    """Returns the out-of-fold scores of each family's recipes.

    A recipe that racing stopped counts with the folds that it had: leaving it out would flatter its family.
    """
    budgets: dict[str, list[float]] = {family.name: [] for family in space.families}
    for trial in trials:
        record = TrialRecord.of(trial)
        if trial.state is TrialState.FAIL and record.reason is None:
            continue  # Another trial repeats it, after its driver died.
        if record.family in budgets and trial.intermediate_values:
            # The best of many settings of stage two is too high; the cross-fitted score is not.
            score = latest(trial) if record.search is None else run.search(record.search).crossfit
            budgets[record.family].append(score)
    return {family: scores for family, scores in budgets.items() if scores}


def _winners(space: Space, entries: Sequence[Entry], rows: Mapping[str, Row]) -> dict[str, Entry]:
    """Returns each family's best entry on the held-out folds, and the first control as reference."""
    reference = next(iter(space.controls), "")
    winners: dict[str, Entry] = {}
    for entry in entries:
        family, name = entry.candidate.family, entry.candidate.name
        if not family and name != reference:
            continue
        title = family or f"control {name}"
        if title not in winners or _worth(rows, entry) > _worth(rows, winners[title]):
            winners[title] = entry
    return winners


def _worth(rows: Mapping[str, Row], entry: Entry) -> float:
    scores = rows[entry.candidate.recipe.key].scores
    return scores.get("oof_macro_f1_crossfit", scores["oof_macro_f1"])
