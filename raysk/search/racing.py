"""Fold racing: stops a recipe as soon as it has no chance left to become the best of its family."""

from collections.abc import Callable
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial, TrialState
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from raysk.evaluation.fold_model import chances
from raysk.run import Run
from raysk.search.searcher import StudySearcher, Trial
from raysk.search.trial_records import TrialRecord, TrialReport

# A recipe with a smaller chance is stopped. Of the values in benchmarks/racing.py, the largest that costs no score.
LEAST_CHANCE = 0.02

# Failed trials have no folds to learn from, and those of a driver that died are repeated.
_WITH_FOLDS = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)


class FoldRacing(FIFOScheduler):
    """Races drawn recipes.

    A recipe races within its family, so every family keeps its budget. All recipes of the study tell how large the
    noise of a fold is, stopped ones and controls too.

    Args:
        searcher: Knows the trials.
        run: The run directory.
        cancel: Cancels a trial's jobs.
    """

    def __init__(self, searcher: StudySearcher, run: Run, cancel: Callable[[Trial], None]) -> None:
        super().__init__()
        self.searcher, self.run, self.cancel = searcher, run, cancel
        self._merits: dict[tuple[str, int], np.ndarray] = {}

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Decides after each fold which trials go on: a score can also end the race of another trial."""
        scored = self.searcher.trials.get(trial.trial_id)
        report = TrialReport.of_result(result)
        if scored is None or report.score is None or report.is_searched:
            return str(TrialScheduler.CONTINUE)
        # Before Tune does, since the other trials are compared with this score.
        self.searcher.on_trial_result(trial.trial_id, result)
        hopeless = self._hopeless()
        for racer in list(self.searcher.trials.values()):
            # The paper's setting and the controls run all folds, since a comparison needs them.
            racer.is_beaten = racer.is_beaten or (racer.point.kind == "drawn" and racer.asked.number in hopeless)
            if racer.is_beaten and racer is not scored:
                # Repeated with each score, since the trial may have queued jobs after the last cancellation.
                self.cancel(racer)
        return str(TrialScheduler.STOP if scored.is_beaten else TrialScheduler.CONTINUE)

    def _hopeless(self) -> set[int]:
        """Returns the numbers of the trials with too small a chance to become the best of their family."""
        trials = self.searcher.study.get_trials(deepcopy=False, states=_WITH_FOLDS)
        trials = [trial for trial in trials if trial.intermediate_values]
        families = np.array([TrialRecord.of(trial).family for trial in trials])
        chance = chances(np.array([self._merits_of(trial) for trial in trials]), families)
        return {trial.number for trial, value in zip(trials, chance, strict=True) if value < LEAST_CHANCE}

    def _merits_of(self, trial: FrozenTrial) -> np.ndarray:
        """Returns the merit of a trial on each fold, (F,), NaN for a fold that it does not have."""
        num_folds = len(self.run.folds)
        key, have = TrialRecord.of(trial).recipe, min(num_folds, max(trial.intermediate_values))
        if (key, have) not in self._merits:
            merits = np.full(num_folds, np.nan)
            merits[:have] = self.run.goal.merits(self.run.raced_scores(key, have).T)
            self._merits[key, have] = merits
        return self._merits[key, have]
