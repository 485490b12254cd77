"""The second speed: hundreds of stage-two settings on the features of one frozen encoder, scored out of fold.

Stage one is searched at full price, one trial an encoder. With the encoder frozen stage two is a head on features that
never change, so that each trial can try all that the space says of stage two and answer with its best.
"""

import json
import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.trial import TrialState

from raysk.artifacts import digest_of
from raysk.errors import ConfigError, TrainingError
from raysk.evaluation.comparison import cross_fitted_choice, scores_elsewhere
from raysk.evaluation.smoothing import smoothed
from raysk.recipe import Job, Recipe
from raysk.records import SearchRecord, TriedSetting
from raysk.run import Run
from raysk.spaces.stage_two_search import StageTwoSearch
from raysk.training.features import FrozenFeatures
from raysk.training.job import run_job
from raysk.training.linear_start import linear_start
from raysk.training.loop import Report, StageProgress
from raysk.training.precision import sum_in_one_order
from raysk.training.stage_one import load_encoder
from raysk.training.stage_two_search.head_scores import head_scores
from raysk.training.world import World

logger = logging.getLogger(__name__)

# Optuna learns between rounds; within one, all settings are fitted at once.
_ROUNDS = 4
# How many of the best settings are kept as recipes, for the ensemble.
NUM_KEPT = 10


@dataclass
class Tried:
    """A setting, the values that make it, and its macro-F1 on the held-out rows of each fold, (R k,)."""

    recipe: Recipe
    values: dict[str, Any]
    scores: np.ndarray


def search_stage_two(search: StageTwoSearch, run: Run, world: World, report: Report) -> None:
    """Tries the settings, keeps the best of them as recipes with all their folds, and writes what each one scored.

    Args:
        search: What to try on whose encoders.
        run: Where its files are.
        world: The workers of the lane; the main rank fits, and all of them encode.
        report: Told of every round; it may raise to leave the search.
    """
    if world.agree(run.search_file(search.id).exists()):
        return
    sum_in_one_order()
    began = perf_counter()
    _encode(search, run, world)
    study = _open_study(search)
    progress = StageProgress("stage-two search", search.num_settings)
    report(progress)
    tried: list[Tried] = []
    while progress.epoch < search.num_settings:
        number = min(-(-search.num_settings // _ROUNDS), search.num_settings - progress.epoch)
        if world.is_main_rank:
            tried += _try_settings(search, study, number, run, world)
        progress.epoch += number
        progress.seconds = perf_counter() - began
        report(progress)
    best = _best(tried)
    if world.is_main_rank:
        for one in best:
            run.keep_recipe(one.recipe)
    keys = json.loads(world.broadcast_text(json.dumps([one.recipe.key for one in best])))
    kept = [key for key in keys if _is_fitted(key, run, world, report)]
    if not kept:
        raise TrainingError(
            "a search of stage two must reach settings that go together and whose loss stays a number, but none of "
            f"{search.num_settings} did: widen what the space searches under stage_two, or lower its learning rates"
        )
    if world.is_main_rank:
        for one in tried:
            if one.recipe.key in keys and one.recipe.key not in kept:
                one.scores[:] = 0.0
        _write(search, tried, kept, perf_counter() - began, run)
    world.barrier()


def _is_fitted(key: str, run: Run, world: World, report: Report) -> bool:
    """Does the jobs of a setting; False if it diverges when it is fitted alone, which costs no other setting."""
    try:
        for fold in range(len(run.folds)):
            run_job(Job(run.recipe(key), fold), run, world, report)
    except TrainingError as error:
        logger.warning("stage-two search: %s is left out: %s", key, error)
        return False
    return True


def _encode(search: StageTwoSearch, run: Run, world: World) -> None:
    """Makes, on all ranks together, every feature that a setting can ask for; the main rank reads them alone later."""
    stage = search.recipe.stage_two
    reach = {parameter.key: parameter.distribution for parameter in search.parameters}
    views = {stage.view, *getattr(reach.get("stage_two.view"), "choices", ())}
    passes = max(stage.passes, *_numbers(reach.get("stage_two.passes")))
    for fold in range(len(run.folds)):
        job = Job(search.recipe, fold)
        frozen = FrozenFeatures(job, run, world, load_encoder)
        frozen.part("held_out")
        linear_start(job, run, world)
        for view in sorted(views):
            frozen.training(view, passes)


def _numbers(distribution: BaseDistribution | None) -> tuple[int, ...]:
    if isinstance(distribution, CategoricalDistribution):
        return tuple(int(choice) for choice in distribution.choices if choice is not None)
    return (distribution.high,) if isinstance(distribution, IntDistribution) else (1,)


def _open_study(search: StageTwoSearch) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    # Searches that share an encoder, with other values to start from, try different settings.
    content = {"seed": search.recipe.seed, "encoder": search.recipe.encoder_key, "start": search.base()}
    seed = int(digest_of(content), 16) % 2**32
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(multivariate=True, group=True, seed=seed)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.enqueue_trial(search.base())
    return study


def _try_settings(search: StageTwoSearch, study: optuna.Study, number: int, run: Run, world: World) -> list[Tried]:
    """Asks for settings, fits all of them at once on every fold, and tells the study their scores."""
    asked, recipes = [], []
    for _ in range(number):
        trial = study.ask()
        try:
            recipe = search.draw(trial)
            run.check(recipe)
        except ConfigError:
            # Settings that are right alone do not go together: the study learns that they fail.
            study.tell(trial, state=TrialState.FAIL)
            continue
        asked.append(trial)
        recipes.append(recipe)
    if not recipes:
        return []
    by_fold = [head_scores(recipes, fold, run, world) for fold in range(len(run.folds))]
    tried = [
        Tried(recipe, trial.params, scores)
        for trial, recipe, scores in zip(asked, recipes, np.stack(by_fold, axis=1), strict=True)
    ]
    for trial, one in zip(asked, tried, strict=True):
        study.tell(trial, float(one.scores.mean()))
    return tried


def _expected(tried: Sequence[Tried], scores: np.ndarray) -> np.ndarray:
    """Returns what each setting can be expected to score, (M,), from one score of each; 0 where a fold diverged."""
    converged = np.array([bool(one.scores.all()) for one in tried])
    return smoothed([one.values for one in tried], np.where(converged, scores, 0.0))


def _best(tried: Sequence[Tried]) -> list[Tried]:
    """Returns the different settings of which most is to be expected, the best first; one that diverged is none.

    Two that score the same on every fold predict the same, as a rule, and an ensemble has no use for both.
    """
    if not tried:
        return []
    expected = _expected(tried, np.array([one.scores.mean() for one in tried]))
    best: dict[tuple[float, ...], Tried] = {}
    for place in np.argsort(-expected, kind="stable"):
        if tried[place].scores.all():
            best.setdefault(tuple(tried[place].scores), tried[place])
    return list(best.values())[:NUM_KEPT]


def _write(search: StageTwoSearch, tried: Sequence[Tried], keys: list[str], seconds: float, run: Run) -> None:
    scores = np.stack([one.scores for one in tried])
    # For each fold, what is to be expected of a setting by the other folds: that fold has no say in it.
    guides = np.stack([_expected(tried, column) for column in scores_elsewhere(scores, run.folds.k).T], axis=1)
    means = {one.recipe.key: float(one.scores.mean()) for one in tried}
    SearchRecord(
        recipe=search.recipe.key,
        kept=tuple(keys),
        score=means[keys[0]],
        crossfit=float(cross_fitted_choice(scores, run.folds.k, guides).mean()),
        seconds=seconds,
        tried=tuple(
            TriedSetting(
                recipe=setting.recipe.key,
                scores=tuple(setting.scores.tolist()),
                expected_elsewhere=tuple(guide.tolist()),
                stage_two=setting.recipe.stage_two.to_plain(),
            )
            for setting, guide in zip(tried, guides, strict=True)
        ),
    ).write(run.search_file(search.id))
