"""The work that a search may still do, as an upper bound for the display."""

import time

from optuna.trial import TrialState

from raysk.records import job_id
from raysk.run import Run
from raysk.search.searcher import StudySearcher
from raysk.search.trial_records import TrialRecord

# Interval at which the records are counted.
_COUNT_S = 2.0


class WorkLeft:
    """Bounds the work left of a search, and counts the records again every two seconds.

    Args:
        searcher: The searcher.
    """

    def __init__(self, searcher: StudySearcher) -> None:
        self.searcher = searcher
        self._most = most_work_left(searcher)
        self._counted_at = time.monotonic()

    def most(self) -> int | None:
        """Returns the most folds and searches of stage two that are still to do; None if only the time ends it."""
        if time.monotonic() - self._counted_at > _COUNT_S:
            self._most, self._counted_at = most_work_left(self.searcher), time.monotonic()
        return self._most


def most_work_left(searcher: StudySearcher) -> int | None:
    """Returns the most folds and searches of stage two that are still to do; None if only the time ends the study.

    What has a record is done, whichever driver did it. The test part is not counted.
    """
    if searcher.budget.num_trials is None:
        return None
    run, progress, running = searcher.run, searcher.progress, list(searcher.trials.values())
    num_folds = len(run.folds)
    left = sum(not _has_record(run, work.id) for trial in running for work in trial.work(num_folds))
    ended = progress.complete + progress.stopped + progress.failed
    new = max(0, searcher.budget.num_trials - ended - len(running))
    each = num_folds + (1 if searcher.has_searches else 0)
    # Trials that an earlier driver left unfinished have some of their folds.
    queued = searcher.study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
    keys = [record.recipe for record in map(TrialRecord.of, queued) if record.recipe]
    done = sum(_has_record(run, job_id(key, fold, "held_out")) for key in keys for fold in range(num_folds))
    return left + max(0, new * each - done)


def _has_record(run: Run, work_id: str) -> bool:
    return any((run.folder / folder / f"{work_id}.json").exists() for folder in ("jobs", "searches"))
