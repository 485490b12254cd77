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
        self._means: dict[tuple[str, int], np.ndarray] = {}

    def complete(self) -> list[FrozenTrial]:
        """Returns the trials that have all folds, the best first; some may lack their search of stage two."""
        k = len(self.run.folds)
        trials = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.RUNNING))
        complete = [trial for trial in trials if k in trial.intermediate_values]
        return sorted(complete, key=lambda trial: -self._merit(latest(trial), TrialRecord.of(trial), k))

    def rival(self, number: int, family: str) -> tuple[str, int] | None:
        """Returns the rival of a trial, and how many folds both have; None if no recipe leads.

        The rival is the recipe of the same family that leads by most on these folds and is still in the race. Scores
        count as they are before stage two is searched, so no race waits for a search.

        Args:
            number: Number of the trial.
            family: Its family.
        """
        tried = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.RUNNING))
        trial = next(other for other in tried if other.number == number)
        rival, largest_lead = None, 0.0
        for other in tried:
            record = TrialRecord.of(other)
            if record.family == family and trial.intermediate_values and other.intermediate_values:
                shared = min(len(self.run.folds), max(trial.intermediate_values), max(other.intermediate_values))
                lead = self._on_folds(other, shared) - self._on_folds(trial, shared)
                if lead > largest_lead:
                    rival, largest_lead = (record.recipe, shared), lead
        return rival

    def gaps(self, record: TrialRecord, num_folds: int) -> dict[str, float]:
        """Returns by how much a trial misses each requirement, in the mean over its first folds.

        A trial with a search of stage two counts as the best recipe that the search kept.

        Args:
            record: Its record in Optuna's journal.
            num_folds: Number of its folds.

        Returns:
            The gap by the name of the requirement; 0 or less is met.
        """
        goal = self.run.goal
        if not goal.requirements:
            return {}
        key = record.recipe if record.search is None else self.run.search(record.search).kept[0]
        if (key, num_folds) not in self._means:
            self._means[key, num_folds] = self.run.fold_scores(key, num_folds).mean(axis=1)
        means = self._means[key, num_folds].tolist()
        return {item.name: item.gap(score) for item, score in zip(goal.requirements, means[1:], strict=True)}

    def _on_folds(self, trial: FrozenTrial, num_folds: int) -> float:
        """Returns the merit of a trial's own recipe on its first folds."""
        record = TrialRecord.of(trial)
        return self._merit(trial.intermediate_values[num_folds], TrialRecord(recipe=record.recipe), num_folds)

    def _merit(self, score: float, record: TrialRecord, num_folds: int) -> float:
        shortfall = sum(max(gap, 0.0) for gap in self.gaps(record, num_folds).values())
        return float(self.run.goal.merits_of(np.array(score), np.array(shortfall)))
