"""What a finished search has to offer: each trial's recipe, and the best that its search of stage two found."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial

from raysk.recipe import Recipe
from raysk.run import Run
from raysk.scoring import HELD_OUT, chosen_on
from raysk.search.trial_records import TrialRecord


@dataclass(frozen=True)
class Candidate:
    """A recipe with all folds.

    Args:
        recipe: The recipe.
        name: What a reader calls it.
        family: The family of its trial; "" for a control.
        overrides: What sets it apart from the base of its space.
        chosen_on: The rows that had a say in it.
        has_row: Whether the leaderboard shows it; the others are there for the ensemble.
        crossfit: Macro-F1 of the choice among the settings of stage two, each fold scored by what the others choose.
        seconds: What the search of stage two took, beside the training of this recipe.
    """

    recipe: Recipe
    name: str
    family: str
    overrides: tuple[str, ...]
    chosen_on: str
    has_row: bool = True
    crossfit: float | None = None
    seconds: float = 0.0


def read_candidates(run: Run, trials: Sequence[FrozenTrial]) -> list[Candidate]:
    """Returns what the trials that have all folds offer, each recipe once, in their order.

    Where several trials offer the same recipe, keeps the one that was fixed before any score was seen, else one with a
    row: searches of stage two on one encoder can find each other's recipes, and the paper's.
    """
    by_key: dict[str, Candidate] = {}
    for trial in trials:
        for candidate in _of_trial(run, trial):
            rival = by_key.setdefault(candidate.recipe.key, candidate)
            if _claim(candidate) > _claim(rival):
                by_key[candidate.recipe.key] = candidate
    return list(by_key.values())


def _claim(candidate: Candidate) -> tuple[bool, bool]:
    return candidate.has_row, candidate.crossfit is None


def _of_trial(run: Run, trial: FrozenTrial) -> Iterator[Candidate]:
    record = TrialRecord.of(trial)
    is_drawn, name, family, overrides = record.kind == "drawn", record.point, record.family, record.overrides
    tried = run.recipe(record.recipe)
    if not (is_drawn and record.search):
        # The search drew its recipes after looking at the folds; a named one was fixed before any score was seen.
        yield Candidate(tried, name, family, overrides, HELD_OUT if is_drawn else chosen_on(tried))
    if record.search is None:
        return
    search = run.search(record.search)
    of_stage_one = [text for text in overrides if not text.startswith("stage_two.")]
    for place, key in enumerate(search.kept):
        recipe = run.recipe(key)
        yield Candidate(
            recipe,
            f"{name} + stage two {place + 1}",
            family,
            (*of_stage_one, *_texts("stage_two", recipe.to_plain()["stage_two"])),
            f"{HELD_OUT}, best of {len(search.tried)} stage-two settings",
            has_row=place == 0,
            crossfit=search.crossfit if place == 0 else None,
            seconds=search.seconds,
        )
    if is_drawn:
        # Last, since it may be the very one that the search found to be the best.
        yield Candidate(tried, name, family, overrides, HELD_OUT, has_row=False)


def _texts(path: str, plain: Mapping[str, Any]) -> Iterator[str]:
    """Yields a configuration as overrides."""
    for name, value in plain.items():
        if isinstance(value, Mapping):
            yield from _texts(f"{path}.{name}", value)
        else:
            yield f"{path}.{name}={value}"
