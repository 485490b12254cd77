"""The number of lanes that fit a cluster, and the sum that shows it."""

from dataclasses import dataclass

from raysk.errors import ConfigError


@dataclass(frozen=True)
class LanePlan:
    """The lanes of a study.

    Args:
        lanes: Number of lanes.
        workers: DDP workers of each lane.
        gpus_per_worker: 0 trains on CPUs.
        threads: Torch threads of each worker.
        sum: The sum that gives the number of lanes, for printing.
    """

    lanes: int
    workers: int
    gpus_per_worker: float
    threads: int
    sum: str

    @property
    def worker_resources(self) -> dict[str, float]:
        """Resources of one worker."""
        return {"CPU": 1.0} | ({"GPU": self.gpus_per_worker} if self.gpus_per_worker else {})

    @property
    def needs(self) -> str:
        """Resources of one lane, for printing."""
        return _resources(self.workers, self.workers * self.gpus_per_worker)


def plan_lanes(cpus: float, gpus: float, workers: int, gpus_per_worker: float) -> LanePlan:
    """Plans as many lanes as a cluster has room for.

    Args:
        cpus: CPUs of the cluster.
        gpus: GPUs of the cluster.
        workers: DDP workers per lane.
        gpus_per_worker: 0 trains on CPUs.

    Raises:
        ConfigError: No lane fits; the message shows the sum.
    """
    if workers < 1:
        raise ConfigError(f"--workers must be >= 1, but got {workers}: give the number of DDP workers per lane")
    if not gpus_per_worker >= 0:  # also refuses nan
        raise ConfigError(f"--gpus-per-worker must be >= 0, but got {gpus_per_worker:g}: give 0 to train on CPUs")
    lanes = int(cpus / workers)
    if gpus_per_worker:
        lanes = min(lanes, int(gpus / (workers * gpus_per_worker) + 1e-9))
    worker = _resources(1, gpus_per_worker)
    needs = f"{workers} worker{'s' * (workers > 1)} x {worker} = {_resources(workers, workers * gpus_per_worker)}"
    has = f"{cpus:g} CPU and {gpus:g} GPU"
    if lanes < 1:
        remedy = "give --gpus-per-worker 0 to train on CPUs" if gpus < gpus_per_worker else "lower --workers"
        raise ConfigError(f"a lane must fit the cluster, but {needs} is more than its {has}: {remedy}, or add nodes")
    threads = max(1, int(cpus // (lanes * workers)))
    return LanePlan(lanes, workers, gpus_per_worker, threads, f"a lane is {needs}, of {has}")


def _resources(cpus: float, gpus: float) -> str:
    return f"{cpus:g} CPU" + (f" and {gpus:g} GPU" if gpus else "")
