"""Proposals: the next recipe of a study, which it has not tried before, with all its values."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from optuna.trial import FrozenTrial

from raysk.errors import ConfigError
from raysk.search.budget import Budget
from raysk.search.samplers import Sampler
from raysk.search.trial_records import TrialRecord
from raysk.spaces.families import Family
from raysk.spaces.space import Point, Space

# A recipe is drawn this often by its sampler, then at random, before its family counts as exhausted.
_MAX_LEARNED_DRAWS, _MAX_DRAWS = 5, 300


class Proposals:
    """Proposes recipes.

    Args:
        space: The searched space.
        sampler: Draws values.
        budget: Decides whether a start, a control or a draw comes next.
        say: Prints a line for the user.
    """

    def __init__(self, space: Space, sampler: Sampler, budget: Budget, say: Callable[[str], None]) -> None:
        self.space, self.sampler, self.budget, self.say = space, sampler, budget, say
        # Names of the starts and families that give no new recipe.
        self._spent: set[str] = set()

    def next(self, trials: Sequence[FrozenTrial]) -> tuple[TrialRecord, dict[str, Any]] | None:
        """Returns what the next trial is, and its values by parameter; None at the end of the study.

        Args:
            trials: All valid trials of the study, in the order in which they were first proposed.
        """
        while (step := self.budget.next(trials, self._spent)) is not None:
            if isinstance(step, Point) and step.kind == "control":
                return TrialRecord(point=step.name), {}
            start = step if isinstance(step, Point) else None
            point = self._start(step, trials) if isinstance(step, Point) else self._draw(step, trials)
            if point is not None:
                return TrialRecord(point=start.name if start else "", family=point.family), point.values
            self._spent.add(step.name)
            self.say(f"{step.name}: {'its recipe' if start else 'all that it can draw'} has been tried")
        return None

    def _start(self, start: Point, trials: Sequence[FrozenTrial]) -> Point | None:
        """Returns a start with all its values; None if its family has tried the recipe.

        Another family may have the same start: each is judged by its own recipes, and they share the jobs. Values that
        a sweep of the command line excludes are drawn at random.
        """
        family = self.space.family(start.family)
        if family is None:
            raise ValueError("a start must have a family")
        of_family, sampler = _of_family(family, trials), replace(self.sampler, name="random")
        proposal = sampler.propose(self.space.drawn_parameters(family), of_family, start.values)
        point = self.space.draw(proposal, family, start)
        return None if self._key(point) in {TrialRecord.of(trial).recipe for trial in of_family} else point

    def _draw(self, family: Family, trials: Sequence[FrozenTrial]) -> Point | None:
        """Returns a drawn point; None if it is a recipe that the study has tried again and again."""
        of_family = _of_family(family, trials)
        parameters = self.space.drawn_parameters(family)
        tried = {frozenset(trial.params.items()) for trial in of_family}
        keys = {TrialRecord.of(trial).recipe for trial in trials}
        for attempt in range(_MAX_DRAWS):
            sampler = self.sampler if attempt < _MAX_LEARNED_DRAWS else replace(self.sampler, name="random")
            point = self.space.draw(sampler.propose(parameters, of_family, attempt=attempt), family)
            if frozenset(point.values.items()) not in tried and self._key(point) not in keys:
                return point
        return None

    def _key(self, point: Point) -> str | None:
        """Returns the key of a recipe; None if its settings are valid alone but not together."""
        try:
            return self.space.config(point).recipe.key
        except ConfigError:
            return None


def _of_family(family: Family, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    return [trial for trial in trials if TrialRecord.of(trial).family == family.name]
