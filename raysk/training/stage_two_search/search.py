"""The search of stage two: hundreds of settings on the features of one frozen encoder, scored out of fold.

Every trial of stage one trains an encoder at full cost. With the encoder frozen, stage two is a head on features that
never change, so that each trial can search the stage-two part of the space and report its best setting.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from raysk.errors import TrainingError
from raysk.evaluation.comparison import cross_fitted_choice, scores_elsewhere
from raysk.evaluation.goals import Goal
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

# Number of best settings that are kept as recipes, for the ensemble.
NUM_KEPT = 10


@dataclass
class Tried:
    """A setting, its parameter values, and its scores on the held-out rows of each fold.

    Args:
        recipe: The recipe that the setting gives.
        values: Its values by parameter.
        scores: (S, R k) scores by all metrics of the goal; NaN on a fold where it diverged.
    """

    recipe: Recipe
    values: dict[str, Any]
    scores: np.ndarray

    @property
    def has_diverged(self) -> bool:
        """Whether it diverged on any fold."""
        return bool(np.isnan(self.scores).any())

    def filled(self, goal: Goal) -> np.ndarray:
        """Returns the scores, with the worst of each metric on a fold where it diverged."""
        worst = np.array([metric.worst for metric in goal.metrics])
        return np.where(np.isnan(self.scores), worst[:, np.newaxis], self.scores)


def search_stage_two(search: StageTwoSearch, run: Run, world: World, report: Report) -> None:
    """Tries settings, keeps the best as recipes with all their folds, and writes the scores of all.

    Args:
        search: The settings to try, and the recipe of the encoders.
        run: Holds its files.
        world: The workers of the lane; the main rank fits, and all ranks encode.
        report: Called after every fold, and while the best settings are fitted alone; it may raise to stop the search.
    """
    if world.agree(run.search_file(search.id).exists()):
        return
    sum_in_one_order()
    began = perf_counter()
    _encode(search, run, world)
    tried = _try_settings(search, run, world, report)
    best = _best(tried, run.goal)
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


def _try_settings(search: StageTwoSearch, run: Run, world: World, report: Report) -> list[Tried]:
    """Fits all settings at once on each fold, and returns them with their scores; an empty list on the other ranks."""
    began = perf_counter()
    progress = StageProgress("stage-two search", search.num_settings)
    report(progress)
    settings = search.settings(run.check)
    scores = []
    for fold in range(len(run.folds)):
        if world.is_main_rank and settings:
            scores.append(head_scores([setting.recipe for setting in settings], fold, run, world))
        progress.epoch = search.num_settings * (fold + 1) // len(run.folds)
        progress.seconds = perf_counter() - began
        report(progress)
    if not scores:
        return []
    of_settings = np.stack(scores, axis=2)  # (M, S, R k)
    return [Tried(setting.recipe, setting.values, of) for setting, of in zip(settings, of_settings, strict=True)]


def _expected(tried: Sequence[Tried], scores: np.ndarray, goal: Goal) -> np.ndarray:
    """Returns the expected score of each setting, (M,), from one score of each; the worst for one that diverged."""
    diverged = np.array([setting.has_diverged for setting in tried])
    expected = smoothed([setting.values for setting in tried], np.where(diverged, np.nan, scores))
    return np.where(diverged, goal.metric.worst, expected)


def _best(tried: Sequence[Tried], goal: Goal) -> list[Tried]:
    """Returns distinct settings with the highest expected scores, best first, without any that diverged.

    Those whose mean over the folds meets all requirements come first, then the closest ones. Two settings with equal
    scores on every fold usually predict the same, and an ensemble has no use for both.
    """
    if not tried:
        return []
    means = np.array([setting.filled(goal).mean(axis=1) for setting in tried])
    merits = goal.merits_of(_expected(tried, means[:, 0], goal), goal.shortfalls(means))
    best: dict[tuple[float, ...], Tried] = {}
    for index in np.argsort(-merits, kind="stable"):
        if not tried[index].has_diverged:
            best.setdefault(tuple(tried[index].scores[0]), tried[index])
    return list(best.values())[:NUM_KEPT]


def _write(search: StageTwoSearch, tried: Sequence[Tried], keys: list[str], seconds: float, run: Run) -> None:
    goal, k = run.goal, run.folds.k
    scores = np.stack([setting.filled(goal) for setting in tried], axis=1)  # (S, M, R k)
    elsewhere = np.stack([scores_elsewhere(of_metric, k) for of_metric in scores], axis=2)  # (M, R k, S)
    # For each fold, the expected score of each setting from the other folds alone.
    expected = np.stack([_expected(tried, column, goal) for column in elsewhere[..., 0].T], axis=1)
    shortfalls = goal.shortfalls(elsewhere)
    merits = goal.merits_of(expected, shortfalls)
    means = {setting.recipe.key: float(of_setting.mean()) for setting, of_setting in zip(tried, scores[0], strict=True)}
    crossfit = goal.metric.oriented(cross_fitted_choice(goal.metric.oriented(scores[0]), k, merits))
    SearchRecord(
        recipe=search.recipe.key,
        kept=tuple(keys),
        score=means[keys[0]],
        crossfit=float(crossfit.mean()),
        seconds=seconds,
        tried=tuple(
            TriedSetting(
                recipe=setting.recipe.key,
                scores=tuple(scores[0, place].tolist()),
                expected_elsewhere=tuple(expected[place].tolist()),
                shortfalls_elsewhere=tuple(shortfalls[place].tolist()),
                stage_two=setting.recipe.stage_two.to_plain(),
            )
            for place, setting in enumerate(tried)
        ),
    ).write(run.search_file(search.id))
