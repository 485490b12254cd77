"""Fold racing: stops a recipe as soon as a score shows that it has no chance left against another."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from raysk.evaluation.goals import Goal
from raysk.evaluation.predictions import Predictions
from raysk.run import Run
from raysk.search.searcher import StudySearcher, Trial
from raysk.search.trial_records import TrialReport

# A recipe is stopped when fewer than this share of the resampled comparisons favour it.
LEAST_CHANCE = 0.05


def may_still_win(
    candidate: np.ndarray, incumbent: np.ndarray, labels: np.ndarray, groups: np.ndarray, goal: Goal
) -> bool:
    """Returns whether a recipe may still be the better one, so that another fold is worth its price.

    Uses a paired bootstrap of merits over whole groups. Both recipes are compared on the same lesions, so what makes a
    fold hard or easy cancels out, and photographs of one lesion do not count as independent. On a resample, a recipe
    that meets the requirements is better than any that does not. Resamples without a score are left out.

    Args:
        candidate: Probabilities (N, C) of the recipe.
        incumbent: Probabilities (N, C) of the best recipe so far, on the same rows.
        labels: (N,).
        groups: (N,).
        goal: The goal of the study.
    """
    candidate_merits, incumbent_merits = (
        goal.resampled_merits(recipe, labels, groups) for recipe in (candidate, incumbent)
    )
    defined = ~np.isnan(candidate_merits + incumbent_merits)
    wins = (candidate_merits >= incumbent_merits)[defined]
    return not len(wins) or bool(wins.mean() >= LEAST_CHANCE)


class FoldRacing(FIFOScheduler):
    """Races drawn recipes.

    A recipe races with the best of its family, so every family keeps its budget.

    Args:
        searcher: Knows the trials and their rivals.
        run: The run directory.
        cancel: Cancels a trial's jobs.
    """

    def __init__(self, searcher: StudySearcher, run: Run, cancel: Callable[[Trial], None]) -> None:
        super().__init__()
        self.searcher, self.run, self.cancel = searcher, run, cancel
        self._survived: set[tuple[str, str, int]] = set()

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Decides after each fold which trials go on: a score can also end the race of another trial."""
        scored = self.searcher.trials.get(trial.trial_id)
        report = TrialReport.of_result(result)
        if scored is None or report.score is None or report.is_searched:
            return str(TrialScheduler.CONTINUE)
        # Before Tune does, since the other trials are compared with this score.
        self.searcher.on_trial_result(trial.trial_id, result)
        for racer in list(self.searcher.trials.values()):
            racer.is_beaten = racer.is_beaten or self._is_beaten(racer)
            if racer.is_beaten and racer is not scored:
                # Repeated with each score, since the trial may have queued jobs after the last cancellation.
                self.cancel(racer)
        return str(TrialScheduler.STOP if scored.is_beaten else TrialScheduler.CONTINUE)

    def _is_beaten(self, trial: Trial) -> bool:
        # The paper's setting and the controls have no rival, since a comparison needs them.
        if trial.point.kind != "drawn":
            return False
        rival = self.searcher.standings.rival(trial.asked.number, trial.point.family)
        if rival is None or (trial.recipe.key, *rival) in self._survived:
            return False
        key, num_folds = rival
        candidate, incumbent = (
            [self.run.predictions(recipe, fold) for fold in range(num_folds)] for recipe in (trial.recipe.key, key)
        )
        rows = np.concatenate([predictions.rows for predictions in candidate])
        labels, groups = self.run.manifest.labels[rows], self.run.manifest.groups[rows]
        survives = may_still_win(_stacked(candidate), _stacked(incumbent), labels, groups, self.run.goal)
        if survives:
            self._survived.add((trial.recipe.key, *rival))
        return not survives


def _stacked(predictions: Sequence[Predictions]) -> np.ndarray:
    return np.concatenate([fold_predictions.mean() for fold_predictions in predictions])
