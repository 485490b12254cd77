"""What a trial is told, what it reports, and what Optuna's journal keeps of it; light, without torch."""

import json
from dataclasses import dataclass, fields
from typing import Any, Self

import optuna
from optuna.trial import FrozenTrial

from raysk.records import PointKind, Record
from raysk.search.jobs import JobRequest, Outcome


@dataclass(frozen=True, kw_only=True)
class Step(Record):
    """A piece of work of a trial: a fold, or the search of stage two.

    Args:
        request: The job.
        record: The file that says that it is done.
    """

    request: JobRequest
    record: str


@dataclass(frozen=True, kw_only=True)
class TrialOrder(Record):
    """What a trial is to do.

    Args:
        broker: Name of the broker.
        number: Of the trial.
        num_folds: How many of its steps are folds; one that follows them is the search of stage two.
        num_lanes: How many jobs are done at a time.
        is_raced: Whether the trial can be stopped between folds.
        steps: Its work, in its order.
    """

    broker: str
    number: int
    num_folds: int
    num_lanes: int
    is_raced: bool
    steps: tuple[Step, ...]


@dataclass(frozen=True, kw_only=True)
class TrialReport(Record):
    """What a trial reports after a step.

    Args:
        outcome: How the step ended.
        folds: How many folds are done.
        is_searched: Whether the search of stage two is done too.
        is_complete: Whether all steps are done.
        score: Mean macro-F1 of the folds, or of the best setting that the search found; None if the step failed.
        reason: Why it failed.
    """

    outcome: Outcome
    folds: int
    is_searched: bool = False
    is_complete: bool = False
    score: float | None = None
    reason: str = ""

    def to_result(self) -> dict[str, Any]:
        """Returns what Tune takes: the report, its metric, and whether the trial is over.

        The report goes as text, since Tune takes mappings apart.
        """
        over = self.is_complete or self.outcome is not Outcome.DONE
        metric = {} if self.score is None else {"score": self.score}
        return {"report": json.dumps(self.to_plain()), "done": over, **metric}

    @classmethod
    def of_result(cls, result: dict[str, Any]) -> Self:
        """Reads what Tune passes on."""
        return cls.from_plain(json.loads(result["report"]), "the report of a trial")


@dataclass(frozen=True, kw_only=True)
class TrialRecord(Record):
    """What Optuna's journal keeps of a trial beside its values and scores.

    Args:
        point: Name of its point in the space.
        family: Its family; "" for a control.
        kind: Where the point comes from.
        recipe: Key of its recipe.
        overrides: What sets the recipe apart from the base of its space.
        search: Name of its search of stage two, once that is done.
        origin: Number under which it was first proposed, if an earlier driver did not end it.
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
            ArtifactError: Another version has written them.
        """
        return cls.from_plain(trial.user_attrs, f"trial {trial.number} of study.journal")

    @property
    def attributes(self) -> dict[str, Any]:
        """What differs from an empty record, as attributes of a trial."""
        plain, empty = self.to_plain(), type(self)().to_plain()
        return {field.name: plain[field.name] for field in fields(self) if plain[field.name] != empty[field.name]}

    def keep(self, trial: optuna.Trial) -> None:
        """Writes to the journal what the trial does not have yet."""
        for name, value in self.attributes.items():
            if trial.user_attrs.get(name) != value:
                trial.set_user_attr(name, value)


def origin(trial: FrozenTrial) -> int:
    """Returns the number under which a trial was first proposed; a repeated one was asked for by an earlier driver."""
    first = TrialRecord.of(trial).origin
    return trial.number if first is None else first


def latest(trial: FrozenTrial) -> float:
    """Returns the last score of a trial: the mean of its folds, or the best that its search of stage two has found."""
    return trial.intermediate_values[max(trial.intermediate_values)]
