from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from raysk.recipe import Job, Recipe
from raysk.search.job_queue import JobQueue
from raysk.search.jobs import JobProgress, JobRequest, Order, Outcome, Priority
from raysk.spaces.stage_two_search import StageTwoSearch
from raysk.training.work import work_from_plain


class Clock:
    """A clock that the test sets."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


FIRST = 1


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def queue(clock):
    return JobQueue(max_errors=3, lease_seconds=10.0, clock=clock)


def a_job(name, *priority, encoder=None, needs=(), trial=None):
    return JobRequest(
        id=name, work={"name": name}, priority=priority or (0,), encoder=encoder, needs=needs, trial=trial
    )


def taken(queue, lane, incarnation):
    order, job = queue.take(lane, incarnation)
    assert order is Order.WORK
    return job.id


def call(queue, method, lane, incarnation, name, *arguments):
    """Calls a method of the queue for a lane and the name of its job."""
    job = queue.jobs[name].request if name in queue.jobs else a_job(name)
    return getattr(queue, method)(lane, incarnation, job, *arguments)


def test_the_smallest_priority_is_taken_first_and_equal_ones_in_order(queue):
    for job in (a_job("late", 1, 0), a_job("first", 0, 2), a_job("second", 0, 2), a_job("soonest", 0, 1)):
        queue.submit(job)
    order = []
    for _ in range(4):
        order.append(taken(queue, 0, FIRST))
        call(queue, "finish", 0, FIRST, order[-1], Outcome.DONE)
    assert order == ["soonest", "first", "second", "late"]
    assert queue.take(0, FIRST) == (Order.WAIT, None)


def test_a_job_is_queued_once_and_leased_to_one_lane(queue):
    queue.submit(a_job("one"))
    queue.submit(a_job("one"))
    assert taken(queue, 0, FIRST) == "one"
    queue.submit(a_job("one"))
    assert queue.take(1, FIRST) == (Order.WAIT, None)
    call(queue, "finish", 0, FIRST, "one", Outcome.DONE)
    queue.submit(a_job("one"))
    assert queue.take(1, FIRST) == (Order.WAIT, None), "a finished job is not repeated"


def test_a_job_that_is_submitted_again_has_the_best_of_its_priorities(queue):
    for job in (a_job("one", Priority.NEW, 0), a_job("other", Priority.SCORED, 5), a_job("one", Priority.SCORED, 0)):
        queue.submit(job)
    queue.submit(a_job("one", Priority.NEW, 9))
    assert taken(queue, 0, FIRST) == "one"


def test_after_a_job_its_trial_can_submit_work_before_a_recipe_without_a_score_begins():
    now = [0.0]
    queue = JobQueue(patience=0.2, clock=lambda: now[0])
    for job in (a_job("fold 1", Priority.NEW, 0), a_job("fold 2", Priority.NEW, 3), a_job("other", Priority.NEW, 1)):
        queue.submit(job)
    assert taken(queue, 0, FIRST) == "fold 1", "nothing has ended yet"
    call(queue, "finish", 0, FIRST, "fold 1", Outcome.DONE)
    assert queue.take(0, FIRST) == (Order.WAIT, None)
    queue.submit(a_job("fold 2", Priority.SCORED, -0.5))
    assert taken(queue, 0, FIRST) == "fold 2"
    call(queue, "finish", 0, FIRST, "fold 2", Outcome.DONE)
    now[0] += 0.3
    assert taken(queue, 0, FIRST) == "other"


def test_a_job_waits_for_the_jobs_that_it_needs(queue):
    search = a_job("search", 0, needs=("earlier", "fold"))
    for job in (search, a_job("fold", 1), a_job("other", 2)):
        queue.submit(job)
    assert taken(queue, 0, FIRST) == "fold", "the search needs it"
    call(queue, "finish", 0, FIRST, "fold", Outcome.DONE)
    assert taken(queue, 0, FIRST) == "search", "what the queue does not know was done by an earlier driver"


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.CANCELLED])
def test_a_job_is_not_handed_out_if_a_job_that_it_needs_was_not_done(queue, outcome):
    search = a_job("search", 0, needs=("fold",))
    queue.submit(a_job("fold", 1))
    queue.submit(search)
    assert taken(queue, 0, FIRST) == "fold"
    if outcome is Outcome.CANCELLED:
        queue.cancel("fold")
    call(queue, "finish", 0, FIRST, "fold", outcome)
    assert queue.take(0, FIRST) == (Order.WAIT, None)


def test_two_lanes_never_train_one_encoder_at_once(queue):
    for job in (a_job("a", 0, encoder="e"), a_job("b", 1, encoder="e"), a_job("c", 2, encoder="f"), a_job("d", 3)):
        queue.submit(job)
    assert taken(queue, 0, FIRST) == "a"
    assert taken(queue, 1, FIRST) == "c", "b would train the encoder that a trains"
    call(queue, "finish", 1, FIRST, "c", Outcome.DONE)
    assert taken(queue, 1, FIRST) == "d", "a job without an encoder is never held back"
    call(queue, "finish", 0, FIRST, "a", Outcome.DONE)
    assert taken(queue, 0, FIRST) == "b"


def test_a_new_incarnation_voids_the_calls_of_the_old_one(queue):
    old, new = 4, 5
    queue.submit(a_job("one"))
    queue.submit(a_job("two", 1))
    taken(queue, 0, old)
    assert taken(queue, 0, new) == "one", "the job of the old one went back"
    assert queue.take(0, old) == (Order.LEAVE, None), "a request that a dead worker left must not swallow a job"
    assert call(queue, "report", 0, old, "one", JobProgress(epoch=9)) is Order.STOP
    call(queue, "finish", 0, old, "one", Outcome.DONE)
    call(queue, "crash", 0, old, "one", "long ago")
    assert (queue.jobs["one"].outcome, queue.jobs["one"].errors) == (None, 0)
    assert queue.lanes[0].job.id == "one"
    assert queue.lanes[0].progress == JobProgress()
    call(queue, "finish", 0, new, "one", Outcome.DONE)
    assert queue.jobs["one"].outcome is Outcome.DONE


def test_a_lost_lane_returns_its_job_at_once_and_is_ignored_afterwards(queue):
    queue.submit(a_job("one"))
    assert taken(queue, 0, FIRST) == "one"
    assert not queue.lose(0, FIRST), "it has not reported yet"
    assert taken(queue, 1, FIRST) == "one"
    assert queue.take(0, FIRST) == (Order.LEAVE, None)
    call(queue, "finish", 0, FIRST, "one", Outcome.DONE)
    assert queue.jobs["one"].outcome is None
    assert queue.take(0, FIRST + 1) == (Order.WAIT, None), "its next worker group works"


def test_the_loss_of_an_earlier_worker_group_does_not_affect_the_present_one(queue):
    queue.submit(a_job("one"))
    assert taken(queue, 0, FIRST + 1) == "one"
    assert queue.lose(0, FIRST)
    assert queue.lanes[0].job.id == "one"


def test_a_worker_group_that_never_called_has_not_worked(queue):
    assert not queue.lose(0, FIRST)
    assert queue.take(0, FIRST) == (Order.LEAVE, None)
    assert queue.take(0, FIRST + 1) == (Order.WAIT, None)
    assert not queue.lose(0, FIRST + 2)


def test_an_idle_worker_group_that_asks_again_has_worked(queue):
    assert queue.take(0, FIRST) == (Order.WAIT, None)
    assert queue.take(0, FIRST) == (Order.WAIT, None)
    assert queue.lose(0, FIRST)


def test_a_restarted_queue_learns_from_lanes_which_jobs_they_hold(clock):
    queue = JobQueue(hold=4.0, clock=clock)
    for name in ("at work", "other"):
        queue.submit(a_job(name))
    assert queue.take(1, FIRST) == (Order.WAIT, None), "no job is handed out that a lane may hold"
    assert queue.report(0, FIRST, a_job("at work"), JobProgress(epoch=3)) is Order.GO_ON
    assert queue.report(2, FIRST, a_job("not yet queued"), JobProgress()) is Order.GO_ON
    clock.now += 4.0
    assert taken(queue, 1, FIRST) == "other"
    queue.submit(a_job("not yet queued"))
    assert queue.take(3, FIRST) == (Order.WAIT, None), "each job is with the lane that does it"
    queue.finish(0, FIRST, a_job("at work"), Outcome.DONE)
    assert queue.jobs["at work"].outcome is Outcome.DONE


def test_a_restarted_queue_records_the_end_of_a_job_that_it_did_not_know(queue):
    queue.finish(0, FIRST, a_job("one"), Outcome.DONE)
    queue.submit(a_job("one"))
    assert queue.jobs["one"].outcome is Outcome.DONE
    assert queue.take(1, FIRST) == (Order.WAIT, None)


def test_a_closed_queue_stops_a_lane_that_it_did_not_know(queue):
    queue.close()
    assert queue.report(0, FIRST, a_job("one"), JobProgress()) is Order.STOP
    queue.finish(0, FIRST, a_job("one"), Outcome.CANCELLED)
    assert queue.take(0, FIRST) == (Order.LEAVE, None)


def test_a_silent_lane_loses_its_job_and_a_reporting_lane_does_not(queue, clock):
    queue.submit(a_job("one"))
    queue.submit(a_job("two", 1))
    taken(queue, 0, FIRST)
    taken(queue, 1, FIRST)
    for _ in range(3):
        clock.now += 4.0
        assert call(queue, "report", 1, FIRST, "two", JobProgress(epoch=1)) is Order.GO_ON
        queue.expire()
    assert queue.lanes[0].job is None
    assert queue.lanes[1].job.id == "two"
    assert call(queue, "report", 0, FIRST, "one", JobProgress()) is Order.STOP, (
        "it must leave what another lane may take now"
    )
    call(queue, "finish", 0, FIRST, "one", Outcome.DONE)
    assert queue.jobs["one"].outcome is None
    assert taken(queue, 0, FIRST) == "one", "a lane that calls again is trusted again"


def test_a_lease_ends_after_its_last_second_and_not_at_it(queue, clock):
    queue.submit(a_job("one"))
    taken(queue, 0, FIRST)
    clock.now += 10.0
    queue.expire()
    assert queue.lanes[0].job.id == "one"
    clock.now += 0.001
    queue.expire()
    assert queue.lanes[0].job is None


def test_a_job_fails_after_three_errors_of_its_own_with_the_reason(queue):
    queue.submit(a_job("one"))
    for errors in range(3):
        assert (queue.jobs["one"].errors, queue.jobs["one"].outcome) == (errors, None)
        assert taken(queue, 0, FIRST) == "one"
        call(queue, "crash", 0, FIRST, "one", "ValueError: 40")
    assert queue.take(0, FIRST) == (Order.WAIT, None)
    job = queue.jobs["one"]
    assert (job.outcome, job.reason) == (Outcome.FAILED, "given up after 3 errors: ValueError: 40")


def test_a_job_that_takes_too_much_memory_fails_although_its_lane_is_lost(queue):
    queue.submit(a_job("one"))
    for incarnation in range(3):
        assert taken(queue, 0, incarnation) == "one"
        queue.lose(0, incarnation, "too much memory")
    job = queue.jobs["one"]
    assert (job.outcome, job.reason) == (Outcome.FAILED, "given up after 3 errors: too much memory")


def test_a_job_that_kills_its_workers_at_one_point_again_and_again_fails(queue):
    queue.submit(a_job("one"))
    for incarnation in range(10):
        assert taken(queue, 0, incarnation) == "one"
        assert call(queue, "report", 0, incarnation, "one", JobProgress(stage="stage one", epoch=3)) is Order.GO_ON
        assert queue.lose(0, incarnation, is_suspect=True)
    job = queue.jobs["one"]
    assert (job.outcome, job.reason) == (Outcome.FAILED, "given up after its workers died 10 times at stage one 3")


def test_a_job_that_makes_progress_does_not_fail_however_often_its_workers_die(queue):
    queue.submit(a_job("one"))
    for incarnation in range(50):
        assert taken(queue, 0, incarnation) == "one"
        call(queue, "report", 0, incarnation, "one", JobProgress(stage="stage one", epoch=incarnation // 5))
        queue.lose(0, incarnation, is_suspect=True)
    assert queue.jobs["one"].outcome is None


@pytest.mark.parametrize("end", ["lost", "replaced", "silent", "asks for another"])
def test_lost_lanes_do_not_count_as_errors_of_their_job(queue, clock, end):
    queue.submit(a_job("one"))
    incarnation = FIRST
    for _ in range(20):
        assert taken(queue, 0, incarnation) == "one"
        if end == "lost":
            queue.lose(0, incarnation)
        elif end == "silent":
            clock.now += 11.0
            queue.expire()
        incarnation += end in ("lost", "replaced")
    assert (queue.jobs["one"].errors, queue.jobs["one"].outcome) == (0, None)


def test_a_reported_failure_is_final_and_keeps_its_reason(queue):
    queue.submit(a_job("one"))
    taken(queue, 0, FIRST)
    call(queue, "finish", 0, FIRST, "one", Outcome.FAILED, "the loss is nan")
    assert (queue.jobs["one"].outcome, queue.jobs["one"].reason) == (Outcome.FAILED, "the loss is nan")
    queue.submit(a_job("one"))
    assert queue.take(0, FIRST) == (Order.WAIT, None)


def test_a_waiting_job_is_cancelled_at_once_and_can_be_queued_again(queue):
    queue.submit(a_job("one"))
    queue.cancel("one")
    assert queue.jobs["one"].outcome is Outcome.CANCELLED
    assert queue.take(0, FIRST) == (Order.WAIT, None)
    queue.submit(a_job("one"))
    assert taken(queue, 0, FIRST) == "one"
    assert call(queue, "report", 0, FIRST, "one", JobProgress()) is Order.GO_ON


def test_a_job_at_work_is_cancelled_at_its_lanes_next_report(queue):
    queue.submit(a_job("one"))
    taken(queue, 0, FIRST)
    assert call(queue, "report", 0, FIRST, "one", JobProgress(epoch=1)) is Order.GO_ON
    queue.cancel("one")
    assert queue.jobs["one"].outcome is None
    assert call(queue, "report", 0, FIRST, "one", JobProgress(epoch=2)) is Order.STOP
    call(queue, "finish", 0, FIRST, "one", Outcome.CANCELLED)
    assert queue.jobs["one"].outcome is Outcome.CANCELLED


def test_a_cancelled_job_whose_lane_dies_is_not_tried_again(queue):
    queue.submit(a_job("one"))
    taken(queue, 0, FIRST)
    queue.cancel("one")
    assert queue.take(0, FIRST + 1) == (Order.WAIT, None)
    assert queue.jobs["one"].outcome is Outcome.CANCELLED


def test_a_trial_cancels_no_job_that_another_trial_claims(queue):
    start, double = 1, 9
    for name in ("at work", "waiting"):
        queue.submit(a_job(name, Priority.FIXED, trial=start))
        queue.submit(a_job(name, Priority.NEW, trial=double))
    taken(queue, 0, FIRST)
    for name in ("at work", "waiting"):
        queue.cancel(name, double)
        queue.cancel(name, double)
        assert queue.jobs[name].outcome is None
    assert call(queue, "report", 0, FIRST, "at work", JobProgress()) is Order.GO_ON
    for name in ("at work", "waiting"):
        queue.cancel(name, start)
    assert queue.jobs["waiting"].outcome is Outcome.CANCELLED
    assert call(queue, "report", 0, FIRST, "at work", JobProgress()) is Order.STOP


def test_a_job_has_the_priority_of_the_trials_that_still_claim_it(queue):
    for job in (a_job("shared", 0, trial=1), a_job("shared", 2, trial=9), a_job("other", 1)):
        queue.submit(job)
    queue.cancel("shared", 1)
    assert taken(queue, 0, FIRST) == "other"


@pytest.mark.parametrize("is_told", [False, True])
def test_a_stopping_job_that_another_trial_claims_is_done(queue, is_told):
    queue.submit(a_job("one", trial=1))
    taken(queue, 0, FIRST)
    queue.cancel("one", 1)
    if is_told:
        assert call(queue, "report", 0, FIRST, "one", JobProgress()) is Order.STOP
    queue.submit(a_job("one", trial=2))
    if is_told:
        call(queue, "finish", 0, FIRST, "one", Outcome.CANCELLED)
        assert taken(queue, 0, FIRST) == "one", "its lane was told to stop, and another one begins it again"
    assert call(queue, "report", 0, FIRST, "one", JobProgress()) is Order.GO_ON


def test_all_jobs_are_cancelled_whoever_claims_them(queue):
    for trial in (1, 2):
        queue.submit(a_job("shared", trial=trial))
    queue.cancel_all()
    assert queue.jobs["shared"].outcome is Outcome.CANCELLED


def test_searches_can_be_left_when_all_else_is_cancelled(queue):
    search = replace(a_job("search"), work={"kind": "stage-two search"})
    for job in (a_job("fold"), search):
        queue.submit(job)
    queue.cancel_all(but_searches=True)
    assert queue.jobs["fold"].outcome is Outcome.CANCELLED
    assert queue.jobs["search"].outcome is None
    queue.cancel_all()
    assert queue.jobs["search"].outcome is Outcome.CANCELLED


def test_a_lane_at_work_is_told_that_time_is_short(queue):
    queue.submit(a_job("one"))
    taken(queue, 0, FIRST)
    queue.hurry()
    assert call(queue, "report", 0, FIRST, "one", JobProgress()) is Order.HURRY
    queue.cancel_all()
    assert call(queue, "report", 0, FIRST, "one", JobProgress()) is Order.STOP


def test_cancelling_an_ended_or_unknown_job_changes_nothing(queue):
    queue.submit(a_job("one"))
    taken(queue, 0, FIRST)
    call(queue, "finish", 0, FIRST, "one", Outcome.DONE)
    queue.cancel("one")
    queue.cancel("nobody")
    assert queue.jobs["one"].outcome is Outcome.DONE
    assert list(queue.jobs) == ["one"]


def test_a_closed_queue_cancels_all_jobs_and_makes_lanes_leave(queue):
    for name in ("at work", "waiting"):
        queue.submit(a_job(name))
    taken(queue, 0, FIRST)
    queue.close()
    assert queue.jobs["waiting"].outcome is Outcome.CANCELLED
    assert call(queue, "report", 0, FIRST, "one", JobProgress()) is Order.STOP
    assert queue.take(0, FIRST) == (Order.LEAVE, None)
    queue.submit(a_job("too late"))
    assert queue.jobs["too late"].outcome is Outcome.CANCELLED, "its trial must not wait for ever"
    assert queue.take(1, FIRST) == (Order.LEAVE, None)


def test_busy_seconds_count_the_time_with_jobs_only(queue, clock):
    queue.submit(a_job("one"))
    clock.now = 5.0
    taken(queue, 0, FIRST)
    clock.now = 7.5
    call(queue, "finish", 0, FIRST, "one", Outcome.DONE)
    clock.now = 100.0
    queue.take(0, FIRST)
    assert queue.lanes[0].busy_seconds == 2.5


NAMES = st.sampled_from([f"job{number}" for number in range(6)])
LANES = st.sampled_from([0, 1, 2])


def test_only_jobs_that_train_an_encoder_exclude_others_from_it():
    job = Job(Recipe(), 2)
    control = Recipe.from_plain({"stage_one": None, "stage_two": {"frozen": False}})
    request = JobRequest.of(job, 2, 7)
    assert (request.id, request.priority, work_from_plain(request.work)) == (job.id, (2, 7), job)
    assert request.encoder == f"{job.recipe.encoder_key}-2"
    assert JobRequest.of(job.for_test(), 0).encoder is None
    assert JobRequest.of(Job(control, 0), 0).encoder is None
    assert JobRequest.of(StageTwoSearch(Recipe(), (), 8), 0).encoder is None


class Lanes(RuleBasedStateMachine):
    """Lanes that work, fall silent and die in any order, with calls that arrive late."""

    @initialize()
    def begin(self):
        self.clock = Clock()
        self.queue = JobQueue(max_errors=3, lease_seconds=10.0, clock=self.clock)
        self.incarnations = dict.fromkeys((0, 1, 2), FIRST)
        for lane in self.incarnations:
            self.queue.take(lane, FIRST)
        self.done = Counter()

    @rule(number=st.integers(0, 5), urgency=st.integers(0, 3), trial=st.integers(0, 1))
    def submit(self, number, urgency, trial):
        if not self.done[f"job{number}"]:  # a trial finds its record
            encoder = f"e{number % 3}" if number < 4 else None
            self.queue.submit(a_job(f"job{number}", urgency, encoder=encoder, trial=trial))

    @rule(lane=LANES, late=st.integers(0, 1))
    def take(self, lane, late):
        void = late and self.incarnations[lane] > 1
        held = self.queue.lanes[lane].job
        order, job = self.queue.take(lane, self.incarnations[lane] - void)
        if void:
            assert order is Order.LEAVE
            assert self.queue.lanes[lane].job is held
        if order is Order.WORK:
            assert self.queue.lanes[lane].job.request is job

    @rule(lane=LANES, name=NAMES, outcome=st.sampled_from(list(Outcome)), late=st.booleans())
    def finish(self, lane, name, outcome, late):
        held = self.queue.lanes[lane].job
        counts = held is not None and held.id == name and not late
        before = self.queue.jobs[name].outcome if name in self.queue.jobs else None
        call(self.queue, "finish", lane, self.incarnations[lane] - late, name, outcome)
        if counts:
            self.done[name] += outcome is Outcome.DONE
            is_claimed = outcome is Outcome.CANCELLED and not held.is_stopping
            assert self.queue.jobs[name].outcome is (None if is_claimed else outcome)
        elif name in self.queue.jobs:
            assert self.queue.jobs[name].outcome is before

    @rule(lane=LANES, is_reported=st.booleans())
    def die(self, lane, is_reported):
        if is_reported:
            self.queue.lose(lane, self.incarnations[lane])
        self.incarnations[lane] += 1
        self.queue.take(lane, self.incarnations[lane])

    @rule()
    def restart_the_queue(self):
        before, self.queue = self.queue, JobQueue(max_errors=3, lease_seconds=10.0, clock=self.clock)
        for lane, state in before.lanes.items():
            if state.job:
                self.queue.report(lane, self.incarnations[lane], state.job.request, JobProgress())
            else:
                self.queue.take(lane, self.incarnations[lane])
        for job in before.jobs.values():
            if job.outcome is None:
                self.queue.submit(replace(job.request, priority=job.priority))

    @rule(seconds=st.floats(0, 20))
    def wait(self, seconds):
        self.clock.now += seconds
        self.queue.expire()

    @rule(lane=LANES)
    def report(self, lane):
        held = self.queue.lanes[lane].job
        order = call(self.queue, "report", lane, self.incarnations[lane], held.id if held else "job0", JobProgress())
        assert order is (Order.GO_ON if held is not None and not held.is_stopping else Order.STOP)

    @rule(name=NAMES, trial=st.integers(0, 1))
    def cancel(self, name, trial):
        before = self.queue.jobs.get(name)
        is_shared = before is not None and before.outcome is None and bool(before.claims.keys() - {trial})
        self.queue.cancel(name, trial)
        assert not is_shared or self.queue.jobs[name].outcome is None

    @precondition(lambda self: self.queue.waiting)
    @rule()
    def an_idle_lane_is_never_kept_from_free_work(self):
        busy = {state.job.request.encoder for state in self.queue.lanes.values() if state.job} - {None}
        free = [job for job in self.queue.waiting if job.request.encoder not in busy]
        idle = [lane for lane, state in self.queue.lanes.items() if state.job is None]
        if free and idle:
            order, job = self.queue.take(idle[0], self.incarnations[idle[0]])
            assert order is Order.WORK
            assert self.queue.jobs[job.id].priority == min(other.priority for other in free)

    @invariant()
    def every_job_is_in_one_place(self):
        if not hasattr(self, "queue"):
            return
        held = [state.job for state in self.queue.lanes.values() if state.job]
        for job in self.queue.jobs.values():
            places = [job in self.queue.waiting, job in held, job.outcome is not None]
            assert places.count(True) == 1, f"{job} is in {places}"
            assert held.count(job) <= 1
            assert job.errors == 0
        encoders = [job.request.encoder for job in held if job.request.encoder]
        assert len(encoders) == len(set(encoders))
        assert all(count == 1 for count in self.done.values() if count), "a finished job was repeated"


TestLanes = Lanes.TestCase
TestLanes.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
