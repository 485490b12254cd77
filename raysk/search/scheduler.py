"""The scheduler: stops, as soon as a score says so, every recipe that has no chance left against another."""

from collections.abc import Callable
from typing import Any

import numpy as np
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from raysk.run import Run
from raysk.search.racing import may_still_win
from raysk.search.searcher import StudySearcher, Trial


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
        known = self.searcher.trials.get(trial.trial_id)
        if known is None or "score" not in result or result["searched"]:
            return str(TrialScheduler.CONTINUE)
        # Sooner than Tune tells it, since the others are compared with this score.
        self.searcher.on_trial_result(trial.trial_id, result)
        for one in list(self.searcher.trials.values()):
            one.is_beaten = one.is_beaten or self._is_beaten(one)
            if one.is_beaten and one is not known:
                # Each time anew: one that was just about to queue its jobs may have done so since.
                self.cancel(one)
        return str(TrialScheduler.STOP if known.is_beaten else TrialScheduler.CONTINUE)

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
