"""A Tune trial: a light actor that has one recipe tried on one fold after the other."""

import json
from pathlib import Path
from typing import Any

import ray
from ray.tune import Trainable

from raysk.evaluation.metrics import macro_f1_score
from raysk.recipe import Job, Recipe
from raysk.run import Run
from raysk.search.broker import Submission, find_broker
from raysk.search.jobs import Outcome


class RecipeTrial(Trainable):
    """Submits the jobs of a recipe and reports fold by fold; the lanes do the work.

    All folds are queued at once, later folds behind the first folds of all other trials: a lane that would be idle
    works ahead, and what racing makes needless is cancelled.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Finds the broker and queues the jobs."""
        self._run = Run.open(Path(config["run"]))
        self._broker = find_broker(config["broker"])
        recipe = Recipe.from_plain(json.loads(config["recipe"]))
        self._jobs = [Job(recipe, fold) for fold in range(self._run.folds.k)]
        self._scores: list[float] = []
        number = config["number"]
        submissions = [Submission(job, (job.fold, number)) for job in self._jobs if not self._run.is_done(job)]
        ray.get(self._broker.submit.remote(submissions))

    def step(self) -> dict[str, Any]:
        """Waits for the next fold; returns the mean macro-F1 of the folds so far."""
        job = self._jobs[len(self._scores)]
        if not self._run.is_done(job):
            outcome, reason = ray.get(self._broker.outcome.remote(job.id))
            if outcome != Outcome.DONE:
                return {"outcome": outcome, "reason": reason, "folds": len(self._scores), "done": True}
        predictions = self._run.predictions(job.recipe.key, job.fold)
        self._scores.append(macro_f1_score(predictions.mean(), self._run.manifest.labels[predictions.rows]))
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
