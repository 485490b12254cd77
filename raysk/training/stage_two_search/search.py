"""The search of stage two: hundreds of settings on the features of one frozen encoder, scored out of fold.

Every trial of stage one trains an encoder at full cost. With the encoder frozen, stage two is a head on features that
never change, so that each trial can search the stage-two part of the space and report its best setting.
"""

import json
import logging
from collections.abc import Sequence
from time import perf_counter

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from raysk.errors import TrainingError
from raysk.parts.precision import sum_in_one_order
from raysk.recipe import Job
from raysk.records import SearchRecord, TriedSetting
from raysk.run import Run
from raysk.spaces.stage_two_search import StageTwoSearch
from raysk.training.features import FrozenFeatures
from raysk.training.job import run_job
from raysk.training.linear_start import linear_start
from raysk.training.loop import Report, StageProgress
from raysk.training.stage_one import load_encoder
from raysk.training.stage_two_search.choice import CrossFit, Tried, best_settings
from raysk.training.stage_two_search.head_scores import head_scores
from raysk.training.world import World

logger = logging.getLogger(__name__)

# Number of best settings that are kept as recipes, for the ensemble.
NUM_KEPT = 10
# Settings that are fitted together: as many as are fastest. The search can end after each part.
_PART, _PART_ON_GPU = 128, 1024


def search_stage_two(search: StageTwoSearch, run: Run, world: World, report: Report) -> None:
    """Tries settings, keeps the best as recipes with all their folds, and writes the scores of all.

    If time is short, the search ends after the present part of its settings, and keeps one: the Sobol sequence covers
    the space evenly wherever it ends.

    Args:
        search: The settings to try, and the recipe of the encoders.
        run: Holds its files.
        world: The workers of the lane; the main rank fits, and all ranks encode.
        report: Called after every fold, and while the best settings are fitted alone.
    """
    if world.agree(run.search_file(search.id).exists()):
        return
    sum_in_one_order()
    began = perf_counter()
    _encode(search, run, world)
    tried, is_short = _try_settings(search, run, world, report)
    best = best_settings(tried, search.anchor.key, run.goal, run.folds.k)[: 1 if is_short else NUM_KEPT]
    if world.is_main_rank:
        for setting in best:
            run.keep_recipe(setting.recipe)
    keys = json.loads(world.broadcast_text(json.dumps([setting.recipe.key for setting in best])))
    fits = StageProgress("best settings", len(keys) * len(run.folds))
    kept = [key for key in keys if _is_fitted(key, run, world, report, fits)]
    if not kept:
        raise TrainingError(
            "a search of stage two must find a valid setting with a finite loss, but none of "
            f"{search.num_settings} qualifies: widen the search space under stage_two, or lower its learning rates"
        )
    if world.is_main_rank:
        for setting in tried:
            if setting.recipe.key in keys and setting.recipe.key not in kept:
                setting.scores[:] = np.nan
        _write(search, tried, kept, perf_counter() - began, run)
    world.barrier()


def _is_fitted(key: str, run: Run, world: World, report: Report, fits: StageProgress) -> bool:
    """Runs the jobs of a setting; returns False if it diverges when fitted alone, and the other settings stay.

    Args:
        key: Key of the recipe.
        run: Holds its files.
        world: The workers of the lane.
        report: Called after each epoch; it may raise to stop the search.
        fits: Number of fitted folds of all settings, which is reported in place of the epochs.
    """
    try:
        for fold in range(len(run.folds)):
            run_job(Job(run.recipe(key), fold), run, world, lambda _: report(fits))
            fits.epoch += 1
    except TrainingError as error:
        logger.warning("stage-two search: %s is left out: %s", key, error)
        return False
    return True


def _encode(search: StageTwoSearch, run: Run, world: World) -> None:
    """Encodes, on all ranks together, all features that a setting can use; later the main rank reads them alone."""
    stage = search.recipe.stage_two
    distributions = {parameter.key: parameter.distribution for parameter in search.parameters}
    views = {stage.view, *getattr(distributions.get("stage_two.view"), "choices", ())}
    passes = max(stage.passes, *_numbers(distributions.get("stage_two.passes")))
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


def _try_settings(search: StageTwoSearch, run: Run, world: World, report: Report) -> tuple[list[Tried], bool]:
    """Fits part after part of the settings on each fold.

    Returns:
        The settings with their scores, an empty list on all ranks but the main one; and whether time is short.
    """
    began = perf_counter()
    settings = search.settings(run.check)
    progress = StageProgress("stage-two search", len(settings))
    is_short = report(progress)
    size = _PART_ON_GPU if world.device.type == "cuda" else _PART
    tried: list[Tried] = []
    for first in range(0, len(settings), size):
        part = settings[first : first + size]
        scores = []
        for fold in range(len(run.folds)):
            if world.is_main_rank:
                scores.append(head_scores([setting.recipe for setting in part], fold, run, world))
            progress.epoch = first + len(part) * (fold + 1) // len(run.folds)
            progress.seconds = perf_counter() - began
            is_short = report(progress)
        if world.is_main_rank:
            of_settings = np.stack(scores, axis=2)  # (M, S, R k)
            tried += [Tried(setting.recipe, of) for setting, of in zip(part, of_settings, strict=True)]
        if is_short:
            break
    return tried, is_short


def _write(search: StageTwoSearch, tried: Sequence[Tried], keys: list[str], seconds: float, run: Run) -> None:
    goal = run.goal
    cross_fit = CrossFit.of(tried, search.anchor.key, goal, run.folds.k)
    scores = {setting.recipe.key: np.nan_to_num(setting.scores[0], nan=goal.metric.worst) for setting in tried}
    SearchRecord(
        recipe=search.recipe.key,
        kept=tuple(keys),
        score=float(scores[keys[0]].mean()),
        crossfit_scores=tuple(cross_fit.scores.tolist()),
        crossfit_merits=tuple(cross_fit.merits.tolist()),
        seconds=seconds,
        tried=tuple(
            TriedSetting(
                recipe=setting.recipe.key,
                scores=tuple(scores[setting.recipe.key].tolist()),
                stage_two=setting.recipe.stage_two.to_plain(),
            )
            for setting in tried
        ),
    ).write(run.search_file(search.id))
