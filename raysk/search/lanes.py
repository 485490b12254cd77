"""Lanes: long-lived Ray Train worker groups, each doing job after job.

A lane is one `TorchTrainer.fit()` that lasts as long as the study. Its train loop asks the broker for the next job,
does it, says how it ended, and asks again; Ray Train restarts a group of which a worker has died.
"""

import threading

from ray.exceptions import RayError
from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
from ray.train.torch import TorchConfig, TorchTrainer

from raysk.run import Run
from raysk.search.lane_entry import enter_lane
from raysk.search.lane_loop import Do, LaneSettings
from raysk.search.resources import LanePlan


class LanePool:
    """The lanes of a study, each with its `TorchTrainer.fit()` in a thread of the driver.

    Args:
        run: The run directory.
        broker: Name of the broker.
        plan: How many lanes of how many workers.
        do: What they do with a job; None trains.
        loader: Processes that draw views beside each worker; None leaves it to the machine.
    """

    def __init__(self, run: Run, broker: str, plan: LanePlan, do: Do | None = None, loader: int | None = None) -> None:
        self.failures: dict[int, str] = {}
        self._threads = []
        for number in range(plan.lanes):
            settings = LaneSettings(number, broker, str(run.folder.resolve()), plan.threads, do, loader)
            trainer = TorchTrainer(
                enter_lane,
                train_loop_config=vars(settings),
                torch_config=TorchConfig(backend="nccl" if plan.gpus_per_worker else "gloo"),
                scaling_config=ScalingConfig(
                    num_workers=plan.workers,
                    use_gpu=plan.gpus_per_worker > 0,
                    resources_per_worker=plan.worker_resources,
                ),
                run_config=RunConfig(
                    name=f"lane{number}",
                    storage_path=str((run.folder / "logs" / "ray").resolve()),
                    failure_config=FailureConfig(max_failures=-1),
                ),
            )
            thread = threading.Thread(target=self._host, args=(number, trainer), daemon=True, name=f"lane{number}")
            thread.start()
            self._threads.append(thread)

    def _host(self, number: int, trainer: TorchTrainer) -> None:
        try:
            trainer.fit()
        except (TrainingFailedError, RayError) as error:
            self.failures[number] = f"{type(error).__name__}: {error}"

    def join(self, timeout: float) -> None:
        """Waits until the lanes have gone home."""
        for thread in self._threads:
            thread.join(timeout)
