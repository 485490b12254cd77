"""Comparison tables of a study: families at equal budgets, the ablation, and the significance of differences."""

from collections.abc import Sequence

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from raysk.evaluation.comparison import ChoiceScore, compare, score_of_choice, scores_elsewhere
from raysk.evaluation.comparison_tables import (
    ComparisonTable,
    choices_table,
    expected_best_table,
    grid_table,
    significance_table,
)
from raysk.evaluation.leaderboard import Row
from raysk.run import Run
from raysk.search.finalists import worth
from raysk.search.results import Entry
from raysk.search.trial_records import TrialRecord, latest, origin
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
        choices = {point.choice for point in space.grid.values()}
        if len(choices) > 1 and "" not in choices:
            by_choice = {(point.method, point.choice): scores.get(name, {}) for name, point in space.grid.items()}
            tables.append(choices_table(by_choice, run.goal.metric))
        if run.class_names:
            tables.append(grid_table({name: scores.get(name, {}) for name in space.grid}))
    if len(space.families) > 1:
        if budgets := _budgets(run, space, trials):
            tables.append(expected_best_table(budgets, run.goal.metric))
        winners = _winners(run, space, entries)
        test = run.folds.test_rows
        if len(winners) > 1:
            contestants = {name: entry.test.mean() for name, entry in winners.items()}
            differences = compare(contestants, run.truth[test], run.manifest.groups[test], run.goal.metric)
            tables.append(significance_table(differences, run.goal.metric))
    return tables


def score_of_best(run: Run, trials: Sequence[FrozenTrial]) -> ChoiceScore:
    """Returns the honest score of choosing the study's best single recipe.

    A fold is scored with the choice of the other folds, first among the stage-two settings of each recipe, then among
    the recipes; see `score_of_choice`. (Optuna's late proposals have seen all folds, so a little of the choice remains
    in the score.)

    Args:
        run: The run directory.
        trials: All trials, including those that racing stopped.
    """
    goal, k, num_folds = run.goal, run.folds.k, len(run.folds)
    scores, guides = [], []
    for trial in trials:
        record, reached = TrialRecord.of(trial), min(num_folds, max(trial.intermediate_values, default=0))
        was_stopped = trial.state is TrialState.PRUNED and reached > 0
        if trial.state is TrialState.FAIL or not (reached == num_folds or was_stopped):
            continue
        of_trial = run.fold_scores(record.recipe, reached)
        of_trial = np.pad(of_trial, [(0, 0), (0, num_folds - reached)], constant_values=np.nan)
        elsewhere = np.stack([scores_elsewhere(of_metric[np.newaxis], k) for of_metric in of_trial], axis=2)
        scores.append(of_trial[:1])
        guides.append(goal.merits(elsewhere))
        if record.search is not None:
            search = run.search(record.search)
            scores.append(np.array([search.crossfit_scores]))
            guides.append(np.array([search.crossfit_merits]))
    choice = score_of_choice(goal.metric.oriented(np.vstack(scores)), k, np.vstack(guides))
    return choice._replace(score=float(goal.metric.oriented(choice.score)))


def _budgets(run: Run, space: Space, trials: Sequence[FrozenTrial]) -> dict[str, list[float]]:
    """Returns the out-of-fold scores of each family's recipes, one for each proposal.

    A recipe that racing stopped counts with the folds that it had, and one that failed with the worst score: leaving
    them out would flatter their family. A proposal that a later driver repeats counts with its last trial.
    """
    proposals: dict[int, FrozenTrial] = {}
    for trial in sorted(trials, key=lambda trial: trial.number):
        has_failed = TrialRecord.of(trial).reason is not None
        was_cut_off = trial.state is TrialState.FAIL and not has_failed
        if has_failed or (trial.intermediate_values and not was_cut_off):
            proposals[origin(trial)] = trial
    budgets: dict[str, list[float]] = {family.name: [] for family in space.families}
    for trial in proposals.values():
        record = TrialRecord.of(trial)
        if record.family in budgets:
            budgets[record.family].append(_score(run, trial, record))
    return {family: scores for family, scores in budgets.items() if scores}


def _score(run: Run, trial: FrozenTrial, record: TrialRecord) -> float:
    if record.reason is not None:
        return run.goal.metric.worst
    # The best of many settings of stage two is too high; the cross-fitted score is not.
    return latest(trial) if record.search is None else run.search(record.search).crossfit


def _winners(run: Run, space: Space, entries: Sequence[Entry]) -> dict[str, Entry]:
    """Returns each family's best entry on the held-out folds, and the first control as reference."""
    reference = next(iter(space.controls), "")
    winners: dict[str, Entry] = {}
    for entry in entries:
        family, name = entry.candidate.family, entry.candidate.name
        if not family and name != reference:
            continue
        title = family or f"control {name}"
        if title not in winners or worth(run, entry.candidate) > worth(run, winners[title].candidate):
            winners[title] = entry
    return winners
