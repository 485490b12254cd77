"""The scheduler: stops, between folds, a recipe that has no chance left against another."""

from typing import Any

import numpy as np
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from raysk.run import Run
from raysk.search.racing import goes_on
from raysk.search.searcher import StudySearcher


class FoldRacing(FIFOScheduler):
    """Races drawn recipes.

    A recipe races with the best of its family, so that no family loses of its budget.

    Args:
        searcher: Knows the trials, and with which of them each one races.
        run: The run directory.
    """

    def __init__(self, searcher: StudySearcher, run: Run) -> None:
        super().__init__()
        self.searcher, self.run = searcher, run

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Decides after each fold of a trial whether it goes on."""
        known = self.searcher.trials.get(trial.trial_id)
        if known is None or "score" not in result or result["searched"]:
            return str(TrialScheduler.CONTINUE)
        rival = self.searcher.rival(known, result["score"], result["folds"])
        if rival is None:
            return str(TrialScheduler.CONTINUE)
        key, folds = rival
        ours, theirs = ([self.run.predictions(key, f) for f in range(folds)] for key in (known.recipe.key, key))
        rows = np.concatenate([predictions.rows for predictions in ours])
        candidate, incumbent = (np.concatenate([p.mean() for p in side]) for side in (ours, theirs))
        manifest = self.run.manifest
        survives = goes_on(candidate, incumbent, manifest.labels[rows], manifest.groups[rows])
        return str(TrialScheduler.CONTINUE if survives else TrialScheduler.STOP)
