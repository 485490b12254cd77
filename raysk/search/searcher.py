"""The searcher: asks Optuna for recipes on Tune's behalf, and tells it how they did.

Optuna's storage lies in the run directory and is the memory of the study: a trial ends there as COMPLETE with its mean
over all folds, PRUNED with the folds that it had, or FAIL with a reason. A driver that died leaves trials RUNNING,
and so does one whose files could not be read or written; the next driver fails those and asks for the same points
again, whose finished jobs are found and not repeated.
"""

import json
from collections import Counter
from dataclasses import asdict, dataclass, replace
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from ray.tune.search import Searcher

from raysk.errors import ConfigError
from raysk.recipe import Job, Recipe
from raysk.run import Run
from raysk.search.jobs import Outcome, QueuedJob
from raysk.search.progress import SearchProgress
from raysk.search.storage import create_sampler, open_study
from raysk.spaces.space import Family, Point, Space
from raysk.spaces.stage_two_search import StageTwoSearch


@dataclass
class Trial:
    """A trial that Tune has at work.

    Args:
        asked: Optuna's side of it.
        point: Where in the space it is.
        recipe: What it tries.
        search: What it tries of stage two afterwards.
        steps: How many reports it has made.
        is_beaten: Whether it has lost its race.
    """

    asked: optuna.Trial
    point: Point
    recipe: Recipe
    search: StageTwoSearch | None = None
    steps: int = 0
    is_beaten: bool = False

    def work(self, num_folds: int) -> list[Job | StageTwoSearch]:
        """Returns its jobs, in their order."""
        jobs = [Job(self.recipe, fold) for fold in range(num_folds)]
        return [*jobs, self.search] if self.search else [*jobs]


class StudySearcher(Searcher):
    """Feeds Tune with the recipes of a space.

    Args:
        space: What to search.
        run: The run directory.
        num_trials: How many recipes the study tries in all, those of earlier drivers counted; None leaves it to the
            space.
        broker: Name of the broker, for the trials.
        progress: How far it is; kept up to date.
        num_lanes: How many jobs are done at a time; it changes with the cluster.

    Attributes:
        broken: Why the study cannot go on, once a file could not be read or written: its trials stay RUNNING.
    """

    def __init__(
        self, space: Space, run: Run, num_trials: int | None, broker: str, progress: SearchProgress, num_lanes: int
    ) -> None:
        super().__init__(metric="score", mode="max")
        self.space, self.run, self.broker, self.progress = space, run, broker, progress
        self.num_lanes = num_lanes
        self.study = open_study(run.folder / "study.journal")
        self.seed = space.config().recipe.seed
        self.named = {point.name: point for point in space.named_points()}
        self.trials: dict[str, Trial] = {}
        self.is_closed = False
        self.broken: str | None = None
        asked = {trial.user_attrs.get("point") for trial in self.study.get_trials(deepcopy=False)}
        self.num_trials = space.num_trials(num_trials)
        # Also those that an earlier driver, with fewer trials or a short life, did not come to.
        for point in space.named_points(self.num_trials):
            if point.name not in asked:
                self.study.enqueue_trial(point.values, {"point": point.name})
        for zombie in self.study.get_trials(states=(TrialState.RUNNING,)):
            values = zombie.system_attrs.get("fixed_params", {}) | zombie.params
            self.study.enqueue_trial(values, zombie.user_attrs | {"origin": origin(zombie)})
            self.study.tell(zombie.number, state=TrialState.FAIL)
        self._count()

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
        """Proposes the next recipe, as the configuration of a `RecipeTrial`; None while enough are at work."""
        # One more than there are lanes, so that no lane waits for a trial to begin.
        if len(self.trials) > self.num_lanes and not self.is_closed:
            return None
        while not self.is_closed:
            queued = self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
            if not queued and self.progress.begun >= self.num_trials:
                break
            number = origin(queued[0]) if queued else self.progress.begun
            self.study.sampler = create_sampler(self.seed, number)
            asked = self.study.ask()
            try:
                trial = self._begin(asked)
            except ConfigError as error:
                # A point where settings that are right alone do not go together: the search learns and goes on.
                self._fail(asked, str(error))
                continue
            self.trials[trial_id] = trial
            # As text, since Tune would search mappings and lists for parameters of its own.
            return {
                "broker": self.broker,
                "folds": len(self.run.folds),
                "lanes": self.num_lanes,
                "is_raced": trial.point.kind == "drawn",
                "steps": json.dumps(self._steps(trial)),
            }
        return str(Searcher.FINISHED)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Keeps the score of the folds so far."""
        if result["outcome"] == Outcome.DONE:
            self._hear(self.trials[trial_id], result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tells Optuna how the trial ended; one that was interrupted stays RUNNING, to be asked for again."""
        trial = self.trials.pop(trial_id)
        outcome = (result or {}).get("outcome")
        if error or result is None:
            # Left as RUNNING, as by a driver that died: the recipe is not to blame, and --resume asks for it again.
            self.progress.say(f"{trial.point.name}: its process died, see logs/ray.log: --resume tries it again")
        elif outcome == Outcome.BROKEN:
            self.broken = result["reason"]
            self.close()
        elif outcome == Outcome.FAILED:
            self._fail(trial.asked, result["reason"], trial.point.name)
        elif outcome == Outcome.DONE:
            self._hear(trial, result)
            if result["complete"]:
                if trial.search is not None:
                    trial.asked.set_user_attr("search", trial.search.id)
                self.study.tell(trial.asked, result["score"])
            elif not self.is_closed:
                self._stop(trial, result["folds"])
        elif trial.is_beaten:
            self._stop(trial, result["folds"])
        self._count()

    def complete(self) -> list[FrozenTrial]:
        """Returns the trials that have all folds, the best first; of one, the search of stage two may not be done."""
        k = len(self.run.folds)
        trials = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.RUNNING))
        complete = [trial for trial in trials if k in trial.intermediate_values]
        return sorted(complete, key=lambda trial: -latest(trial))

    def rival(self, trial: Trial) -> tuple[str, int] | None:
        """Returns the recipe that a drawn one races with, and how many folds both have; None if none leads.

        The rival is the recipe of the same family that leads by most on these folds and is still in the race. Folds
        count as they are before stage two is searched, so no race waits for a search. The paper's setting and the
        controls have no rival, since a comparison needs them.
        """
        if trial.point.kind != "drawn":
            return None
        tried = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.RUNNING))
        ours = next(one.intermediate_values for one in tried if one.number == trial.asked.number)
        found, most = None, 0.0
        for other in tried:
            theirs = other.intermediate_values
            if other.user_attrs.get("family") == trial.point.family and ours and theirs:
                shared = min(len(self.run.folds), max(ours), max(theirs))
                lead = theirs[shared] - ours[shared]
                if lead > most:
                    found, most = (str(other.user_attrs["recipe"]), shared), lead
        return found

    def close(self) -> None:
        """Proposes nothing more."""
        self.is_closed = True

    def save(self, checkpoint_path: str) -> None:
        """Does nothing: Optuna's storage in the run directory is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Does nothing: Optuna's storage in the run directory is the state."""

    def __getstate__(self) -> dict[str, Any]:
        """Leaves everything out: Tune pickles its tuner to restore it, but raysk resumes from the run directory."""
        return {}

    def _begin(self, asked: optuna.Trial) -> Trial:
        """Finds the point of a trial, and keeps its recipe."""
        name = asked.user_attrs.get("point", "")
        point = self.named.get(name)
        if point is None or point.kind == "start":
            # A start was queued with its values, so Optuna draws these very ones and learns from them.
            known = point.family if point else asked.user_attrs.get("family", "")
            family = self.space.family(known) or self._next_family(asked)
            # Before it is drawn, so that one that ends halfway is of its family all the same.
            asked.set_user_attr("family", family.name)
            drawn = self.space.draw(asked, family, point)
            # One that an earlier driver did not end keeps its name.
            point = replace(drawn, name=name or drawn.name)
            asked.set_user_attr("point", point.name)
        recipe = self.space.config(point).recipe
        self.run.check(recipe)
        asked.set_user_attr("recipe", recipe.key)
        asked.set_user_attr("kind", point.kind)
        asked.set_user_attr("family", point.family)
        asked.set_user_attr("overrides", list(point.own))
        self.run.keep_recipe(recipe)
        self._count()
        return Trial(asked, point, recipe, self.space.stage_two_search(point))

    def _next_family(self, asked: optuna.Trial) -> Family:
        """Returns the family that has had the fewest trials, so that all have the same budget."""
        others = [t for t in self.study.get_trials(deepcopy=False) if t.number != asked.number]
        had = Counter(trial.user_attrs.get("family") for trial in others if "origin" not in trial.user_attrs)
        return min(self.space.families, key=lambda family: had[family.name])

    def _steps(self, trial: Trial) -> list[tuple[dict[str, Any], str]]:
        """Returns the work of a trial, each with the file that says that it is done."""
        number, name = trial.asked.number, trial.point.name
        steps = []
        folds = [job.id for job in trial.work(len(self.run.folds)) if isinstance(job, Job)]
        for step, work in enumerate(trial.work(len(self.run.folds))):
            if isinstance(work, Job):
                queued = QueuedJob.of(work, number, step, title=f"{name}, fold {step + 1}")
                record = self.run.record_file(work)
            else:
                queued = replace(QueuedJob.of(work, number, step, title=f"{name}, stage two"), needs=folds)
                record = self.run.search_file(work.id)
            steps.append((asdict(queued), str(record.resolve())))
        return steps

    def _hear(self, trial: Trial, result: dict[str, Any]) -> None:
        steps = result["folds"] + result["searched"]
        if steps > trial.steps:
            trial.steps = steps
            trial.asked.report(result["score"], steps)
            fold = f"fold {result['folds']} of {len(self.run.folds)}"
            done = (
                f"best of {trial.search.num_settings} stage-two settings"
                if result["searched"] and trial.search
                else fold
            )
            self.progress.say(f"{trial.point.name}: {done}, macro-F1 {result['score']:.3f}")

    def _stop(self, trial: Trial, folds: int) -> None:
        self.study.tell(trial.asked, state=TrialState.PRUNED)
        self.progress.say(f"{trial.point.name}: stopped after fold {folds}, another recipe is better")

    def _fail(self, asked: optuna.Trial, reason: str, name: str = "") -> None:
        asked.set_user_attr("reason", reason)
        self.study.tell(asked, state=TrialState.FAIL)
        self.progress.say(f"{name or f'trial {asked.number}'}: failed: {reason}")
        self._count()

    def _count(self) -> None:
        trials = [t for t in self.study.get_trials(deepcopy=False) if t.state is not TrialState.WAITING]
        progress = self.progress
        progress.begun = len({origin(trial) for trial in trials})
        states = [trial.state for trial in trials]
        progress.complete = states.count(TrialState.COMPLETE)
        progress.stopped = states.count(TrialState.PRUNED)
        progress.failed = sum("reason" in trial.user_attrs for trial in trials)
        best = self.complete()[:1]
        progress.best = (best[0].user_attrs["point"], latest(best[0])) if best else None


def origin(trial: FrozenTrial) -> int:
    """Returns the number under which a trial was first proposed; a repeated one was asked for by an earlier driver."""
    return int(trial.user_attrs.get("origin", trial.number))


def latest(trial: FrozenTrial) -> float:
    """Returns the last score of a trial: the mean of its folds, or the best that its search of stage two has found."""
    return trial.intermediate_values[max(trial.intermediate_values)]
