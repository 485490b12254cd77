"""A Tune trial: a light actor that has one recipe tried on one fold after the other.

It imports neither torch nor any part, so that its process starts at once and stays small.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray.tune import Trainable

from raysk.artifacts import read_json
from raysk.search.broker import find_broker
from raysk.search.jobs import Outcome, Priority, QueuedJob

# After which a file that was written ought to be seen everywhere.
_LATEST_S = 90.0


class RecipeTrial(Trainable):
    """Submits the work of a recipe and reports step by step; the lanes do it.

    All its work is queued at once, so that a lane that would be idle works ahead, and what racing makes needless is
    cancelled. A search of stage two follows the folds.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Finds the broker and queues the jobs that have no record yet."""
        self._broker = find_broker(config["broker"])
        self._steps = [(QueuedJob(**job), Path(record)) for job, record in json.loads(config["steps"])]
        self._num_folds, self._lanes, self._is_raced = config["folds"], config["lanes"], config["is_raced"]
        self._scores: list[float] = []
        self._done = 0
        self._submit()

    def step(self) -> dict[str, Any]:
        """Waits for the next fold, or the search; returns the mean macro-F1 of the folds so far, or the best found."""
        _, record = self._steps[self._done]
        jobs = self._submit()
        if not record.exists():
            outcome, reason = ray.get(self._broker.outcome.remote(jobs))
            if outcome != Outcome.DONE:
                return {"outcome": outcome, "reason": reason, "folds": self._done, "complete": False, "done": True}
            _wait_for(record)
        self._done += 1
        complete = self._done == len(self._steps)
        return {
            "outcome": str(Outcome.DONE),
            "score": self._score(read_json(record)),
            "folds": min(self._done, self._num_folds),
            "searched": self._done > self._num_folds,
            "complete": complete,
            "done": complete,
        }

    def _score(self, record: dict[str, Any]) -> float:
        if self._done > self._num_folds:
            return float(record["score"])
        self._scores.append(record["macro_f1"])
        return sum(self._scores) / len(self._scores)

    def _submit(self) -> list[QueuedJob]:
        """Queues what is left, and returns it; what is queued already gets the place that it has now."""
        left = []
        for job, record in self._steps[self._done :]:
            if not record.exists():
                number, step = job.priority
                place = place_in_queue(number, step, self._is_raced, self._scores, self._lanes)
                left.append(replace(job, priority=place))
        if left:
            ray.get(self._broker.submit.remote(left))
        return left

    def cleanup(self) -> None:
        """Cancels what is still queued, or at work, of a trial that was stopped."""
        ray.get(self._broker.cancel.remote([job.id for job, _ in self._steps]))

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Becomes the next trial without a new process."""
        self.cleanup()
        self.setup(new_config)
        return True


def place_in_queue(number: float, step: float, is_raced: bool, scores: Sequence[float], lanes: int) -> list[float]:
    """Returns the priority of a step of a trial, so that a study can end at any time with its best recipes done.

    Recipes that run all folds come first; then those that have a score, the best first. Of those without, as many begin
    as there are lanes before any works ahead.

    Args:
        number: Of the trial.
        step: A fold; past the last of them the search of stage two.
        is_raced: Whether the trial can be stopped between folds.
        scores: Of the folds that it has.
        lanes: How many there are.
    """
    if not is_raced:
        return [Priority.FIXED, number, step]
    if scores:
        return [Priority.SCORED, -sum(scores) / len(scores), number, step]
    return [Priority.NEW, number + step * lanes, number]


def _wait_for(path: Path) -> None:
    """Waits for a file that another node has written: a network file system may show it a minute late."""
    deadline = time.monotonic() + _LATEST_S
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.5)
