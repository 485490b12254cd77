"""Is the cross-fitted score of a search of stage two honest in a world where no setting is better than another?

All settings of the space have the expected score 0.5. What differs is noise: on each fold a smooth function of the
values of a setting, so that similar settings score alike, as on real rows (deviation 0.026). The settings are those of
`StageTwoSearch`, and `CrossFit` and `best_settings` choose, as in a study.

- chosen: the best mean over the folds, less 0.5. It is too high by construction, which the leaderboard says.
- cross-fitted: each fold scored with the choice of the others, less 0.5. The goal is a bias within 0.004.
"""

import argparse
from dataclasses import replace

import numpy as np

from raysk.evaluation.goals import Goal
from raysk.recipe import Recipe
from raysk.spaces.space import load_space
from raysk.spaces.stage_two_search import Setting, StageTwoSearch
from raysk.training.stage_two_search.choice import CrossFit, Tried, best_settings

MEAN, NOISE = 0.5, 0.026
NUM_FOLDS = 3
# Waves of the noise across the range of a parameter, and their number.
FREQUENCY, NUM_WAVES = 0.5, 60
# Drawing settings takes as long as choosing among them.
WORLDS_A_SEARCH = 20


def coordinates(settings: list[Setting], search: StageTwoSearch) -> np.ndarray:
    """Returns settings as numbers (M, F): ranks of numbers and a column for each word, from 0 to 1."""
    columns = []
    for parameter in search.parameters:
        column = [setting.values.get(parameter.name) for setting in settings]
        if all(value is None or (isinstance(value, int | float) and not isinstance(value, bool)) for value in column):
            order = {value: place for place, value in enumerate(sorted({v for v in column if v is not None}))}
            columns.append([order.get(value, -1) / max(1, len(order)) for value in column])
        else:
            columns += [[value == word for value in column] for word in sorted({str(v) for v in column})]
    return np.array(columns, float).T


def smooth_noise(points: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Returns a random smooth function of points (M, F) with deviation NOISE, (M,)."""
    waves = 2 * np.pi * FREQUENCY * random.standard_normal((points.shape[1], NUM_WAVES))
    values = np.cos(points @ waves + random.uniform(0, 2 * np.pi, NUM_WAVES)).sum(axis=1)
    return NOISE * values / np.sqrt(NUM_WAVES / 2)


def biases(
    settings: list[Setting], anchor: str, points: np.ndarray, random: np.random.Generator
) -> tuple[float, float]:
    """Returns the chosen and the cross-fitted score of a search in a new world, less the true score."""
    scores = np.stack([MEAN + smooth_noise(points, random) for _ in range(NUM_FOLDS)], axis=1)  # (M, k)
    goal = Goal.parse("macro_f1", [], None)
    tried = [Tried(setting.recipe, row[None]) for setting, row in zip(settings, scores, strict=True)]
    chosen = best_settings(tried, anchor, goal, NUM_FOLDS)[0].scores.mean()
    return chosen - MEAN, CrossFit.of(tried, anchor, goal, NUM_FOLDS).scores.mean() - MEAN


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=200)
    parser.add_argument("--settings", type=int, default=256)
    parser.add_argument("--space", default="metric")
    arguments = parser.parse_args()
    space = load_space(arguments.space)
    parameters = next(filter(None, map(space.stage_two_search, space.named_points()))).parameters
    values = []
    for seed in range(-(-arguments.worlds // WORLDS_A_SEARCH)):
        search = StageTwoSearch(replace(Recipe(), seed=seed), parameters, arguments.settings)
        settings, random = search.settings(lambda recipe: None), np.random.default_rng(seed)
        points = coordinates(settings, search)
        values += [biases(settings, search.anchor.key, points, random) for _ in range(WORLDS_A_SEARCH)]
    print("| score | bias | standard error |\n|---|--:|--:|")
    for name, column in zip(("chosen", "cross-fitted"), np.array(values).T, strict=True):
        print(f"| {name} | {column.mean():+.4f} | {column.std(ddof=1) / np.sqrt(len(column)):.4f} |")


if __name__ == "__main__":
    main()
