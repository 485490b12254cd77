"""A study, from the command line to the leaderboard."""

import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, suppress
from typing import Any

import ray
from ray.exceptions import GetTimeoutError
from rich.console import Console

from raysk.errors import ArtifactError, CutOffError, RayskError, TrainingError, in_one_line
from raysk.evaluation.leaderboard import Leaderboard
from raysk.evaluation.summary import show_summary
from raysk.recipe import Job
from raysk.run import Run
from raysk.scoring import count_opening, read_held_out
from raysk.search.broker import start_broker
from raysk.search.candidates import read_candidates
from raysk.search.cluster import connected
from raysk.search.comparison_tables import score_of_best, study_tables
from raysk.search.display import StudyDisplay, Terminal, chatter_to
from raysk.search.ending import Needed, TimeOfEnd
from raysk.search.finalists import Finalist, finalists_tables, jobs_of_repeats, lost_repeats, pick_finalists
from raysk.search.jobs import JobEnd, JobRequest, Outcome, Priority, QueueStatus
from raysk.search.lanes import LanePool
from raysk.search.panel import clock
from raysk.search.preparation import Preparation, prepare
from raysk.search.remaining import WorkLeft
from raysk.search.request import Interrupt, StudyRequest
from raysk.search.resources import LanePlan, plan_lanes
from raysk.search.results import (
    best_single,
    loose_ends,
    read_entries,
    result_rows,
    select_ensemble,
    study_facts,
    write_results,
)
from raysk.search.searcher import SearchProgress, StudySearcher
from raysk.search.trial_records import TrialRecord
from raysk.search.tuner import make_tuner
from raysk.spaces.space import load_space
from raysk.supervision import tell_log

_POLL_S = 0.25
_SILENCE_S = 10.0
_LONGEST_STATUS_S = 5.0
# The first line about waiting lanes is printed after this time, each next one after twice the time.
_FIRST_NOTICE_S = 5.0


def run_study(request: StudyRequest, console: Console) -> Leaderboard | None:
    """Searches a space, writes the leaderboard, and shows its best rows.

    Returns:
        The leaderboard; None if the user ended the study early.

    Raises:
        RayskError: An error that the user can mend.
    """
    space = load_space(request.space, request.overrides)
    config = space.config()
    prepared = prepare(request, space, config, console)
    copied = f", copied to {prepared.mirror.address}" if prepared.mirror else ""
    console.print(f"run directory: {prepared.folder}{copied}", markup=False, highlight=False)
    interrupt = Interrupt(request.began + request.time_budget if request.time_budget else None)
    leaderboard = _conduct(request, prepared, interrupt, console)
    if leaderboard is not None:
        show_summary(leaderboard, prepared.mirror.address if prepared.mirror else str(prepared.folder), console)
    return leaderboard


def _conduct(
    request: StudyRequest, prepared: Preparation, interrupt: Interrupt, console: Console
) -> Leaderboard | None:
    """Connects to Ray, and conducts the study while Ray's chatter goes to a file."""
    # Read now: inside the block, the standard streams are a file.
    is_terminal, width = console.is_terminal, console.width
    log = prepared.folder / "logs" / "ray.log"
    with (
        Run.reserved(prepared.folder),
        prepared.mirror.kept() if prepared.mirror else nullcontext(),
        chatter_to(log) as stream,
        interrupt.catches(signal.SIGINT),
        StudyDisplay(Terminal(file=stream, force_terminal=is_terminal, width=width)) as display,
    ):
        tell_log(log)
        address = request.address or os.environ.get("RAY_ADDRESS")
        display.wait(f"connecting to Ray at {address}" if address else "starting Ray")
        try:
            # Ray takes over SIGTERM when it starts.
            with connected(request.address), interrupt.catches(signal.SIGTERM):
                total = ray.cluster_resources()
                cpus, gpus = total.get("CPU", 0), total.get("GPU", 0)
                requested = request.gpus_per_worker
                plan = plan_lanes(cpus, gpus, request.workers, float(gpus >= 1) if requested is None else requested)
                return _Study(request, prepared, plan, interrupt, display).conduct()
        except RayskError:
            raise
        except Exception as error:
            traceback.print_exc()  # into the log
            raise CutOffError.of(f"{type(error).__name__}: {in_one_line(error)}", log) from error


class _Study:
    """A running study."""

    def __init__(
        self,
        request: StudyRequest,
        prepared: Preparation,
        plan: LanePlan,
        interrupt: Interrupt,
        display: StudyDisplay,
    ) -> None:
        self.space, self.unfit, self.run = space, _, run = prepared.space, prepared.unfit, prepared.run()
        self.plan, self.interrupt, self.display = plan, interrupt, display
        name = f"broker-{run.folder.name}-{os.getpid()}"
        self.broker = start_broker(name)
        self.progress = SearchProgress(display.say)
        is_timed = request.time_budget is not None
        self.searcher = StudySearcher(space, run, request.trials, name, self.progress, plan.lanes, is_timed)
        self.pool = LanePool(run, name, plan, display.say, loader=space.config().loader)
        self._status: QueueStatus = ray.get(self.broker.status.remote())
        self._next_notice = _FIRST_NOTICE_S
        self._is_silent = False
        self._left = WorkLeft(self.searcher)
        config = space.config()
        repeats = config.finalists * (config.seeds - 1)
        self._time_of_end, self._needed = TimeOfEnd(run, self.searcher.standings, repeats), Needed()

    def conduct(self) -> Leaderboard | None:
        """Searches the space, then scores the results."""
        display, num_lanes = self.display, self.plan.lanes
        display.follow(self.progress, self.searcher.budget.num_trials)
        display.say(f"starting {num_lanes} lane{'s' * (num_lanes > 1)}: {self.plan.sum}")
        display.wait("")
        try:
            self._watch(self._search)
            if self.searcher.broken is not None:
                raise ArtifactError(f"{self.searcher.broken}; then run the same command with --resume")
            if self.interrupt.asked.is_set():
                return None
            return self._watch(self._end)
        except TrainingError:
            if self.interrupt.asked.is_set():
                return None
            raise
        finally:
            display.wait("ending the lanes", is_told=False)
            # Includes lanes that are still starting: Ray ends a process silently if its threads outlive it.
            self.pool.close(timeout=60)
            display.wait("ending Ray", is_told=False)

    def _watch(self, work: Callable[[], Any]) -> Any:
        """Runs a part of the study in a thread, while this thread draws and watches for Ctrl-C and the deadline."""
        outcome: dict[str, Any] = {}

        def body() -> None:
            try:
                outcome["result"] = work()
            except BaseException as error:
                outcome["error"] = error

        thread = threading.Thread(target=body, name=work.__name__, daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(_POLL_S)
            self._refresh()
            if work == self._search and self._must_end_search():
                self._end_search()
            elif self.interrupt.asked.is_set():
                ray.get(self.broker.cancel_all.remote())
            elif self.interrupt.is_due() and self.pool.blocked_since:
                raise TrainingError(
                    f"a lane must have room to score the test part, but none has and the time budget is spent: add a "
                    f"node with {self.pool.plan.needs}, and run the same command with --resume"
                )
            if self.pool.failure:
                raise TrainingError(f"a lane must start, but {self.pool.failure}: see {self.run.folder}/logs/ray.log")
        if "error" in outcome:
            raise outcome["error"]
        return outcome["result"]

    def _refresh(self) -> None:
        """Draws the lanes and jobs, and prints a line if no lane has room, or if Ray is silent."""
        # A restarted broker takes seconds to answer; until then the last status stands.
        with suppress(GetTimeoutError):
            self._status = ray.get(self.broker.status.remote(), timeout=_LONGEST_STATUS_S)
        self.searcher.num_lanes = len(self.pool.lanes)
        self.display.update(self._status, self.pool, self._left.most())
        since = self.pool.blocked_since
        blocked = time.monotonic() - since if since else 0.0
        if blocked > self._next_notice:
            self._next_notice = 2 * blocked
            self.display.say(
                f"no lane has room: waiting for a node with {self.pool.plan.needs}, {clock(blocked)} so far"
            )
        elif not blocked:
            self._next_notice = _FIRST_NOTICE_S
        is_silent = self.pool.silence > _SILENCE_S
        if is_silent and not self._is_silent:
            self.display.say("Ray's GCS does not answer: if it stays away, Ray ends this process after a minute")
        self._is_silent = is_silent

    def _must_end_search(self) -> bool:
        """Returns whether the user asked for it, or the rest of the time budget is needed for the end."""
        if self.interrupt.deadline is not None:
            self._needed = self._time_of_end.needed(len(self.pool.lanes))
        return self.interrupt.is_due(self._needed.with_search)

    def _end_search(self) -> None:
        """Ends the search; called repeatedly until it has ended, since a trial may just have queued its jobs."""
        if not self.searcher.is_closed:
            why = "ending after the present epochs"
            if not self.interrupt.asked.is_set():
                why = f"the time budget is spent but for {clock(self._needed.end)}, which the end needs"
            self.display.say(f"{why}: what is finished is kept")
        self.searcher.close()
        # Searches of stage two, whose folds are paid for, have the time of the longest so far. Then they are shortened;
        # lost only if other recipes are complete.
        is_over = self.interrupt.is_due(self._needed.end) and self._needed.end > 0
        ray.get(self.broker.cancel_all.remote(but_searches=not (is_over or self.interrupt.asked.is_set())))
        if self.interrupt.is_due(self._needed.with_short_search):
            ray.get(self.broker.hurry.remote())

    def _search(self) -> None:
        """Runs Tune."""
        make_tuner(self.searcher, self.run).fit()

    def _end(self) -> Leaderboard:
        """Chooses the ensemble, then opens the locked test part, then writes the leaderboard."""
        trials = self.searcher.standings.complete()
        if not trials:
            records = map(TrialRecord.of, self.searcher.study.get_trials(deepcopy=False))
            reasons = [record.reason for record in records if record.reason is not None]
            why = f"the first failed since {reasons[0]}" if reasons else "the time budget was too short"
            raise TrainingError(f"a study must have a recipe with all folds, but has none: {why}")
        run = self.run
        self.display.wait("choosing the ensemble on the held-out folds")
        candidates = read_candidates(run, trials)
        ensemble, crossed = select_ensemble(run, [read_held_out(run, candidate.recipe.key) for candidate in candidates])
        finalists = pick_finalists(run, self.space, candidates)
        failed = self._train_again(finalists)
        shown = {candidate.recipe.key for candidate in candidates if candidate.has_row}
        repeats = {recipe.key for finalist in finalists for recipe in finalist.repeats} - failed.keys()
        keys = sorted(shown | {member.recipe_key for member in ensemble.members} | repeats)
        num_openings = count_opening(run, keys)
        self._predict_test([Job(run.recipe(key), fold).for_test() for key in keys for fold in range(len(run.folds))])
        self.display.wait("writing the leaderboard")
        entries = read_entries(run, candidates)
        rows = result_rows(run, entries, ensemble, crossed)
        best, trials = best_single(run, rows), self.searcher.study.get_trials(deepcopy=False)
        left_out = self.searcher.left_out_controls()
        if left_out:
            self.display.say(f"controls left out: {left_out}")
        facts = study_facts(run, rows, best, score_of_best(run, trials), num_openings)
        facts |= loose_ends(run, trials, left_out) | lost_repeats(finalists, failed)
        facts |= {f"family left out: {name}": reason for name, reason in self.unfit.items()}
        tables = study_tables(run, self.space, trials, entries, rows)
        if finalists:
            tables += finalists_tables(finalists, failed, run)
        return write_results(run, rows, facts, tables, best.key)

    def _train_again(self, finalists: Sequence[Finalist]) -> dict[str, str]:
        """Trains the finalists with other seeds; returns why some failed, by the key of the recipe."""
        jobs, failed = jobs_of_repeats(finalists, self.run), {}
        if jobs:
            self.display.wait(f"training {len(jobs)} fold models of the finalists with other seeds", len(jobs))
        for job, end in self._ends(jobs, "finalist"):
            if end.outcome is Outcome.FAILED:
                failed[job.recipe.key] = end.reason
            elif end.outcome is not Outcome.DONE:
                raise TrainingError(f"every finalist must be trained, but {job.id} {end.outcome}: {end.reason}")
        return failed

    def _predict_test(self, jobs: list[Job]) -> None:
        self.display.wait(f"scoring {len(jobs)} fold models on the locked test part", len(jobs))
        for job, end in self._ends(jobs, "test part"):
            if end.outcome is not Outcome.DONE:
                raise TrainingError(
                    f"every fold model must predict the test part, but {job.id} {end.outcome}: {end.reason}"
                )

    def _ends(self, jobs: list[Job], title: str) -> Iterator[tuple[Job, JobEnd]]:
        """Does the jobs that are not done, all at once, and yields how each ended."""
        remaining = [job for job in jobs if not self.run.is_done(job)]
        requests = [JobRequest.of(job, Priority.FIXED, number, title=title) for number, job in enumerate(remaining)]
        answers = [self.broker.outcome.remote([request]) for request in requests]
        for number, (job, answer) in enumerate(zip(remaining, answers, strict=True)):
            self.display.advance(len(jobs) - len(remaining) + number)
            yield job, ray.get(answer)
