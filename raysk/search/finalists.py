"""The finalists: the best recipes of a search, trained again with other seeds before the test part is opened.

A score is that of one training, and another seed gives another one. Tests between rows are about other lesions only;
with several trainings of the best recipes, a test is about other trainings too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from raysk.evaluation.comparison_tables import ComparisonTable, finalists_table, seed_significance_table
from raysk.evaluation.seed_comparison import compare_over_seeds
from raysk.recipe import Job, Recipe
from raysk.run import Run
from raysk.scoring import read_test
from raysk.search.candidates import Candidate
from raysk.spaces.space import Space


@dataclass(frozen=True)
class Finalist:
    """A recipe, and the same recipe with the next seeds.

    Args:
        name: Its display name.
        recipe: The recipe of the study.
        repeats: The recipes with other seeds.
    """

    name: str
    recipe: Recipe
    repeats: tuple[Recipe, ...]


def pick_finalists(run: Run, space: Space, candidates: Sequence[Candidate]) -> list[Finalist]:
    """Returns the finalists, best first: of several families one each, else one of each encoder.

    The held-out folds choose, by the honest score of a recipe; see `worth`.
    """
    config = space.config()
    has_families = len(space.families) > 1
    best: dict[str, Candidate] = {}
    for candidate in sorted(candidates, key=lambda candidate: -worth(run, candidate)):
        recipe = candidate.recipe
        of_family = candidate.family or f"control {candidate.name}"
        if candidate.has_row:
            best.setdefault(of_family if has_families else recipe.encoder_key or recipe.key, candidate)
    seeds = range(1, config.seeds)
    return [
        Finalist(
            candidate.name,
            candidate.recipe,
            tuple(replace(candidate.recipe, seed=candidate.recipe.seed + number) for number in seeds),
        )
        for candidate in list(best.values())[: config.finalists]
    ]


def worth(run: Run, candidate: Candidate) -> float:
    """Returns the merit of a candidate on the held-out folds, with the honest score of a choice that the folds made."""
    scores = run.fold_scores(candidate.recipe.key).mean(axis=1)
    own = scores[0] if candidate.crossfit is None else candidate.crossfit
    return float(run.goal.merits_of(np.array(own), run.goal.shortfalls(scores)))


def jobs_of_repeats(finalists: Sequence[Finalist], run: Run) -> list[Job]:
    """Returns the jobs that train the finalists with other seeds, and keeps their recipes."""
    repeats = [recipe for finalist in finalists for recipe in finalist.repeats]
    for recipe in repeats:
        run.keep_recipe(recipe)
    return [Job(recipe, fold) for recipe in repeats for fold in range(len(run.folds))]


def lost_repeats(finalists: Sequence[Finalist], failed: Mapping[str, str]) -> dict[str, str]:
    """Returns notes on the repeats that failed; arguments as for `finalists_tables`."""
    return {
        f"not in the table of finalists: {finalist.name}, seed {recipe.seed}": f"failed: {failed[recipe.key]}"
        for finalist in finalists
        for recipe in finalist.repeats
        if recipe.key in failed
    }


def finalists_tables(finalists: Sequence[Finalist], failed: Mapping[str, str], run: Run) -> list[ComparisonTable]:
    """Returns the scores of the finalists over seeds, and the tests between them.

    Args:
        finalists: At least one.
        failed: The repeats without all folds, by the key of their recipe.
        run: Holds the predictions.
    """
    metric, test = run.goal.metric, run.folds.test_rows
    labels, groups = run.truth[test], run.manifest.groups[test]
    of_folds, of_test = {}, {}
    for finalist in finalists:
        keys = [recipe.key for recipe in (finalist.recipe, *finalist.repeats) if recipe.key not in failed]
        of_folds[finalist.name] = [float(run.fold_scores(key)[0].mean()) for key in keys]
        of_test[finalist.name] = [read_test(run, key).mean() for key in keys]
    scores = {name: [float(metric(each, labels)) for each in trained] for name, trained in of_test.items()}
    tables = [finalists_table(of_folds, scores, metric)]
    # A metric of a class that the test part lacks has no score there.
    several = {name: of_test[name] for name, each in scores.items() if len(each) > 1 and not np.isnan(each).any()}
    if len(several) > 1:
        tables.append(seed_significance_table(compare_over_seeds(several, labels, groups, metric), metric))
    return tables
