"""The order of trials by the goal of the study: their scores, and how far they are from the requirements."""

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from raysk.run import Run
from raysk.search.trial_records import TrialRecord, latest


class Standings:
    """Compares trials.

    Args:
        study: Optuna's study, which has their scores.
        run: The run directory, which has the goal, and the records of their jobs.
    """

    def __init__(self, study: optuna.Study, run: Run) -> None:
        self.study, self.run = study, run
        self._means: dict[tuple[str, int, bool], np.ndarray] = {}

    def complete(self) -> list[FrozenTrial]:
        """Returns the trials that have all folds, the best first; some may lack their search of stage two."""
        k = len(self.run.folds)
        trials = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.RUNNING))
        complete = [trial for trial in trials if k in trial.intermediate_values]
        return sorted(complete, key=lambda trial: -self._merit(latest(trial), TrialRecord.of(trial), k))

    def gaps(self, record: TrialRecord, num_folds: int) -> dict[str, float]:
        """Returns by how much a trial misses each requirement, in the mean over its first folds.

        A trial whose stage two was searched counts as the best recipe that the search kept.

        Args:
            record: Its record in Optuna's journal.
            num_folds: Number of its folds.

        Returns:
            The gap by the name of the requirement; 0 or less is met.
        """
        goal = self.run.goal
        if not goal.requirements:
            return {}
        raced = record.search is None
        key = record.recipe if record.search is None else self.run.search(record.search).kept[0]
        if (key, num_folds, raced) not in self._means:
            read = self.run.raced_scores if raced else self.run.fold_scores
            self._means[key, num_folds, raced] = read(key, num_folds).mean(axis=1)
        means = self._means[key, num_folds, raced].tolist()
        return {item.name: item.gap(score) for item, score in zip(goal.requirements, means[1:], strict=True)}

    def _merit(self, score: float, record: TrialRecord, num_folds: int) -> float:
        shortfall = sum(max(gap, 0.0) for gap in self.gaps(record, num_folds).values())
        return float(self.run.goal.merits_of(np.array(score), np.array(shortfall)))
