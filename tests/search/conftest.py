"""Runs of the tests' tiny dataset with three folds, and with the facts that `raysk tune` records."""

from dataclasses import dataclass, replace

import numpy as np
import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from raysk.data.folds.dividing import FoldSettings, make_folds
from raysk.evaluation.comparison import scores_elsewhere
from raysk.evaluation.predictions import Predictions
from raysk.recipe import Job, Recipe
from raysk.records import JobRecord, SearchRecord, StageRecord, TriedSetting
from raysk.run import Run
from raysk.search.trial_records import TrialRecord
from raysk.spaces.space import Space, load_space
from tests.run_facts import run_facts


@pytest.fixture(scope="session")
def new_run(cache, manifest):
    folds = make_folds(manifest, FoldSettings(k=3))
    command = "raysk tune --space supcon"
    facts = run_facts(manifest, folds, cache, space="supcon", command=f"{command} --run x", repeating_command=command)
    return lambda folder, **goal: Run.create(folder, manifest, folds, replace(facts, **goal))


@pytest.fixture
def other_run(tmp_path, new_run):
    """A run beside `run`, of the same rows and folds."""
    return new_run(tmp_path / "other")


@dataclass
class FinishedSearch:
    """A finished search: the files of all jobs, and Optuna's trials.

    Trials by name: "cross_entropy", a control; "decouple: crt", whose search kept three recipes; "decouple: trial 3",
    whose search found nothing better than the trial's own recipe; "focal: paper"; "focal: trial 5"; and
    "focal: trial 6", which racing stopped after a fold.
    """

    run: Run
    space: Space
    trials: list[FrozenTrial]
    recipes: dict[str, Recipe]

    @property
    def complete(self):
        """The complete trials, as from `StudySearcher.complete`."""
        done = [trial for trial in self.trials if trial.state is TrialState.COMPLETE]
        return sorted(done, key=lambda trial: -trial.value)


ACCURACIES = {
    "cross_entropy": 0.3, "decouple: crt": 0.4, "decouple: crt, kept 1": 0.95, "decouple: crt, kept 2": 0.7,
    "decouple: crt, kept 3": 0.6, "decouple: trial 3": 0.65, "decouple: trial 3, kept 2": 0.5, "focal: paper": 0.55,
    "focal: trial 5": 0.45, "focal: trial 6": 0.2,
}  # fmt: skip
TWO_FAMILIES = "about: Two methods that compete.\ninclude: [controls]\nfamilies: [decouple, focal]\n"


@pytest.fixture(scope="session")
def finished_search(tmp_path_factory, new_run, small_recipe):
    return finish_search(tmp_path_factory.mktemp("finished"), new_run, small_recipe)


@pytest.fixture(scope="session")
def finished_by_loss(tmp_path_factory, new_run, small_recipe):
    """The same search by the log loss, with a requirement that "decouple: crt, kept 1" and "kept 2" alone meet."""
    goal = {"metric": "log_loss", "requirements": ["accuracy>=0.66"]}
    return finish_search(tmp_path_factory.mktemp("finished"), new_run, small_recipe, **goal)


def finish_search(folder, new_run, small_recipe, **goal):
    (folder / "two.yaml").write_text(TWO_FAMILIES)
    run = new_run(folder / "run", **goal)
    recipes, scores = {}, {}
    for number, (name, accuracy) in enumerate(ACCURACIES.items()):
        recipes[name] = recipe = Recipe.from_plain(small_recipe({"seed": number}))
        run.keep_recipe(recipe)
        scores[name] = [pretend(run, Job(recipe, fold), accuracy) for fold in range(run.folds.k)]
        for fold in range(run.folds.k):
            pretend(run, Job(recipe, fold).for_test(), accuracy)
    searches = {
        "decouple: crt": ["decouple: crt, kept 1", "decouple: crt, kept 2", "decouple: crt, kept 3"],
        "decouple: trial 3": ["decouple: trial 3", "decouple: trial 3, kept 2"],
    }
    for name, kept in searches.items():
        required = np.stack([run.fold_scores(recipes[setting].key) for setting in kept], axis=1)
        required = np.stack([scores_elsewhere(of_metric, run.folds.k) for of_metric in required], axis=2)
        merits = run.goal.merits(required)  # (M, k)
        choice = merits.argmax(axis=0)
        tried = tuple(
            TriedSetting(
                recipe=recipes[setting].key,
                scores=tuple(scores[setting]),
                stage_two=recipes[setting].stage_two.to_plain(),
            )
            for setting in kept
        )
        best = float(np.mean(scores[kept[0]]))
        SearchRecord(
            recipe=recipes[name].key,
            kept=tuple(setting.recipe for setting in tried),
            score=best,
            crossfit_scores=tuple(scores[kept[place]][fold] for fold, place in enumerate(choice)),
            crossfit_merits=tuple(merits.max(axis=0).tolist()),
            seconds=7.0,
            tried=tried,
        ).write(run.search_file(f"search of {name}"))
    trials = [
        trial_of(name, recipes[name], scores[name], name in searches) for name in ACCURACIES if "kept" not in name
    ]
    for number, trial in enumerate(trials):
        trial.number = number
    return FinishedSearch(run, load_space(str(folder / "two.yaml")), trials, recipes)


def pretend(run, job, accuracy):
    """Writes the files of a job whose model is right on a share of the rows; returns its score."""
    rows = run.folds.test_rows if job.part == "test" else run.folds.held_out_rows(job.fold)
    labels, num_classes = run.manifest.labels[rows], len(run.manifest.class_names)
    rng = np.random.default_rng((job.recipe.seed, job.fold))
    predicted = np.where(rng.random(len(rows)) < accuracy, labels, (labels + 1) % num_classes)
    probabilities = (0.8 * np.eye(num_classes)[predicted] + 0.2 / num_classes).astype(np.float32)
    Predictions.of_fold(
        run.manifest,
        run.folds,
        fold=job.fold,
        part=job.part,
        recipe_key=job.recipe.key,
        views=("identity",),
        probabilities=probabilities[None],
        class_names=run.class_names,
    ).write(run.predictions_file(job.recipe.key, job.fold, job.part))
    score, *required = run.goal.scores(probabilities, labels).tolist()
    stage = StageRecord(seconds=2.0, images=100)
    JobRecord(
        recipe=job.recipe.key,
        fold=job.fold,
        part=job.part,
        seconds=4.0,
        workers=1,
        threads=1,
        metric=run.goal.metric.name,
        score=score,
        required=tuple(required),
        stage_one=stage,
        stage_two=stage,
    ).write(run.record_file(job))
    return score


def trial_of(name, recipe, scores, searched):
    family, _, rest = name.rpartition(": ")
    kind = "drawn" if rest.startswith("trial") else "start" if family else "control"
    attributes = TrialRecord(
        point=name,
        recipe=recipe.key,
        kind=kind,
        family=family,
        overrides=(f"seed={recipe.seed}",),
        search=f"search of {name}" if searched else None,
    ).attributes
    if name == "focal: trial 6":
        return optuna.trial.create_trial(
            state=TrialState.PRUNED, user_attrs=attributes, intermediate_values={1: scores[0]}
        )
    means = {fold + 1: float(np.mean(scores[: fold + 1])) for fold in range(3)}
    best = means[3] + 0.1 if searched else means[3]
    return optuna.trial.create_trial(value=best, user_attrs=attributes, intermediate_values=means)
