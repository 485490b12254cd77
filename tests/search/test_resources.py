import pytest

from raysk.errors import ConfigError
from raysk.search.resources import plan_lanes


@pytest.mark.parametrize(
    ("cpus", "gpus", "workers", "gpus_per_worker", "lanes", "threads"),
    [
        (1, 0, 1, 0, 1, 1),
        (2, 0, 1, 0, 2, 1),
        (2, 0, 2, 0, 1, 1),
        (16, 0, 1, 0, 16, 1),
        (16, 0, 3, 0, 5, 1),
        (16, 4, 1, 1, 4, 4),
        (16, 4, 2, 1, 2, 4),
        (16, 1, 1, 0.5, 2, 8),
        (8, 1, 1, 0.1, 8, 1),  # 0.1 is not exact: ten tenths must be one GPU; here eight CPUs end it first
        (32, 1, 1, 0.1, 10, 3),
        (2, 8, 1, 1, 2, 1),
    ],
)
def test_lanes_fill_the_cluster(cpus, gpus, workers, gpus_per_worker, lanes, threads):
    plan = plan_lanes(cpus, gpus, workers, gpus_per_worker)
    assert (plan.lanes, plan.threads) == (lanes, threads)
    worker = plan.worker_resources
    assert plan.lanes * plan.workers * worker["CPU"] <= cpus
    assert plan.lanes * plan.workers * worker.get("GPU", 0) <= gpus + 1e-6
    assert plan.threads * plan.lanes * plan.workers <= cpus
    assert ("GPU" in worker) is (gpus_per_worker > 0)


def test_the_sum_is_shown():
    assert plan_lanes(16, 4, 2, 1).sum == "a lane is 2 workers x 1 CPU and 1 GPU = 2 CPU and 2 GPU, of 16 CPU and 4 GPU"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((2, 0, 3, 0), r"3 workers x 1 CPU = 3 CPU is more than its 2 CPU and 0 GPU: lower --workers"),
        (
            (16, 1, 2, 1),
            r"2 workers x 1 CPU and 1 GPU = 2 CPU and 2 GPU is more than its 16 CPU and 1 GPU",
        ),
        (
            (16, 0, 1, 1),
            r"1 worker x 1 CPU and 1 GPU = 1 CPU and 1 GPU is more than its 16 CPU and 0 GPU: give --gpus-per-worker 0",
        ),
        ((0.5, 0, 1, 0), r"1 CPU is more than its 0.5 CPU"),
        ((2, 0, 0, 0), r"^--workers must be >= 1, but got 0: "),
        ((2, 0, 1, -1), r"^--gpus-per-worker must be >= 0, but got -1: "),
        ((2, 0, 1, float("nan")), r"^--gpus-per-worker must be >= 0, but got nan: "),
    ],
)
def test_a_lane_that_does_not_fit_is_refused_with_the_sum(arguments, message):
    with pytest.raises(ConfigError, match=message) as caught:
        plan_lanes(*arguments)
    assert "\n" not in str(caught.value)
