"""A Tune trial: a light actor that submits the jobs of one recipe, and reports one fold after another.

It imports neither torch nor any part, so that its process starts fast and stays small.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray.tune import Trainable

from raysk.evaluation.reference_choice import chosen_scores
from raysk.records import JobRecord, ReferenceRecord, SearchRecord
from raysk.search.broker import find_broker
from raysk.search.jobs import JobEnd, JobRequest, Outcome, Priority
from raysk.search.trial_records import TrialOrder, TrialReport

# A file that one node has written should be visible on all nodes within this time.
_LATEST_S = 90.0


class RecipeTrial(Trainable):
    """Submits the jobs of a recipe to the lanes, and reports step by step.

    It queues all jobs at once, so that an idle lane works ahead; racing cancels the jobs that become needless. A search
    of stage two follows the folds.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Finds the broker, and queues the jobs without a record."""
        self._order = TrialOrder.from_plain(json.loads(config["order"]), "the order of a trial")
        self._broker = find_broker(self._order.broker)
        self._scores: Sequence[float] = ()
        self._done = 0
        self._submit()

    def step(self) -> dict[str, Any]:
        """Waits for the next fold, or the search; returns the mean score of the folds, or the best of the search."""
        order = self._order
        record = Path(order.steps[self._done].record)
        requests = self._submit()
        if not record.exists():
            end: JobEnd = ray.get(self._broker.outcome.remote(requests))
            if end.outcome is not Outcome.DONE:
                return TrialReport(outcome=end.outcome, reason=end.reason, folds=self._done).to_result()
            _wait_for(record)
        self._done += 1
        done = TrialReport(
            outcome=Outcome.DONE,
            folds=min(self._done, order.num_folds),
            is_complete=self._done == len(order.steps),
        )
        if self._done > order.num_folds:
            search = SearchRecord.read(record)
            return replace(done, score=search.score, num_tried=len(search.tried)).to_result()
        self._scores = self._fold_scores([Path(step.record) for step in order.steps[: self._done]])
        return replace(done, score=sum(self._scores) / len(self._scores)).to_result()

    def _fold_scores(self, files: Sequence[Path]) -> list[float]:
        """Returns the scores of the finished folds by the study's metric, from their records."""
        if self._order.has_references:
            records = [ReferenceRecord.read(path) for path in files]
            scores: list[float] = chosen_scores(records, self._order.folds_of_division)[:, 0].tolist()
            return scores
        return [score for path in files if (score := JobRecord.read(path).score) is not None]

    def _submit(self) -> list[JobRequest]:
        """Queues the remaining jobs with their present priorities, and returns them."""
        order = self._order
        remaining = []
        for number, step in enumerate(order.steps):
            if number >= self._done and not Path(step.record).exists():
                scores = [score if order.larger_is_better else -score for score in self._scores]
                place = place_in_queue(order.number, number, order.is_raced, scores, order.num_lanes)
                remaining.append(replace(step.request, priority=place))
        if remaining:
            ray.get(self._broker.submit.remote(remaining))
        return remaining

    def cleanup(self) -> None:
        """Cancels the jobs of a stopped trial."""
        ray.get(self._broker.cancel.remote([step.request.id for step in self._order.steps], self._order.number))

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Switches to the next trial without a new process."""
        self.cleanup()
        self.setup(new_config)
        return True


def place_in_queue(number: int, step: int, is_raced: bool, scores: Sequence[float], lanes: int) -> tuple[float, ...]:
    """Returns the priority of a trial's step, so that a study that ends at any time has its best recipes done.

    Recipes that run all folds come first, then those with a score, the best first. Among those without a score, as many
    begin as there are lanes before any works ahead.

    Args:
        number: Number of the trial.
        step: A fold; after the last fold, the search of stage two.
        is_raced: Whether the trial can be stopped between folds.
        scores: Scores of its finished folds; larger is better.
        lanes: Number of lanes.
    """
    if not is_raced:
        return Priority.FIXED, number, step
    if scores:
        return Priority.SCORED, -sum(scores) / len(scores), number, step
    return Priority.NEW, number + step * lanes, number


def _wait_for(path: Path) -> None:
    """Waits for a file from another node: a network file system may show it a minute late."""
    deadline = time.monotonic() + _LATEST_S
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.5)
