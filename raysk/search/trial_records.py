"""The orders, reports and journal records of trials; light, without torch."""

import json
from dataclasses import dataclass, fields
from typing import Any, Self

import optuna
from optuna.trial import FrozenTrial, TrialState

from raysk.records import PointKind, Record
from raysk.search.jobs import JobRequest, Outcome


@dataclass(frozen=True, kw_only=True)
class Step(Record):
    """A step of a trial: a fold, or the search of stage two.

    Args:
        request: The job.
        record: The file that exists once the job is done: the record of the job, the scores of its reference heads, or
            the record of the search.
    """

    request: JobRequest
    record: str


@dataclass(frozen=True, kw_only=True)
class TrialOrder(Record):
    """The work of a trial.

    Args:
        broker: Name of the broker.
        number: Number of the trial.
        num_folds: Number of steps that are folds; a step after them is the search of stage two.
        folds_of_division: Number of folds of a division of the rows.
        num_lanes: Number of lanes.
        is_raced: Whether the trial can be stopped between folds.
        has_references: Whether the scores of reference heads judge its folds, since a search of stage two follows.
        larger_is_better: Whether a larger score is the better one.
        steps: Its steps, in order.
    """

    broker: str
    number: int
    num_folds: int
    folds_of_division: int
    num_lanes: int
    is_raced: bool
    has_references: bool
    larger_is_better: bool
    steps: tuple[Step, ...]


@dataclass(frozen=True, kw_only=True)
class TrialReport(Record):
    """A trial's report after a step.

    Args:
        outcome: How the step ended.
        folds: Number of finished folds.
        num_tried: Number of settings that the search of stage two has tried; None before its end.
        is_complete: Whether all steps are done.
        score: Mean score of the folds, or that of the search's best setting; None if the step failed. Folds before a
            search are scored by the reference heads.
        reason: Why the step failed.
    """

    outcome: Outcome
    folds: int
    num_tried: int | None = None
    is_complete: bool = False
    score: float | None = None
    reason: str = ""

    @property
    def is_searched(self) -> bool:
        """Whether the search of stage two is done."""
        return self.num_tried is not None

    def to_result(self) -> dict[str, Any]:
        """Returns the result for Tune: the report, its metric, and whether the trial is over.

        The report is text, since Tune takes mappings apart.
        """
        over = self.is_complete or self.outcome is not Outcome.DONE
        metric = {} if self.score is None else {"score": self.score}
        return {"report": json.dumps(self.to_plain()), "done": over, **metric}

    @classmethod
    def of_result(cls, result: dict[str, Any]) -> Self:
        """Reads the report in a result from Tune."""
        return cls.from_plain(json.loads(result["report"]), "the report of a trial")


@dataclass(frozen=True, kw_only=True)
class TrialRecord(Record):
    """A trial's attributes in Optuna's journal, beside its values and scores.

    Args:
        point: Name of its point in the space.
        family: Its family; "" for a control.
        kind: Where the point comes from.
        recipe: Key of its recipe.
        overrides: How the recipe differs from the base of its space.
        search: Name of its search of stage two, once that is done.
        origin: Number under which it was first proposed, if an earlier driver left it unfinished.
        reason: Why it failed.
    """

    point: str = ""
    family: str = ""
    kind: PointKind | None = None
    recipe: str = ""
    overrides: tuple[str, ...] = ()
    search: str | None = None
    origin: int | None = None
    reason: str | None = None

    @classmethod
    def of(cls, trial: optuna.Trial | FrozenTrial) -> Self:
        """Reads the attributes of a trial.

        Raises:
            ArtifactError: Another version wrote them.
        """
        return cls.from_plain(trial.user_attrs, f"trial {trial.number} of study.journal")

    @property
    def attributes(self) -> dict[str, Any]:
        """The fields that differ from an empty record, as attributes of a trial."""
        plain, empty = self.to_plain(), type(self)().to_plain()
        return {field.name: plain[field.name] for field in fields(self) if plain[field.name] != empty[field.name]}

    def keep(self, trial: optuna.Trial) -> None:
        """Writes to the journal the attributes that the trial does not have yet."""
        for name, value in self.attributes.items():
            if trial.user_attrs.get(name) != value:
                trial.set_user_attr(name, value)


def origin(trial: FrozenTrial) -> int:
    """Returns the number under which a trial was first proposed; a later driver repeats unfinished trials."""
    first = TrialRecord.of(trial).origin
    return trial.number if first is None else first


def valid_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Returns the trials of a study in the order in which they were first proposed; of repeated ones, the last."""
    trials = study.get_trials(deepcopy=False)
    valid = [t for t in trials if t.state is not TrialState.FAIL or TrialRecord.of(t).reason is not None]
    return sorted(valid, key=origin)


def latest(trial: FrozenTrial) -> float:
    """Returns the last score of a trial: the mean of its folds, or the best of its search of stage two."""
    return trial.intermediate_values[max(trial.intermediate_values)]
