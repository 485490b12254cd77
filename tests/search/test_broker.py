"""The broker as a Ray actor, and a lane's client; one Ray session for all tests."""

import os
import signal
import threading
import time
import uuid

import pytest
import ray
import torch

from raysk.recipe import Job, Recipe
from raysk.search.broker import find_broker, start_broker
from raysk.search.cluster import connected
from raysk.search.jobs import JobEnd, JobProgress, JobRequest, Order, Outcome
from raysk.search.lane_loop import BrokerClient, JobStopped
from raysk.training.loop import StageProgress
from raysk.training.world import World

pytestmark = pytest.mark.ray

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


def queued(job, trial=None):
    return JobRequest.of(job, job.fold, 0, trial=trial)


def submit(broker, *jobs):
    ray.get(broker.submit.remote([queued(job) for job in jobs]))


def test_a_call_that_waits_for_an_outcome_returns_it(broker):
    waits = broker.outcome.remote([queued(JOBS[0])])
    order, job = ray.get(broker.take.remote(0, 1))
    assert (order, Job.from_plain(job.work)) == (Order.WORK, JOBS[0])
    assert ray.wait([waits], timeout=0.2)[0] == []
    ray.get(broker.finish.remote(0, 1, job, JobEnd(outcome=Outcome.FAILED, reason="the loss is nan")))
    assert ray.get(waits, timeout=10) == JobEnd(outcome=Outcome.FAILED, reason="the loss is nan")


def test_a_waiting_lane_gets_a_job_as_soon_as_it_is_submitted(broker):
    asks = broker.take.remote(0, 1)
    submit(broker, JOBS[1])
    assert ray.get(asks, timeout=10)[0] == Order.WORK


def test_a_lane_is_told_to_ask_again_when_there_is_no_job(broker):
    assert ray.get(broker.take.remote(0, 1), timeout=10) == (Order.WAIT, None)


def test_requests_of_a_killed_worker_swallow_no_job(broker):
    left_behind = [broker.take.remote(0, 1) for _ in range(3)]
    ray.get(broker.lose.remote(0, 1, "", False))
    submit(broker, *JOBS)
    assert [ray.get(asks, timeout=10) for asks in left_behind] == [(Order.LEAVE, None)] * 3
    assert ray.get(broker.take.remote(0, 2), timeout=10)[0] == Order.WORK
    status = ray.get(broker.status.remote())
    assert (status.waiting, [lane.job for lane in status.lanes]) == (2, [JOBS[0].id])


def test_a_killed_broker_restarts_and_no_job_begins_twice(broker):
    waits = broker.outcome.remote([queued(job) for job in JOBS])
    _, job = ray.get(broker.take.remote(0, 1))
    os.kill(ray.get(broker.__ray_call__.remote(lambda _: os.getpid())), signal.SIGKILL)
    # Lane 0 goes on with its job and reports it; lane 1 asks before that.
    asks = broker.take.remote(1, 1)
    assert ray.get(broker.report.remote(0, 1, job, JobProgress(epoch=5)), timeout=60) == Order.GO_ON
    order, other = ray.get(asks, timeout=60)
    while order == Order.WAIT:
        order, other = ray.get(broker.take.remote(1, 1), timeout=60)
    assert other.id == JOBS[1].id, "the trial has queued all its jobs again"
    ray.get(broker.finish.remote(0, 1, job, JobEnd(outcome=Outcome.DONE)))
    assert ray.get(waits, timeout=10) == JobEnd(outcome=Outcome.DONE)
    status = ray.get(broker.status.remote())
    assert (status.waiting, status.ended[Outcome.DONE]) == (1, 1)


def test_two_recipes_of_one_encoder_are_never_trained_at_once(broker):
    twin = Job(Recipe.from_plain({"stage_two": {"epochs": 99}}), 0)
    assert twin.recipe.encoder_key == JOBS[0].recipe.encoder_key
    submit(broker, JOBS[0], twin)
    orders = [ray.get(broker.take.remote(number, 1), timeout=10)[0] for number in (0, 1)]
    assert orders == [Order.WORK, Order.WAIT]


def test_the_status_counts_jobs_and_shows_the_progress_of_lanes(broker):
    submit(broker, *JOBS)
    _, job = ray.get(broker.take.remote(4, 1))
    ray.get(broker.report.remote(4, 1, job, JobProgress(stage="stage one", epoch=3)))
    ray.get(broker.cancel.remote([JOBS[2].id]))
    status = ray.get(broker.status.remote())
    ended = {Outcome.DONE: 0, Outcome.FAILED: 0, Outcome.CANCELLED: 1, Outcome.BROKEN: 0}
    assert (status.waiting, status.ended) == (1, ended)
    (shown,) = status.lanes
    assert (shown.lane, shown.job, shown.progress.epoch) == (4, JOBS[0].id, 3)
    assert shown.busy_seconds >= 0


def test_a_closed_broker_ends_all_waiting_calls_and_makes_lanes_leave(broker):
    waits = [broker.outcome.remote([queued(job)]) for job in JOBS]
    ray.get(broker.status.remote())
    ray.get(broker.close.remote())
    assert {end.outcome for end in ray.get(waits, timeout=10)} == {Outcome.CANCELLED}
    assert ray.get(broker.take.remote(0, 1), timeout=10) == (Order.LEAVE, None)


def the_client(broker):
    """Returns the client of a main rank, with JOBS[0] at work."""
    submit(broker, JOBS[0])
    client = BrokerClient(broker, 0, 1, World(0, 1, torch.device("cpu")))
    assert client.next_order() == (Order.WORK, JOBS[0])
    return client


def test_a_trial_that_gives_up_a_shared_job_waits_no_longer_and_the_other_trial_has_it_done(broker):
    start, double = (queued(JOBS[0], trial=trial) for trial in (1, 9))
    waits = [broker.outcome.remote([request]) for request in (start, double)]
    ray.get(broker.status.remote())
    order, job = ray.get(broker.take.remote(0, 1))
    ray.get(broker.cancel.remote([JOBS[0].id], 9))
    assert ray.get(waits[1], timeout=10).outcome is Outcome.CANCELLED
    assert ray.get(broker.report.remote(0, 1, job, JobProgress())) is Order.GO_ON
    ray.get(broker.finish.remote(0, 1, job, JobEnd(outcome=Outcome.DONE)))
    assert (order, ray.get(waits[0], timeout=10).outcome) == (Order.WORK, Outcome.DONE)


def test_a_cancelled_job_stops_at_its_next_report(broker):
    client = the_client(broker)
    client.report(StageProgress("stage one", 5, 1))
    ray.get(broker.cancel.remote([JOBS[0].id]))
    with pytest.raises(JobStopped):
        client.report(StageProgress("stage one", 5, 2))
    client.finish(JobEnd(outcome=Outcome.CANCELLED))
    assert ray.get(broker.status.remote()).ended[Outcome.CANCELLED] == 1


@pytest.mark.parametrize("end", [None, JobStopped, ValueError])
def test_the_heartbeat_ends_with_its_job_however_the_job_ends(broker, end):
    client = the_client(broker)
    before = set(threading.enumerate())
    try:
        with client.heartbeat():
            (beating,) = set(threading.enumerate()) - before
            if end:
                raise end
    except (JobStopped, ValueError):
        pass
    beating.join(timeout=30)
    assert not beating.is_alive(), "it would vouch for a lane that does something else by now"


def test_the_heartbeat_keeps_a_long_epoch_alive(broker):
    client = the_client(broker)
    client.progress = JobProgress(epoch=7)
    deadline = time.monotonic() + 60
    with client.heartbeat():
        while ray.get(broker.status.remote()).lanes[0].progress.epoch != 7:
            assert time.monotonic() < deadline
            time.sleep(0.1)
