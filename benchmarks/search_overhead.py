"""The overhead of a trial besides its training: lanes, against a `TorchTrainer` in every trial.

Both contenders run the same number of trials that train nothing, on their own Ray with the dashboard on and Tune's
default loggers off, as many at a time as the machine holds. The time is the wall time of `Tuner.fit()`.

- usual: Ray's documented way to tune a Train job. A function trainable calls `TorchTrainer(...).fit()`, whose workers
  report once; `max_concurrent_trials` is computed, without which it would deadlock. It has no searcher.
- lanes: all that `raysk tune` does: Optuna proposes, racing compares after each fold, light trials submit jobs to the
  broker, and lanes that are already up do them. A trial is two folds and so two jobs; each job reports once and writes
  predictions and a record.

So the peer does less for a trial: one fit and no search. The time includes what both do once, such as starting Tune and
the processes of the first trials. A longer study on the lanes shows the overhead when that is spread over more trials;
the peer starts everything again for each trial. The lanes start once per study, before the clock; the last column
includes this start.

The second table is the share of the lanes' time that jobs got, when they last some seconds: the sum of the jobs' own
seconds, over lanes times the time from the first begin to the last end. All else (requesting a job, reporting its end,
waiting for the next) counts as idle, so this share is below the broker's busy time.

Contenders take turns and the medians of the repeats are compared, since the machine may be shared.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import ray
from optuna.distributions import FloatDistribution
from rich.console import Console
from rich.table import Table

from raysk.data.folds.dividing import FoldSettings, make_folds
from raysk.data.manifest import make_manifest
from raysk.evaluation.predictions import Predictions
from raysk.recipe import Job
from raysk.records import JobRecord, RunFacts
from raysk.run import Run
from raysk.search.broker import start_broker
from raysk.search.cluster import connected, trial_resources
from raysk.search.display import chatter_to
from raysk.search.jobs import Outcome
from raysk.search.lanes import LanePool
from raysk.search.resources import LanePlan, plan_lanes
from raysk.search.searcher import SearchProgress, StudySearcher
from raysk.search.tuner import make_tuner
from raysk.spaces.space import Family, Parameter, Space
from raysk.training.loop import Report, StageProgress
from raysk.training.world import World

# After raysk, which must switch Tune's loggers off before Tune is imported.
from ray import train, tune  # isort: skip
from ray.train.torch import TorchConfig, TorchTrainer  # isort: skip
from ray.tune.integration.ray_train import TuneReportCallback  # isort: skip

NUM_FOLDS = 2
_RATE = Parameter("stage_one.optimizer.lr", FloatDistribution(0.001, 1.0, log=True))
SPACE = Space(
    name="empty",
    about="Recipes that nobody trains.",
    user=("stage_two.search=0",),
    families=(Family("empty", settings=(), parameters=(_RATE,), starts={}),),
    controls={},
)


@dataclass(frozen=True)
class Timing:
    """One run of a contender.

    Args:
        seconds: Time of `Tuner.fit()`.
        lane_start: Seconds until all lanes had joined the broker.
        busy: Share of the lanes' time that jobs got.
    """

    seconds: float
    lane_start: float = 0.0
    busy: float = 0.0

    def __str__(self) -> str:
        return f"{self.seconds:.1f} s" + (f", lanes up after {self.lane_start:.1f} s" if self.lane_start else "")


def pretend(job: Job, run: Run, world: World, report: Report, seconds: float) -> None:
    """Does what `run_job` does for a job, but sleeps instead of training."""
    if world.agree(run.is_done(job)):
        return
    began = time.time()
    report(StageProgress("no stage", 1))
    time.sleep(seconds)
    if world.is_main_rank:
        rows = run.folds.held_out_rows(job.fold)
        num_classes = len(run.manifest.class_names)
        Predictions.of_fold(
            run.manifest,
            run.folds,
            fold=job.fold,
            part="held_out",
            recipe_key=job.recipe.key,
            views=("identity",),
            probabilities=np.full((1, len(rows), num_classes), 1 / num_classes, np.float32),
            class_names=run.class_names,
        ).write(run.predictions_file(job.recipe.key, job.fold, "held_out"))
        JobRecord(
            recipe=job.recipe.key,
            fold=job.fold,
            part=job.part,
            seconds=time.time() - began,
            workers=world.size,
            threads=1,
            metric=run.goal.metric.name,
            score=0.0,
        ).write(run.record_file(job))
    world.barrier()


def make_run(folder: Path) -> Run:
    """Makes the run directory of a study on 120 rows without images."""
    names = [f"{row}.png" for row in range(120)]
    manifest = make_manifest(names, ["nv" if row % 3 else "mel" for row in range(120)], root=folder)
    folds = make_folds(manifest, FoldSettings(k=NUM_FOLDS))
    facts = RunFacts(
        manifest=manifest.digest,
        pixels="",
        folds=folds.digest,
        metric="macro_f1",
        requirements=(),
        data={},
        divide={},
        cache=str(folder / "cache"),
        stores=None,
        images={},
        space="empty",
    )
    return Run.create(folder / "run", manifest, folds, facts)


def time_lanes(folder: Path, plan: LanePlan, num_trials: int, job_seconds: float) -> Timing:
    """Runs trials on lanes that last as long as the study."""
    run = make_run(folder)
    broker = start_broker("benchmark")
    began = time.perf_counter()
    lanes = LanePool(run, "benchmark", plan, print, partial(pretend, seconds=job_seconds))
    while len(ray.get(broker.status.remote()).lanes) < plan.lanes:
        time.sleep(0.05)
    lane_start = time.perf_counter() - began
    began = time.perf_counter()
    searcher = StudySearcher(SPACE, run, num_trials, "benchmark", SearchProgress(print), plan.lanes)
    make_tuner(searcher, run).fit()
    seconds = time.perf_counter() - began
    status = ray.get(broker.status.remote())
    if status.ended[Outcome.DONE] != num_trials * NUM_FOLDS:
        raise SystemExit(f"{num_trials * NUM_FOLDS} jobs should be done, but the broker says {status}")
    lanes.close(timeout=30)
    return Timing(seconds, lane_start, busy_share(run, plan.lanes))


def busy_share(run: Run, num_lanes: int) -> float:
    """Returns the share of the lanes' time that jobs got, from the first begin to the last end."""
    files = list((run.folder / "jobs").iterdir())
    seconds = np.array([JobRecord.read(path).seconds for path in files])
    # A job ends when its record is written.
    ended = np.array([path.stat().st_mtime for path in files])
    return float(seconds.sum() / (num_lanes * (ended.max() - (ended - seconds).min())))


def report_once() -> None:
    """The train loop of the usual way."""
    train.report({"score": 0.5})


def fit_one(config: dict[str, Any]) -> None:
    """The trainable of the usual way."""
    TorchTrainer(
        report_once,
        torch_config=TorchConfig(backend="gloo"),
        scaling_config=train.ScalingConfig(num_workers=config["workers"], resources_per_worker=config["resources"]),
        run_config=train.RunConfig(
            name=f"train-{tune.get_context().get_trial_id()}",
            storage_path=config["folder"],
            callbacks=[TuneReportCallback()],
        ),
    ).fit()


def time_usual(folder: Path, plan: LanePlan, num_trials: int) -> Timing:
    """Runs trials that each start a `TorchTrainer`, as many at a time as there would be lanes."""
    space = {"workers": plan.workers, "resources": plan.worker_resources, "folder": str(folder / "ray"),
             "lr": tune.loguniform(0.001, 1.0)}  # fmt: skip
    began = time.perf_counter()
    results = tune.Tuner(
        tune.with_resources(fit_one, trial_resources()),
        param_space=space,
        tune_config=tune.TuneConfig(
            metric="score", mode="max", num_samples=num_trials, max_concurrent_trials=plan.lanes
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(folder / "ray"),
            verbose=0,
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    ).fit()
    seconds = time.perf_counter() - began
    scored = sum("score" in (result.metrics or {}) for result in results)
    if scored != num_trials:
        raise SystemExit(f"{num_trials} trials should have reported, but {scored} did: {results.errors[:1]}")
    return Timing(seconds)


def alone(workers: int, contender: Callable[[Path, LanePlan], Timing]) -> tuple[Timing, LanePlan]:
    """Times a contender on its own Ray and in its own folder."""
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as folder, connected(None):
        plan = plan_lanes(ray.cluster_resources()["CPU"], 0, workers, 0)
        return contender(Path(folder), plan), plan


def compare(console: Console, options: argparse.Namespace) -> Table:
    """Runs trials that do nothing."""
    table = Table(title=f"wall time of trials that train nothing, median of {options.repeats}")
    figures = ("trials", "total s", "s a trial", "ratio", "lanes up, s", "ratio with it")
    for column in ("workers", "at a time", "contender", *figures):
        table.add_column(column, justify="right" if column != "contender" else "left")
    contenders: dict[str, tuple[int, Callable[[Path, LanePlan], Timing]]] = {
        "usual": (options.trials, partial(time_usual, num_trials=options.trials)),
        "lanes": (options.trials, partial(time_lanes, num_trials=options.trials, job_seconds=0.0)),
        "lanes, longer study": (options.many, partial(time_lanes, num_trials=options.many, job_seconds=0.0)),
    }
    for workers in options.workers:
        timings: dict[str, list[Timing]] = {name: [] for name in contenders}
        for repeat in range(options.repeats):
            for name, (num_trials, contender) in contenders.items():
                timing, plan = alone(workers, contender)
                timings[name].append(timing)
                console.print(f"{workers} workers, repeat {repeat + 1}, {name}: {num_trials} trials in {timing}")
        usual = median(timing.seconds for timing in timings["usual"]) / options.trials
        for name, (num_trials, _) in contenders.items():
            seconds = median(timing.seconds for timing in timings[name])
            up = median(timing.lane_start for timing in timings[name])
            each, ratios = seconds / num_trials, (usual * num_trials / seconds, usual * num_trials / (seconds + up))
            table.add_row(str(workers), str(plan.lanes), name, str(num_trials), f"{seconds:.1f}", f"{each:.2f}",
                          f"{ratios[0]:.1f}", f"{up:.1f}", f"{ratios[1]:.1f}")  # fmt: skip
    return table


def measure_busy(console: Console, options: argparse.Namespace) -> Table:
    """Runs jobs that sleep."""
    table = Table(title=f"lanes busy with jobs of {options.job_seconds:g} s")
    for column in ("workers", "lanes", "jobs", "busy"):
        table.add_column(column, justify="right")
    for workers in options.workers:
        contender = partial(time_lanes, num_trials=options.busy_trials, job_seconds=options.job_seconds)
        timing, plan = alone(workers, contender)
        console.print(f"{workers} workers, jobs of {options.job_seconds:g} s: busy {timing.busy:.1%}, {timing}")
        table.add_row(str(workers), str(plan.lanes), str(options.busy_trials * NUM_FOLDS), f"{timing.busy:.1%}")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=6, help="number of trials of both contenders")
    parser.add_argument("--many", type=int, default=40, help="number of trials of the longer study on lanes")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="DDP workers per trial")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--job-seconds", type=float, default=10.0, help="length of the jobs that sleep")
    parser.add_argument("--busy-trials", type=int, default=4, help="number of trials of two such jobs each")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, chatter_to(Path(folder) / "ray.log") as stream:
        console = Console(file=stream, width=120)
        tables = [compare(console, options), measure_busy(console, options)]
        console.print(*tables)


if __name__ == "__main__":
    main()
