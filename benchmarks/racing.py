"""What racing saves and what it costs: recorded studies, raced again in random orders.

`record` draws recipes of a space at random, and runs all of them on all folds without a race: stage one, the reference
heads, the search of stage two, and the test part of the best setting. `replay` then lets each rule race these recipes
one after another in many random orders. Nothing is trained again, so the contenders see the same scores. `simulate`
races recipes whose true scores are drawn: a recipe's scores on the folds are its true score, the difficulty of the fold
and noise, of rows and of training. `choice` races recipes that are equally good, and shows how far the score of the
choice after the race is from the truth.

- raysk: the rule of `raysk tune`, for several least chances.
- raysk, own head: the same rule on the scores of each recipe's own stage two instead of the reference heads.
- ASHA: Optuna's `SuccessiveHalvingPruner`; a rung is a number of folds.
- median, percentile: Optuna's `MedianPruner` and `PercentilePruner`, after four complete recipes as by default there.

All but "own head" race on the scores of the reference heads, and all run the first two recipes on all folds, as a study
does with its starts. Of the recipes with all folds, the one with the best score out of fold after the search of stage
two wins. A rule saves the folds that it does not run. Its regret is the honest score of the best recipe of the study
less that of its winner, on a test part that no fold has seen; made large here, so that it measures little noise.
"""

import argparse
import json
import multiprocessing
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import optuna
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from raysk.artifacts import write_json
from raysk.errors import ConfigError, TrainingError
from raysk.evaluation.comparison import cross_fitted_choice, score_of_choice
from raysk.evaluation.fold_model import chances
from raysk.loading import prepare_rows, read_rows
from raysk.recipe import Job, Recipe
from raysk.run import Run
from raysk.scoring import read_test
from raysk.search.racing import LEAST_CHANCE
from raysk.spaces.space import Point, Space, load_space
from raysk.training.job import run_job
from raysk.training.stage_two_search.search import search_stage_two
from raysk.training.world import World

# Recipes that run all folds, whatever their scores.
_NUM_STARTS = 2
_CHANCES = (0.005, LEAST_CHANCE, 0.05, 0.1, 0.2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    recorder = commands.add_parser("record", help="run recipes without a race")
    recorder.add_argument("run", type=Path, help="folder of the recorded study")
    recorder.add_argument("--space", default="supcon")
    recorder.add_argument("--recipes", type=int, default=60)
    recorder.add_argument("overrides", nargs="*", help="KEY=VALUE as for raysk tune; right after RUN")
    recorder.set_defaults(command=record)
    player = commands.add_parser("replay", help="race the recorded recipes")
    player.add_argument("run", type=Path)
    player.add_argument("--orders", type=int, default=200)
    player.add_argument("--length", type=int, default=24, help="recipes of a replayed study")
    player.set_defaults(command=replay)
    drawer = commands.add_parser("simulate", help="race recipes with drawn scores")
    drawer.add_argument("--studies", type=int, default=200)
    drawer.add_argument("--length", type=int, default=24, help="recipes of a study")
    drawer.add_argument("--folds", type=int, default=3)
    drawer.add_argument("--spread", type=float, default=0.025, help="standard deviation of the true scores")
    drawer.add_argument("--noise", type=float, default=0.023, help="of a score on a fold, rows and training together")
    drawer.set_defaults(command=simulate)
    chooser = commands.add_parser("choice", help="the bias of the score of the choice after a race")
    chooser.add_argument("--worlds", type=int, default=1000)
    chooser.add_argument("--length", type=int, default=20, help="recipes of a world")
    chooser.add_argument("--folds", type=int, default=3)
    chooser.set_defaults(command=choice)
    arguments = parser.parse_args()
    arguments.command(arguments)


def record(arguments: argparse.Namespace) -> None:
    """Runs all recipes in two processes; a recipe that has its result is not run again."""
    space = load_space(arguments.space, arguments.overrides)
    config = space.config()
    manifest, folds, facts = prepare_rows(read_rows(config, Console()), config, [config.recipe], Console())
    if not (arguments.run / "run.json").exists():
        Run.create(arguments.run, manifest, folds, facts)
    numbers = range(arguments.recipes)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        work = partial(_record_recipe, arguments.run, arguments.space, tuple(arguments.overrides))
        for done, line in enumerate(pool.imap_unordered(work, numbers), start=1):
            print(f"{done} of {arguments.recipes}: {line}", flush=True)


def _record_recipe(folder: Path, name: str, overrides: tuple[str, ...], number: int) -> str:
    torch.set_num_threads(1)
    path = folder / "raced" / f"{number}.json"
    if path.exists():
        return "recorded earlier"
    began = time.perf_counter()
    space, run, alone = load_space(name, overrides), Run.open(folder), World(0, 1, torch.device("cpu"))
    point, recipe = _draw(space, run, number)
    search = space.stage_two_search(point)
    try:
        for fold in range(len(run.folds)):
            run_job(Job(recipe, fold, has_references=search is not None), run, alone, lambda progress: False)
        kept, score = recipe.key, float(run.fold_scores(recipe.key)[0].mean())
        if search is not None:
            search_stage_two(search, run, alone, lambda progress: False)
            kept, score = run.search(search.id).kept[0], run.search(search.id).score
        for fold in range(len(run.folds)):
            run_job(Job(run.recipe(kept), fold).for_test(), run, alone, lambda progress: False)
    except TrainingError as error:
        return f"failed: {error}"
    test = read_test(run, kept)
    honest = float(run.goal.metric(test.mean(), run.manifest.labels[test.rows]))
    folds = range(1, len(run.folds) + 1)
    write_json(
        path,
        {
            "raced": [run.raced_scores(recipe.key, have)[0].tolist() for have in folds],
            "own": [run.fold_scores(recipe.key, have)[0].tolist() for have in folds],
            "final": score,
            "honest": honest,
            "seconds": time.perf_counter() - began,
        },
    )
    return f"{score:.3f} out of fold, {honest:.3f} on the test part, {time.perf_counter() - began:.0f} s"


def _draw(space: Space, run: Run, number: int) -> tuple[Point, Recipe]:
    """Draws the recipe of a number; draws again where the values do not fit together."""
    family = space.families[number % len(space.families)]
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=number))
    while True:
        try:
            point = space.draw(study.ask(), family)
            recipe = space.config(point).recipe
            run.check(recipe)
        except ConfigError:
            continue
        run.keep_recipe(recipe)
        return point, recipe


@dataclass(frozen=True)
class Recorded:
    """A recorded study of R recipes and F folds; larger scores are better.

    Args:
        raced: (R, F, F) the scores of the reference heads on the first folds: [r, m] has m + 1 of them, then NaN.
        own: The same of each recipe's own stage two.
        final: (R,) score out of fold after the search of stage two.
        honest: (R,) score on the test part.
    """

    raced: np.ndarray
    own: np.ndarray
    final: np.ndarray
    honest: np.ndarray

    @classmethod
    def read(cls, folder: Path) -> "Recorded":
        records = [json.loads(path.read_text()) for path in sorted((folder / "raced").glob("*.json"))]
        oriented = Run.open(folder).goal.metric.oriented
        num_folds = len(records[0]["raced"])

        def stacked(name: str) -> np.ndarray:
            padded = [[row + [np.nan] * (num_folds - len(row)) for row in record[name]] for record in records]
            return np.asarray(oriented(np.array(padded)))

        final, honest = (
            np.asarray(oriented(np.array([record[name] for record in records]))) for name in ("final", "honest")
        )
        return cls(stacked("raced"), stacked("own"), final, honest)

    def part(self, order: np.ndarray) -> "Recorded":
        """Returns some recipes, in an order."""
        return Recorded(self.raced[order], self.own[order], self.final[order], self.honest[order])


# A rule takes scores (R, F, F) in the order of a study, and returns the number of folds that each recipe runs, (R,).
Rule = Callable[[np.ndarray], np.ndarray]


def no_race(scores: np.ndarray) -> np.ndarray:
    return np.full(len(scores), scores.shape[1])


def raysk(least_chance: float, scores: np.ndarray) -> np.ndarray:
    num_recipes, num_folds = scores.shape[:2]
    seen, have = np.full((num_recipes, num_folds), np.nan), np.zeros(num_recipes, dtype=int)
    for recipe in range(num_recipes):
        for fold in range(num_folds):
            seen[recipe], have[recipe] = scores[recipe, fold], fold + 1
            chance = chances(seen[: recipe + 1], np.zeros(recipe + 1))[recipe]
            if recipe >= _NUM_STARTS and chance < least_chance:
                break
    return have


def pruned(pruner: optuna.pruners.BasePruner, scores: np.ndarray) -> np.ndarray:
    study = optuna.create_study(direction="maximize", pruner=pruner)
    have = np.zeros(len(scores), dtype=int)
    for recipe, of_recipe in enumerate(scores):
        trial = study.ask()
        is_pruned = False
        for fold in range(scores.shape[1]):
            mean = float(np.nanmean(of_recipe[fold]))
            trial.report(mean, fold + 1)
            have[recipe] = fold + 1
            if recipe >= _NUM_STARTS and fold + 1 < scores.shape[1] and trial.should_prune():
                is_pruned = True
                break
        if is_pruned:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            study.tell(trial, mean)
    return have


def rules() -> Iterator[tuple[str, str, Rule]]:
    """Yields the name of each rule, the scores that it sees, and the rule."""
    yield "no race", "raced", no_race
    for chance in _CHANCES:
        yield f"raysk, {chance:.1%}" + (" (default)" if chance == LEAST_CHANCE else ""), "raced", partial(raysk, chance)
    for chance in _CHANCES:
        yield f"raysk, own head, {chance:.1%}", "own", partial(raysk, chance)
    for factor in (2, 3, 4):
        pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=factor)
        yield f"ASHA, factor {factor}", "raced", partial(pruned, pruner)
    for percentile in (25.0, 50.0, 75.0):
        name = "median" if percentile == 50 else f"percentile {percentile:.0f}"
        pruner = optuna.pruners.PercentilePruner(percentile, n_startup_trials=4)
        yield name, "raced", partial(pruned, pruner)


def replay(arguments: argparse.Namespace) -> None:
    recorded = Recorded.read(arguments.run)
    num_recipes, num_folds = recorded.raced.shape[:2]
    length = min(arguments.length, num_recipes)
    print(f"{num_recipes} recipes with {num_folds} folds; {arguments.orders} studies of {length} in random orders")
    for name, scores in (("reference heads", recorded.raced), ("own head", recorded.own)):
        print(
            f"rank correlation with the score after the search: {name}, "
            f"all folds {_rank(scores[:, -1].mean(axis=1), recorded.final):.2f}, "
            f"first fold {_rank(scores[:, 0, 0], recorded.final):.2f}"
        )
    print(f"out of fold after the search, with the test part: {_rank(recorded.final, recorded.honest):.2f}")
    orders = [np.random.default_rng(seed).permutation(num_recipes)[:length] for seed in range(arguments.orders)]
    _compare([recorded.part(order) for order in orders], list(rules()))


def simulate(arguments: argparse.Namespace) -> None:
    studies = []
    for seed in range(arguments.studies):
        rng = np.random.default_rng(seed)
        true = rng.normal(0, arguments.spread, arguments.length)
        shape = (arguments.length, arguments.folds)
        scores = true[:, None] + rng.normal(0, 0.02, arguments.folds) + rng.normal(0, arguments.noise, shape)
        # Of the first m + 1 folds, as a recorded study has them.
        raced = np.where(np.tri(arguments.folds, dtype=bool), scores[:, None], np.nan)
        studies.append(Recorded(raced, raced, scores.mean(axis=1), true))
    _compare(studies, [rule for rule in rules() if rule[1] == "raced"])


def choice(arguments: argparse.Namespace) -> None:
    """Prints the bias of the score of the choice, in deviations of a fold, if all recipes are worth 0."""
    shape = (arguments.length, arguments.folds)
    flattered, honest, saved = [], [], []
    for seed in track(range(arguments.worlds), "worlds"):
        scores = np.random.default_rng(seed).normal(size=shape)
        raced = np.where(np.tri(arguments.folds, dtype=bool), scores[:, None], np.nan)
        have = raysk(LEAST_CHANCE, raced)
        shown = np.where(np.arange(arguments.folds) < have[:, None], scores, np.nan)
        survivors = shown[have == arguments.folds]
        flattered.append(cross_fitted_choice(survivors, arguments.folds).mean())
        honest.append(score_of_choice(shown, arguments.folds).score)
        saved.append(1 - have.mean() / arguments.folds)
    print(f"{arguments.worlds} worlds of {arguments.length} equal recipes, {np.mean(saved):.0%} of the folds saved")
    for name, biases in (("cross-fitted among the survivors", flattered), ("score of the choice", honest)):
        print(f"{name}: bias {np.mean(biases):+.3f} (standard error {np.std(biases) / len(biases) ** 0.5:.3f})")


def _compare(studies: list[Recorded], contenders: list[tuple[str, str, Rule]]) -> None:
    """Prints what each rule saves and costs in the mean over the studies."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    table = Table("rule", "folds saved", "regret", "standard error", "winner of no race lost")
    for name, seen, rule in contenders:
        saved, regret, lost = [], [], []
        for study in studies:
            have, num_folds = rule(getattr(study, seen)), study.raced.shape[1]
            complete = np.flatnonzero(have == num_folds)
            winner = complete[study.final[complete].argmax()]
            saved.append(1 - have.mean() / num_folds)
            regret.append(study.honest.max() - study.honest[winner])
            lost.append(winner != study.final.argmax())
        error = np.std(regret) / np.sqrt(len(regret))
        table.add_row(name, f"{np.mean(saved):.1%}", f"{np.mean(regret):.4f}", f"{error:.4f}", f"{np.mean(lost):.1%}")
    Console(width=120).print(table)


def _rank(first: np.ndarray, second: np.ndarray) -> float:
    ranks = [values.argsort().argsort() for values in (first, second)]
    return float(np.corrcoef(ranks)[0, 1])


if __name__ == "__main__":
    main()
