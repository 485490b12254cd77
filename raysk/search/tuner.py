"""Tune as a study uses it: light trials, the searcher of the study, and fold racing as its scheduler."""

from functools import partial

import ray
from ray import tune
from ray.tune import CheckpointConfig, FailureConfig, RunConfig, TuneConfig, Tuner

from raysk.run import Run
from raysk.search.broker import find_broker
from raysk.search.cluster import trial_resources
from raysk.search.racing import FoldRacing
from raysk.search.searcher import StudySearcher, Trial
from raysk.search.trials import RecipeTrial

_MAX_DEATHS = 3


def make_tuner(searcher: StudySearcher, run: Run) -> Tuner:
    """Returns the tuner that tries a searcher's recipes in light trials; the lanes do their jobs."""
    return Tuner(
        tune.with_resources(RecipeTrial, trial_resources()),
        tune_config=TuneConfig(
            search_alg=searcher,
            scheduler=FoldRacing(searcher, run, partial(_cancel, run, searcher.broker)),
            metric="score",
            mode="max" if run.goal.metric.larger_is_better else "min",
            num_samples=-1,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=RunConfig(
            name="tune",
            storage_path=str((run.folder / "logs" / "ray").resolve()),
            verbose=0,
            checkpoint_config=CheckpointConfig(checkpoint_at_end=False),
            # A trial whose process dies starts again in another process, and finds its finished folds.
            failure_config=FailureConfig(max_failures=_MAX_DEATHS),
        ),
    )


def _cancel(run: Run, broker: str, trial: Trial) -> None:
    """Cancels a trial's jobs."""
    ray.get(find_broker(broker).cancel.remote([work.id for work in trial.work(len(run.folds))], trial.asked.number))
