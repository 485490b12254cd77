"""A Tune trial: a light actor that has one recipe tried on one fold after the other.

It imports neither torch nor any part, so that its process starts at once and stays small.
"""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray.tune import Trainable

from raysk.artifacts import read_json
from raysk.search.broker import find_broker
from raysk.search.jobs import Outcome, QueuedJob, Turn

# After which a file that was written ought to be seen everywhere.
_LATEST_S = 90.0


class RecipeTrial(Trainable):
    """Submits the work of a recipe and reports step by step; the lanes do it.

    All folds are queued at once, so that a lane that would be idle works ahead, and what racing makes needless is
    cancelled. What a trial cannot go on without comes before what is ahead, and the trial that began first before the
    others: a study that is ended by the clock has few recipes half done. A search of stage two follows the folds.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Finds the broker and queues the jobs that have no record yet."""
        self._broker = find_broker(config["broker"])
        self._steps = [(QueuedJob(**job), Path(record)) for job, record in json.loads(config["steps"])]
        self._num_folds = config["folds"]
        self._scores: list[float] = []
        self._done = 0
        self._submit(self._steps[: self._num_folds], Turn.AHEAD if config["is_raced"] else Turn.DUE)

    def step(self) -> dict[str, Any]:
        """Waits for the next fold, or the search; returns the mean macro-F1 of the folds so far, or the best found."""
        job, record = self._steps[self._done]
        self._submit([(job, record)], Turn.DUE)
        if not record.exists():
            outcome, reason = ray.get(self._broker.outcome.remote(job.id))
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

    def _submit(self, steps: list[tuple[QueuedJob, Path]], turn: Turn) -> None:
        left = [replace(job, priority=[turn, *job.priority[1:]]) for job, record in steps if not record.exists()]
        if left:
            ray.get(self._broker.submit.remote(left))

    def cleanup(self) -> None:
        """Cancels what is still queued, or at work, of a trial that was stopped."""
        ray.get(self._broker.cancel.remote([job.id for job, _ in self._steps]))

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Becomes the next trial without a new process."""
        self.cleanup()
        self.setup(new_config)
        return True


def _wait_for(path: Path) -> None:
    """Waits for a file that another node has written: a network file system may show it a minute late."""
    deadline = time.monotonic() + _LATEST_S
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.5)
