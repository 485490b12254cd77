"""A Tune trial: a light actor that has one recipe tried on one fold after the other.

It imports neither torch nor any part, so that its process starts at once and stays small.
"""

import json
from pathlib import Path
from typing import Any

import ray
from ray.tune import Trainable

from raysk.artifacts import read_json
from raysk.search.broker import find_broker
from raysk.search.jobs import Outcome, QueuedJob


class RecipeTrial(Trainable):
    """Submits the jobs of a recipe and reports fold by fold; the lanes do the work.

    All folds are queued at once, later folds behind the first folds of all other trials: a lane that would be idle
    works ahead, and what racing makes needless is cancelled.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Finds the broker and queues the jobs that have no record yet."""
        self._broker = find_broker(config["broker"])
        self._jobs = [QueuedJob(**job) for job in json.loads(config["jobs"])]
        self._records = [Path(record) for record in json.loads(config["records"])]
        self._scores: list[float] = []
        left = [job for job, record in zip(self._jobs, self._records, strict=True) if not record.exists()]
        ray.get(self._broker.submit.remote(left))

    def step(self) -> dict[str, Any]:
        """Waits for the next fold; returns the mean macro-F1 of the folds so far."""
        fold = len(self._scores)
        if not self._records[fold].exists():
            outcome, reason = ray.get(self._broker.outcome.remote(self._jobs[fold].id))
            if outcome != Outcome.DONE:
                return {"outcome": outcome, "reason": reason, "folds": fold, "done": True}
        self._scores.append(read_json(self._records[fold])["macro_f1"])
        return {
            "outcome": str(Outcome.DONE),
            "score": sum(self._scores) / len(self._scores),
            "folds": len(self._scores),
            "done": len(self._scores) == len(self._jobs),
        }

    def cleanup(self) -> None:
        """Cancels what is still queued, or at work, of a trial that was stopped."""
        ray.get(self._broker.cancel.remote([job.id for job in self._jobs]))

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Becomes the next trial without a new process."""
        self.cleanup()
        self.setup(new_config)
        return True
