"""Candidates of a finished search: each trial's recipe, and the best recipes of its search of stage two."""

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
        name: Display name.
        family: The family of its trial; "" for a control.
        overrides: How it differs from the base of its space.
        chosen_on: The rows that influenced its choice.
        has_row: Whether the leaderboard shows it; the others only enter the ensemble.
        crossfit: Cross-fitted score of the choice among stage-two settings: each fold is scored with the choice of
            the other folds.
        seconds: Time of the search of stage two, beyond the training of this recipe.
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
    """Returns the candidates of the trials that have all folds, each recipe once, in the order of the trials.

    Searches of stage two on one encoder can find each other's recipes, and the paper's. Of several candidates with one
    recipe, keeps the one that was fixed before any score was seen, or else one with a row.
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
        # Drawn recipes follow from scores on the folds; named recipes were fixed before any score was seen.
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
        # Last, since the search may have kept this very recipe as its best.
        yield Candidate(tried, name, family, overrides, HELD_OUT, has_row=False)


def _texts(path: str, plain: Mapping[str, Any]) -> Iterator[str]:
    """Yields the overrides that a configuration consists of."""
    for name, value in plain.items():
        if isinstance(value, Mapping):
            yield from _texts(f"{path}.{name}", value)
        else:
            yield f"{path}.{name}={value}"
