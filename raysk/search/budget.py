"""How a study spends its budget: the starts, then the first control, then draws, and now and then another control.

A start is the method as published or as usual, and a comparison needs one control. What a study finds beyond these, it
finds by drawing. So the controls together have at most a quarter of what follows the starts: of the recipes, or with a
time budget of the training time. The first control runs in any case, and `controls=all` runs them all before any draw.
"""

from collections import Counter
from collections.abc import Callable, Collection, Sequence

from optuna.trial import FrozenTrial, TrialState

from raysk.run import Run
from raysk.search.trial_records import TrialRecord
from raysk.spaces.families import Family
from raysk.spaces.space import Point, Space

# Numbers of draws, and of recipes of each of several families, if the command line names neither a number nor a time.
_DRAWS, _RECIPES_OF_A_FAMILY = 3, 2
# One recipe of so many that follow the starts is a control.
_SHARE = 4


def training_seconds(run: Run, trial: FrozenTrial) -> float:
    """Returns what a trial has cost so far: its finished folds and its search of stage two."""
    record = TrialRecord.of(trial)
    folds = sum(fold.seconds for fold in run.training_records(record.recipe)) if record.recipe else 0.0
    return folds + (run.search(record.search).seconds if record.search else 0.0)


class Budget:
    """Decides what a study tries next.

    Args:
        space: The searched space.
        asked: Number of recipes on the command line; None leaves it to the space, or to the time.
        seconds: Returns the training time of a trial so far; None without a time budget.
    """

    def __init__(
        self, space: Space, asked: int | None = None, seconds: Callable[[FrozenTrial], float] | None = None
    ) -> None:
        self.space, self.seconds = space, seconds
        self.controls = space.control_points()
        self.runs_all_controls = space.config().controls == "all"
        self.starts: dict[str, list[Point]] = {family.name: [] for family in space.families}
        for point in space.starts():
            self.starts[point.family].append(point)
        # Number of recipes of each family, if several compete for a number of recipes.
        self.each: int | None = None
        self.num_trials = self._num_trials(asked)

    def next(self, trials: Sequence[FrozenTrial], spent: Collection[str] = ()) -> Point | Family | None:
        """Returns a start or a control to try next, or a family from which to draw; None at the end.

        Families take turns, each with its starts before its draws.

        Args:
            trials: The trials of the study; of those that one driver left to the next, the last.
            spent: Names of starts and families that give no new recipe.
        """
        if self.num_trials is not None and len(trials) >= self.num_trials:
            return None
        records = [TrialRecord.of(trial) for trial in trials]
        names = {record.point for record in records} | set(spent)
        begun = Counter(record.family for record in records)
        starts = {name: [point for point in points if point.name not in names] for name, points in self.starts.items()}
        families = [
            family
            for family in self.space.families
            if (starts[family.name] or (family.parameters and family.name not in spent))
            and (self.each is None or begun[family.name] < self.each)
        ]
        family = min(families, key=lambda family: begun[family.name], default=None)
        if family is not None and starts[family.name]:
            return starts[family.name][0]
        controls = [point for point in self.controls if point.name not in names]
        if controls and (family is None or self._has_room(trials)):
            return controls[0]
        return family

    def left_out(self, trials: Sequence[FrozenTrial]) -> list[str]:
        """Returns the names of the controls that the study did not begin."""
        begun = {TrialRecord.of(trial).point for trial in trials}
        return [point.name for point in self.controls if point.name not in begun]

    def _has_room(self, trials: Sequence[FrozenTrial]) -> bool:
        """Returns whether one more control is within the share of the controls."""
        starts = {point.name for points in self.starts.values() for point in points}
        controls = {point.name for point in self.controls}
        named = [(trial, TrialRecord.of(trial).point) for trial in trials]
        later = [trial for trial, name in named if name not in starts]
        begun = [trial for trial, name in named if name in controls]
        if self.seconds is None or self.runs_all_controls or not begun:
            return self._num_controls(len(later) + 1) > len(begun)
        if any(trial.state is TrialState.RUNNING for trial in begun):
            return False  # What it costs is not known yet.
        of_controls, of_all = (sum(map(self.seconds, group)) for group in (begun, later))
        mean = of_controls / len(begun)
        return _SHARE * (of_controls + mean) <= of_all + mean

    def _num_controls(self, later: int) -> int:
        """Returns how many of the first recipes that follow the starts are controls."""
        wanted = later if self.runs_all_controls else max(min(1, later), later // _SHARE)
        return min(len(self.controls), wanted)

    def _num_later(self, draws: int) -> int:
        """Returns the number of recipes that follow the starts: some draws, and their share of controls."""
        later = len(self.controls) if self.runs_all_controls else min(1, len(self.controls))
        while later - self._num_controls(later) < draws:
            later += 1
        return later

    def _num_trials(self, asked: int | None) -> int | None:
        """Returns the number of recipes, including those of earlier drivers; None if only the time ends the study.

        The default is all starts, three draws and their controls. Families that compete get equal numbers, by default
        two each; a remainder of the division is not tried.
        """
        num_starts = sum(map(len, self.starts.values()))
        if not any(family.parameters for family in self.space.families):
            named = num_starts + len(self.controls)
            return named if asked is None else min(asked, named)
        if asked is None and self.seconds is not None:
            return None
        if len(self.starts) == 1:
            return num_starts + self._num_later(_DRAWS) if asked is None else asked
        self.each = _RECIPES_OF_A_FAMILY if asked is None else 1
        while asked is not None and self._num_of_families(self.each + 1) <= asked:
            self.each += 1
        return self._num_of_families(self.each)

    def _num_of_families(self, each: int) -> int:
        """Returns the number of recipes with so many of each family."""
        num_starts = sum(min(each, len(points)) for points in self.starts.values())
        return num_starts + self._num_later(each * len(self.starts) - num_starts)
