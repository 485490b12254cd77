"""The broker as a Ray actor, and a lane's line to it; one Ray session for all of them."""

import threading
import time
import uuid

import pytest
import ray
import torch

from raysk.recipe import Job, Recipe
from raysk.search.broker import find_broker, start_broker
from raysk.search.cluster import connected
from raysk.search.jobs import Outcome, QueuedJob
from raysk.search.lane_loop import JobStopped, _Line
from raysk.training.loop import Progress
from raysk.training.world import World

JOBS = [Job(Recipe(), fold) for fold in range(3)]


@pytest.fixture(scope="module", autouse=True)
def session():
    with connected(None):
        yield


@pytest.fixture
def broker():
    name = f"broker-{uuid.uuid4().hex}"
    actor = start_broker(name)
    yield find_broker(name)
    ray.kill(actor)


def submit(broker, *jobs):
    ray.get(broker.submit.remote([QueuedJob.of(job, job.fold, 0) for job in jobs]))


def test_who_waits_for_an_outcome_hears_of_it(broker):
    submit(broker, JOBS[0])
    waits = broker.outcome.remote(JOBS[0].id)
    lane = ray.get(broker.join.remote(0))
    order, plain = ray.get(broker.take.remote(0, lane))
    assert (order, Job.from_plain(plain)) == ("work", JOBS[0])
    assert ray.wait([waits], timeout=0.2)[0] == []
    ray.get(broker.finish.remote(0, lane, JOBS[0].id, "failed", "the loss is nan"))
    assert ray.get(waits, timeout=10) == ("failed", "the loss is nan")


def test_a_waiting_lane_gets_the_job_as_soon_as_there_is_one(broker):
    lane = ray.get(broker.join.remote(0))
    asks = broker.take.remote(0, lane)
    submit(broker, JOBS[1])
    assert ray.get(asks, timeout=10)[0] == "work"


def test_a_lane_that_asks_for_nothing_is_told_to_ask_again(broker):
    lane = ray.get(broker.join.remote(0))
    assert ray.get(broker.take.remote(0, lane), timeout=10) == ("wait", None)


def test_requests_that_a_killed_worker_left_behind_swallow_no_job(broker):
    old = ray.get(broker.join.remote(0))
    left_behind = [broker.take.remote(0, old) for _ in range(3)]
    new = ray.get(broker.join.remote(0))
    submit(broker, *JOBS)
    assert [ray.get(asks, timeout=10) for asks in left_behind] == [("leave", None)] * 3
    assert ray.get(broker.take.remote(0, new), timeout=10)[0] == "work"
    status = ray.get(broker.status.remote())
    assert (status["waiting"], [lane["job"] for lane in status["lanes"]]) == (2, [JOBS[0].id])


def test_two_recipes_of_one_encoder_are_never_trained_at_once(broker):
    twin = Job(Recipe.from_plain({"stage_two": {"epochs": 99}}), 0)
    assert twin.recipe.encoder_key == JOBS[0].recipe.encoder_key
    submit(broker, JOBS[0], twin)
    lanes = [ray.get(broker.join.remote(number)) for number in (0, 1)]
    orders = [ray.get(broker.take.remote(number, lanes[number]), timeout=10)[0] for number in (0, 1)]
    assert orders == ["work", "wait"]


def test_the_status_counts_jobs_and_shows_what_lanes_say(broker):
    submit(broker, *JOBS)
    lane = ray.get(broker.join.remote(4))
    ray.get(broker.take.remote(4, lane))
    ray.get(broker.report.remote(4, lane, {"stage": "stage one", "epoch": 3}))
    ray.get(broker.cancel.remote([JOBS[2].id]))
    status = ray.get(broker.status.remote())
    assert {name: status[name] for name in ("waiting", "done", "failed", "cancelled")} == {
        "waiting": 1, "done": 0, "failed": 0, "cancelled": 1,
    }  # fmt: skip
    (shown,) = status["lanes"]
    assert (shown["lane"], shown["job"], shown["epoch"]) == (4, JOBS[0].id, 3)
    assert shown["busy_seconds"] >= 0


def test_a_closed_broker_ends_all_waiting_and_sends_lanes_home(broker):
    submit(broker, *JOBS)
    waits = [broker.outcome.remote(job.id) for job in JOBS]
    lane = ray.get(broker.join.remote(0))
    ray.get(broker.close.remote())
    assert {outcome for outcome, _ in ray.get(waits, timeout=10)} == {"cancelled"}
    assert ray.get(broker.take.remote(0, lane), timeout=10) == ("leave", None)


def the_line(broker):
    """Returns a chief's line to the broker, with JOBS[0] at work."""
    submit(broker, JOBS[0])
    line = _Line(broker, 0, ray.get(broker.join.remote(0)), World(0, 1, torch.device("cpu")))
    assert line.next_order() == ("work", JOBS[0])
    return line


def test_a_cancelled_job_is_left_with_its_next_report(broker):
    line = the_line(broker)
    line.report(Progress("stage one", 5, 1))
    ray.get(broker.cancel.remote([JOBS[0].id]))
    with pytest.raises(JobStopped):
        line.report(Progress("stage one", 5, 2))
    line.finish(JOBS[0], Outcome.CANCELLED)
    assert ray.get(broker.outcome.remote(JOBS[0].id), timeout=10) == ("cancelled", "")


@pytest.mark.parametrize("end", [None, JobStopped, ValueError])
def test_the_heartbeat_ends_with_its_job_however_that_ends(broker, end):
    line = the_line(broker)
    before = set(threading.enumerate())
    try:
        with line.heartbeat():
            (beating,) = set(threading.enumerate()) - before
            if end:
                raise end
    except (JobStopped, ValueError):
        pass
    beating.join(timeout=30)
    assert not beating.is_alive(), "it would vouch for a lane that does something else by now"


def test_the_heartbeat_keeps_a_long_epoch_alive(broker):
    line = the_line(broker)
    line.progress = {"epoch": 7}
    deadline = time.monotonic() + 60
    with line.heartbeat():
        while ray.get(broker.status.remote())["lanes"][0].get("epoch") != 7:
            assert time.monotonic() < deadline
            time.sleep(0.1)
