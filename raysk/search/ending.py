"""The time that a study needs once its search has ended, so that a time budget is that of the whole command."""

import time
from dataclasses import dataclass

from optuna.trial import FrozenTrial

from raysk.evaluation.ensemble import Ensemble
from raysk.evaluation.predictions import OutOfFold
from raysk.evaluation.row_scores import scores_on_test
from raysk.records import JobRecord
from raysk.run import Run
from raysk.scoring import read_held_out, requirement_checks
from raysk.search.candidates import read_candidates
from raysk.search.standings import Standings
from raysk.search.trial_records import TrialRecord

# Lanes and Ray end within this time, and the files are written.
_LEAVING_S = 10.0
# Estimates are enlarged by this factor: a study that ends late costs more than one that ends early.
_CAUTION = 1.25
# Interval at which the estimate is made again.
_ESTIMATE_S = 5.0


@dataclass(frozen=True)
class Needed:
    """The seconds that the rest of a study needs.

    Args:
        end: The end, after the search.
        search: The longest search of stage two so far.
    """

    end: float = 0.0
    search: float = 0.0

    @property
    def with_search(self) -> float:
        """The end, and before it the searches of stage two that have begun."""
        return self.end + self.search

    @property
    def with_short_search(self) -> float:
        """The end, and before it the part of a search that is left when it is told to hurry."""
        return self.end + self.search / 2


@dataclass(frozen=True)
class TrialEnd:
    """What a complete trial adds to the end.

    Args:
        candidates: Number of its candidates for the ensemble.
        rows: Number of its rows.
        encoders: The seconds that the fold models of each encoder take for the test part, in one lane.
        training: The seconds of its folds.
        search: The seconds of its search of stage two.
    """

    candidates: int
    rows: int
    encoders: dict[str, float]
    training: float
    search: float


class TimeOfEnd:
    """Estimates the time of a study's end: the finalists, the test part, the ensemble, the rows with their intervals.

    All of it follows from what was timed: how long the models took for their held-out rows, and how long the choice of
    the ensemble and the scores of one row take. The latter is rehearsed on the held-out rows of the first complete
    recipe.

    Args:
        run: The run directory.
        standings: Knows the complete trials.
        repeats: Number of trainings of finalists with other seeds.
    """

    def __init__(self, run: Run, standings: Standings, repeats: int = 0) -> None:
        self.run, self.standings, self.repeats = run, standings, repeats
        self._rehearsal: tuple[float, float] | None = None
        # Each trial is read once: a study can have hundreds, with eleven recipes each.
        self._ends: dict[tuple[int, bool], TrialEnd] = {}
        self._estimate, self._estimated_at = Needed(), -_ESTIMATE_S

    def needed(self, num_lanes: int) -> Needed:
        """Returns the estimate, made again every five seconds; nothing without a complete recipe."""
        if time.monotonic() - self._estimated_at > _ESTIMATE_S:
            self._estimate = self._estimated(max(1, num_lanes))
            self._estimated_at = time.monotonic()
        return self._estimate

    def _estimated(self, num_lanes: int) -> Needed:
        trials = self.standings.complete()
        if not trials:
            return Needed()
        if self._rehearsal is None:
            self._rehearsal = self._rehearse(read_held_out(self.run, TrialRecord.of(trials[0]).recipe))
        of_choice, of_row = self._rehearsal
        ends = [self._end_of(trial) for trial in trials]
        num_rows = sum(end.rows for end in ends) + 2  # the ensembles
        scoring = of_choice * sum(end.candidates for end in ends) + of_row * num_rows
        predicting = sum({key: seconds for end in ends for key, seconds in end.encoders.items()}.values())
        training = self.repeats * max(end.training for end in ends)
        in_lanes = (predicting + training) / num_lanes
        return Needed(_LEAVING_S + _CAUTION * (scoring + in_lanes), max(end.search for end in ends))

    def _end_of(self, trial: FrozenTrial) -> TrialEnd:
        key = trial.number, TrialRecord.of(trial).search is not None
        if key not in self._ends:
            candidates = read_candidates(self.run, [trial])
            recipes = {
                candidate.recipe.encoder_key or candidate.recipe.key: candidate.recipe for candidate in candidates
            }
            self._ends[key] = TrialEnd(
                candidates=len(candidates),
                rows=sum(candidate.has_row for candidate in candidates),
                encoders={encoder: self._test_seconds(recipe.key) for encoder, recipe in recipes.items()},
                training=sum(record.seconds for record in self.run.training_records(candidates[0].recipe.key)),
                search=max(candidate.seconds for candidate in candidates),
            )
        return self._ends[key]

    def _rehearse(self, held_out: OutOfFold) -> tuple[float, float]:
        """Returns the seconds that the choice of an ensemble takes for a candidate, and the scores of a row."""
        run, folds = self.run, self.run.folds
        labels, groups = run.truth[held_out.rows], run.manifest.groups[held_out.rows]
        began = time.perf_counter()
        Ensemble.select([held_out], labels, run.goal)
        chosen = time.perf_counter()
        scores_on_test(held_out.mean(), labels, groups, run.class_names, run.goal.metric)
        scored = time.perf_counter()
        requirement_checks(run, held_out, held_out.mean())
        checked = time.perf_counter()
        return chosen - began, (scored - chosen) * len(folds.test_rows) / len(held_out.rows) + checked - scored

    def _test_seconds(self, recipe_key: str) -> float:
        """Returns the seconds that a recipe's fold models take for the test part, by those for the held-out rows."""
        folds = self.run.folds
        return sum(
            _predicting(record) * len(folds.test_rows) / len(folds.held_out_rows(record.fold))
            for record in self.run.training_records(recipe_key)
        )


def _predicting(record: JobRecord) -> float:
    """Returns the seconds of a job beside its training."""
    training = sum(stage.seconds for stage in (record.stage_one, record.stage_two) if stage is not None)
    return max(0.0, record.seconds - training)
