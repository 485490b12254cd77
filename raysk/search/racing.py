"""Fold racing: as soon as a score says so, a recipe that has no chance left against another is stopped."""

from collections.abc import Callable
from typing import Any

import numpy as np
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from raysk.evaluation.metrics import macro_f1_score, resampled_scores
from raysk.run import Run
from raysk.search.searcher import StudySearcher, Trial
from raysk.search.trial_records import TrialReport

# A recipe is stopped when fewer than this share of the resampled comparisons favour it.
LEAST_CHANCE = 0.05


def may_still_win(candidate: np.ndarray, incumbent: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> bool:
    """Returns whether a recipe may still be the better one: whether another fold is worth its price.

    A paired bootstrap of macro-F1 over whole groups. Both recipes are compared on the same lesions, so what makes a
    fold hard or easy cancels out, and photographs of one lesion do not count as independent.

    Args:
        candidate: Probabilities (N, C) of the recipe in question.
        incumbent: Probabilities (N, C) of the best recipe so far, on the same rows.
        labels: (N,).
        groups: (N,).
    """
    ours, theirs = (resampled_scores(macro_f1_score, recipe, labels, groups) for recipe in (candidate, incumbent))
    return bool(np.mean(ours >= theirs) >= LEAST_CHANCE)


class FoldRacing(FIFOScheduler):
    """Races drawn recipes.

    A recipe races with the best of its family, so that no family loses of its budget.

    Args:
        searcher: Knows the trials, and with whom each one races.
        run: The run directory.
        cancel: Cancels a trial's jobs.
    """

    def __init__(self, searcher: StudySearcher, run: Run, cancel: Callable[[Trial], None]) -> None:
        super().__init__()
        self.searcher, self.run, self.cancel = searcher, run, cancel
        self._survived: set[tuple[str, str, int]] = set()

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Decides after each fold of a trial which trials go on: a score can also end the race of another."""
        scored = self.searcher.trials.get(trial.trial_id)
        report = TrialReport.of_result(result)
        if scored is None or report.score is None or report.is_searched:
            return str(TrialScheduler.CONTINUE)
        # Sooner than Tune tells it, since the others are compared with this score.
        self.searcher.on_trial_result(trial.trial_id, result)
        for racer in list(self.searcher.trials.values()):
            racer.is_beaten = racer.is_beaten or self._is_beaten(racer)
            if racer.is_beaten and racer is not scored:
                # Each time anew: one that was just about to queue its jobs may have done so since.
                self.cancel(racer)
        return str(TrialScheduler.STOP if scored.is_beaten else TrialScheduler.CONTINUE)

    def _is_beaten(self, trial: Trial) -> bool:
        rival = self.searcher.rival(trial)
        if rival is None or (trial.recipe.key, *rival) in self._survived:
            return False
        key, folds = rival
        ours, theirs = ([self.run.predictions(key, f) for f in range(folds)] for key in (trial.recipe.key, key))
        rows = np.concatenate([predictions.rows for predictions in ours])
        candidate, incumbent = (np.concatenate([p.mean() for p in side]) for side in (ours, theirs))
        manifest = self.run.manifest
        survives = may_still_win(candidate, incumbent, manifest.labels[rows], manifest.groups[rows])
        if survives:
            self._survived.add((trial.recipe.key, *rival))
        return not survives
