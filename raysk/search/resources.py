"""How many lanes a cluster has room for, and the sum that shows it."""

from dataclasses import dataclass

from raysk.errors import ConfigError

# Less than one CPU, so that a machine whose every core trains still has room for the light trials.
WORKER_CPUS = 0.95
TRIAL_CPUS = 0.01


@dataclass(frozen=True)
class LanePlan:
    """The lanes of a study.

    Args:
        lanes: How many.
        workers: DDP workers of each.
        gpus_per_worker: 0 trains on CPUs.
        threads: Of torch in each worker.
        sum: How the number came about, to be printed.
    """

    lanes: int
    workers: int
    gpus_per_worker: float
    threads: int
    sum: str

    @property
    def worker_resources(self) -> dict[str, float]:
        """What one worker reserves."""
        return {"CPU": WORKER_CPUS} | ({"GPU": self.gpus_per_worker} if self.gpus_per_worker else {})

    @property
    def trials(self) -> int:
        """Trials at work at a time: one more than there are lanes, so that no lane waits for a trial to begin."""
        return self.lanes + 1


def plan_lanes(cpus: float, gpus: float, workers: int, gpus_per_worker: float) -> LanePlan:
    """Fills a cluster with lanes.

    Args:
        cpus: Of the cluster.
        gpus: Of the cluster.
        workers: DDP workers per lane.
        gpus_per_worker: 0 trains on CPUs.

    Raises:
        ConfigError: Not even one lane fits; the message shows the sum.
    """
    if workers < 1:
        raise ConfigError(f"--workers must be >= 1, but got {workers}: give the number of DDP workers per lane")
    if gpus_per_worker < 0:
        raise ConfigError(f"--gpus-per-worker must be >= 0, but got {gpus_per_worker:g}: give 0 to train on CPUs")
    lane_cpus, lane_gpus = workers * WORKER_CPUS, workers * gpus_per_worker
    lanes = int((cpus - 2 * TRIAL_CPUS) / (lane_cpus + TRIAL_CPUS))
    if gpus_per_worker:
        lanes = min(lanes, int(gpus / lane_gpus + 1e-9))
    group = f"{workers} worker{'s' * (workers > 1)}"
    needs = f"{group} x {WORKER_CPUS:g} CPU = {lane_cpus:g} CPU"
    if gpus_per_worker:
        needs += f" and {group} x {gpus_per_worker:g} GPU = {lane_gpus:g} GPU"
    has = f"{cpus:g} CPU and {gpus:g} GPU"
    if lanes < 1:
        remedy = "give --gpus-per-worker 0 to train on CPUs" if gpus < gpus_per_worker else "lower --workers"
        raise ConfigError(f"a lane must fit the cluster, but {needs} is more than its {has}: {remedy}, or add nodes")
    return LanePlan(
        lanes, workers, gpus_per_worker, max(1, int(cpus // (lanes * workers))), f"a lane is {needs}, of {has}"
    )
