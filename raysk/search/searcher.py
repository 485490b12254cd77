"""The searcher: asks Optuna for recipes on behalf of Tune, and reports their scores to Optuna.

Optuna's journal in the run directory is the memory of the study: a trial ends there as COMPLETE with its mean over all
folds, PRUNED with the folds that it had, or FAIL with a reason. Trials of a driver that died stay RUNNING, and so do
trials whose files could not be read or written. The next driver fails them and proposes the same points again; their
finished jobs are found and not repeated.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import optuna
from optuna.trial import TrialState
from ray.tune.search import Searcher

from raysk.errors import ArtifactError, ConfigError
from raysk.recipe import Job, Recipe
from raysk.run import Run
from raysk.search.budget import Budget, training_seconds
from raysk.search.jobs import JobRequest, Outcome
from raysk.search.proposals import Proposals
from raysk.search.samplers import Sampler
from raysk.search.standings import Standings
from raysk.search.storage import open_study
from raysk.search.trial_records import Step, TrialOrder, TrialRecord, TrialReport, latest, origin, valid_trials
from raysk.spaces.space import Point, Space
from raysk.spaces.stage_two_search import StageTwoSearch


@dataclass
class SearchProgress:
    """The progress of the search, for the display.

    Args:
        say: Prints a line for the user.
        begun: Number of proposed recipes.
        complete: Number of recipes with all folds.
        stopped: Number of recipes that racing stopped.
        failed: Number of failed recipes.
        best: (name, mean score over folds) of the best recipe with all folds.
        metric: Title of the metric of the scores.
    """

    say: Callable[[str], None]
    begun: int = 0
    complete: int = 0
    stopped: int = 0
    failed: int = 0
    best: tuple[str, float] | None = None
    metric: str = ""


@dataclass
class Trial:
    """A trial that runs in Tune.

    Args:
        asked: Its trial in Optuna.
        point: Its point in the space.
        recipe: Its recipe.
        search: Its search of stage two, which follows the folds.
        steps: Number of its reports.
        is_beaten: Whether it has lost its race.
    """

    asked: optuna.Trial
    point: Point
    recipe: Recipe
    search: StageTwoSearch | None = None
    steps: int = 0
    is_beaten: bool = False

    def work(self, num_folds: int) -> list[Job | StageTwoSearch]:
        """Returns its jobs, in order."""
        jobs = [Job(self.recipe, fold, has_references=self.search is not None) for fold in range(num_folds)]
        return [*jobs, self.search] if self.search else [*jobs]


class StudySearcher(Searcher):
    """Proposes the recipes of a space to Tune.

    Args:
        space: The space to search.
        run: The run directory.
        num_trials: Total number of recipes, including those of earlier drivers; None leaves it to the space.
        broker: Name of the broker, for the trials.
        progress: The progress of the search; kept up to date.
        num_lanes: Number of lanes; it changes with the cluster.
        is_timed: Whether the study has a time budget.

    Attributes:
        budget: Decides what is tried next.
        has_searches: Whether a named point is followed by a search of stage two.
        broken: Why the study cannot continue, once a file could not be read or written: its trials stay RUNNING.
    """

    def __init__(
        self,
        space: Space,
        run: Run,
        num_trials: int | None,
        broker: str,
        progress: SearchProgress,
        num_lanes: int,
        is_timed: bool = False,
    ) -> None:
        super().__init__(metric="score", mode="max" if run.goal.metric.larger_is_better else "min")
        self.space, self.run, self.broker, self.progress = space, run, broker, progress
        self.num_lanes = num_lanes
        self.study = open_study(run.folder / "study.journal", run.goal.metric.direction)
        self.standings = Standings(self.study, run)
        progress.metric = run.goal.metric.title
        config = space.config()
        sampler = Sampler(config.search.sampler, config.recipe.seed, run.goal.metric.direction)
        self.budget = Budget(space, num_trials, partial(training_seconds, run) if is_timed else None)
        self.proposals = Proposals(space, sampler, self.budget, progress.say)
        self.named = {point.name: point for point in space.named_points()}
        self.has_searches = any(space.stage_two_search(point) for point in self.named.values())
        self.trials: dict[str, Trial] = {}
        self.is_closed = False
        self.broken: str | None = None
        queued = {origin(trial) for trial in self.study.get_trials(states=(TrialState.WAITING,))}
        for unfinished in self.study.get_trials(states=(TrialState.RUNNING,)):
            if origin(unfinished) not in queued:  # else the driver died at this very line
                values = unfinished.system_attrs.get("fixed_params", {}) | unfinished.params
                record = replace(TrialRecord.of(unfinished), origin=origin(unfinished))
                self.study.enqueue_trial(values, record.attributes)
            self.study.tell(unfinished.number, state=TrialState.FAIL)
        self._count()

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
        """Returns the next recipe as the configuration of a `RecipeTrial`; None while enough trials run."""
        # One trial more than there are lanes, so that no lane waits for a trial to begin.
        if len(self.trials) > self.num_lanes and not self.is_closed:
            return None
        while not self.is_closed and self._queue_next():
            asked = self.study.ask()
            try:
                trial = self._begin(asked)
            except ConfigError as error:
                # A point whose settings are valid alone but not together: the search learns from it and goes on.
                self._fail(asked, str(error))
                continue
            self.trials[trial_id] = trial
            # As text, since Tune would search mappings and lists for its own parameters.
            return {"order": json.dumps(self._order(trial).to_plain())}
        return str(Searcher.FINISHED)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Records the score of the folds so far."""
        report = TrialReport.of_result(result)
        if report.outcome is Outcome.DONE:
            self._record_score(self.trials[trial_id], report)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Reports to Optuna how the trial ended; an interrupted trial stays RUNNING, and is proposed again later."""
        trial = self.trials.pop(trial_id)
        report = None if error or result is None else TrialReport.of_result(result)
        if report is None:
            # Left as RUNNING, as by a driver that died: the recipe is not to blame, and --resume proposes it again.
            self.progress.say(f"{trial.point.name}: its process died, see logs/ray.log: --resume tries it again")
        elif report.outcome is Outcome.BROKEN:
            self.broken = report.reason
            self.close()
        elif report.outcome is Outcome.FAILED:
            self._fail(trial.asked, report.reason, trial.point.name)
        elif report.outcome is Outcome.DONE:
            self._record_score(trial, report)
            if report.is_complete:
                if trial.search is not None:
                    replace(TrialRecord.of(trial.asked), search=trial.search.id).keep(trial.asked)
                self._constrain(trial, report.folds)
                self.study.tell(trial.asked, report.score)
            elif not self.is_closed:
                self._stop(trial, report.folds)
        elif trial.is_beaten:
            self._stop(trial, report.folds)
        self._count()

    def close(self) -> None:
        """Ends the proposals."""
        self.is_closed = True

    def left_out_controls(self) -> str:
        """Returns the names of the controls that the study has not begun, and how to run them; "" if there are none."""
        names = ", ".join(self.budget.left_out(valid_trials(self.study)))
        return f"{names} (controls=all runs them)" if names else ""

    def save(self, checkpoint_path: str) -> None:
        """Does nothing: Optuna's journal in the run directory is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Does nothing: Optuna's journal in the run directory is the state."""

    def __getstate__(self) -> dict[str, Any]:
        """Returns an empty state: Tune pickles its tuner to restore it, but raysk resumes from the run directory."""
        return {}

    def _queue_next(self) -> bool:
        """Returns whether the journal has a trial to begin, after it has queued the next one with all its values."""
        if self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            return True
        if (proposal := self.proposals.next(valid_trials(self.study))) is None:
            return False
        record, values = proposal
        self.study.enqueue_trial(values, record.attributes)
        return True

    def _begin(self, asked: optuna.Trial) -> Trial:
        """Finds the point of a trial, and keeps its recipe in the run directory."""
        record = TrialRecord.of(asked)
        point = self.named.get(record.point)
        family = self.space.family(record.family)
        if family is not None:
            # The trial was queued with its values, so that Optuna draws exactly these and the journal has them.
            drawn = self.space.draw(asked, family, point)
            # A trial that an earlier driver left unfinished keeps its name.
            point = replace(drawn, name=record.point or drawn.name)
            record = replace(record, point=point.name)
            record.keep(asked)
        if point is None:
            raise ArtifactError(
                f"trial {asked.number} of study.journal must be of a family or a named point: remove it"
            )
        recipe = self.space.config(point).recipe
        self.run.check(recipe)
        replace(record, recipe=recipe.key, kind=point.kind, family=point.family, overrides=point.own).keep(asked)
        self.run.keep_recipe(recipe)
        self._count()
        return Trial(asked, point, recipe, self.space.stage_two_search(point))

    def _order(self, trial: Trial) -> TrialOrder:
        """Returns the work of a trial."""
        return TrialOrder(
            broker=self.broker,
            number=trial.asked.number,
            num_folds=len(self.run.folds),
            folds_of_division=self.run.folds.k,
            num_lanes=self.num_lanes,
            is_raced=trial.point.kind == "drawn",
            has_references=trial.search is not None,
            larger_is_better=self.run.goal.metric.larger_is_better,
            steps=tuple(self._steps(trial)),
        )

    def _steps(self, trial: Trial) -> Iterator[Step]:
        """Yields the steps of a trial, each with the file that exists once it is done."""
        number, name = trial.asked.number, trial.point.name
        work = trial.work(len(self.run.folds))
        folds = tuple(job.id for job in work if isinstance(job, Job))
        for place, piece in enumerate(work):
            if isinstance(piece, Job):
                request = JobRequest.of(piece, number, place, title=f"{name}, fold {place + 1}", trial=number)
                record = self.run.last_file(piece)
            else:
                request = JobRequest.of(piece, number, place, title=f"{name}, stage two", needs=folds, trial=number)
                record = self.run.search_file(piece.id)
            yield Step(request=request, record=str(record.resolve()))

    def _record_score(self, trial: Trial, report: TrialReport) -> None:
        steps = report.folds + report.is_searched
        if report.score is not None and steps > trial.steps:
            trial.steps = steps
            trial.asked.report(report.score, steps)
            done = f"fold {report.folds} of {len(self.run.folds)}"
            if report.is_searched:
                done = f"best of {report.num_tried} stage-two settings"
            self.progress.say(f"{trial.point.name}: {done}, {self.progress.metric} {report.score:.3f}")

    def _constrain(self, trial: Trial, folds: int) -> None:
        """Tells Optuna how far the trial is from each requirement, at its end, since that can be told once."""
        for name, gap in self.standings.gaps(TrialRecord.of(trial.asked), folds).items():
            trial.asked.set_constraint(name, gap)

    def _stop(self, trial: Trial, folds: int) -> None:
        self._constrain(trial, folds)
        self.study.tell(trial.asked, state=TrialState.PRUNED)
        self.progress.say(f"{trial.point.name}: stopped after fold {folds}, another recipe is better")

    def _fail(self, asked: optuna.Trial, reason: str, name: str = "") -> None:
        replace(TrialRecord.of(asked), reason=reason).keep(asked)
        self.study.tell(asked, state=TrialState.FAIL)
        self.progress.say(f"{name or f'trial {asked.number}'}: failed: {reason}")
        self._count()

    def _count(self) -> None:
        trials = [trial for trial in self.study.get_trials(deepcopy=False) if trial.state is not TrialState.WAITING]
        progress = self.progress
        progress.begun = len({origin(trial) for trial in trials})
        states = [trial.state for trial in trials]
        progress.complete = states.count(TrialState.COMPLETE)
        progress.stopped = states.count(TrialState.PRUNED)
        progress.failed = sum(TrialRecord.of(trial).reason is not None for trial in trials)
        best = self.standings.complete()[:1]
        progress.best = (TrialRecord.of(best[0]).point, latest(best[0])) if best else None
