"""Refitting: one training on all rows but the locked ones, as long as the folds trained; then bundles use it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from rich.console import Console

import raysk
from raysk.cli.main import main
from raysk.data.folds.assignment import WHOLE
from raysk.errors import ArtifactError, CutOffError
from raysk.evaluation.ensemble import GREEDY
from raysk.evaluation.leaderboard import Leaderboard
from raysk.inference.bundle import Bundle
from raysk.inference.opening import open_bundle
from raysk.recipe import Job, Recipe
from raysk.refitting import refit
from raysk.run import Run
from raysk.scoring import NOTHING
from raysk.search.candidates import Candidate
from raysk.search.results import read_entries, result_rows, select_ensemble, write_results
from raysk.training.checkpoints import ClassifierCheckpoint, EncoderCheckpoint
from raysk.training.job import run_job
from raysk.training.stage_one import train_stage_one
from raysk.training.world import World
from tests.command_line import said

ALONE = World(0, 1, torch.device("cpu"))


@pytest.fixture
def copy(finished_run, tmp_path):
    """A run with files of its own, but the encoders and predictions of the finished run."""
    folder = tmp_path / "run"
    folder.mkdir()
    for path in finished_run.folder.iterdir():
        if path.name in ("encoders", "classifiers"):
            for file in path.rglob("*.safetensors"):
                link = folder / file.relative_to(finished_run.folder)
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(file)
        elif path.name not in ("features", ".driver"):
            (folder / path.name).symlink_to(path)
    return Run.open(folder)


def test_a_row_is_trained_on_all_rows_that_are_not_locked_away(copy, tmp_path, capfd):
    output = said(["refit", copy.folder, "--row", "linear"], capfd)
    num_rows = len(copy.manifest) - len(copy.folds.test_rows)
    assert f"training linear on {num_rows} rows, on the CPU" in output
    assert "recipe 1 of 1, stage one, epoch 2 of 2: loss " in output
    assert f"Next: raysk bundle {copy.folder} --row linear --refitted --output model.raysk" in output
    key = row(copy, "linear").key
    job = Job(copy.recipe(key), WHOLE)
    record = EncoderCheckpoint.read(copy.encoder_file(job), job.recipe.encoder_key, WHOLE).facts
    batch_size, views = job.recipe.stage_one.batch_size, len(job.recipe.stage_one.views)
    assert record["images"] == 2 * (num_rows // batch_size) * batch_size * views
    assert record["health"] == [], "there is no held-out row to measure it on"
    assert not copy.predictions_file(key, WHOLE, "held_out").exists()

    path = tmp_path / "linear.raysk"
    said(["bundle", copy.folder, "--row", "linear", "--refitted", "--output", path], capfd)
    facts = Bundle.read(path).facts
    assert [head.fold for head in facts.heads] == [WHOLE]
    assert facts.provenance.refitted
    assert "These are the scores of the models of the folds" in Bundle.read(path).card
    assert facts.provenance.scores["test_macro_f1"] == row(copy, "linear").scores["test_macro_f1"]

    images = [str(image) for image in copy.manifest.paths[:5]]
    refitted, of_folds = raysk.load(path), raysk.load(copy.folder, "linear")
    assert np.abs(refitted.predict_proba(images) - of_folds.predict_proba(images)).max() > 1e-4
    said(["predict", copy.folder, "--row", "linear", "--refitted", *images, "--output", tmp_path / "out.csv"], capfd)


def row(run, name):
    rows = Leaderboard.read(run.folder / "leaderboard.json").rows
    return next(row for row in rows if row.name == name)


def test_an_ensemble_trains_each_of_its_recipes_once_and_keeps_their_weights(copy):
    refit(copy, GREEDY, Console(quiet=True))
    whole, of_folds = open_bundle(copy.folder, refitted=True), open_bundle(copy.folder)
    assert len(of_folds.facts.heads) == len(copy.folds) * len(whole.facts.heads)
    assert sum(weight for head in whole.facts.heads for weight in head.weights.values()) == pytest.approx(1)
    by_recipe = {head.recipe: head.weights for head in whole.facts.heads}
    for head in of_folds.facts.heads:
        for view, weight in head.weights.items():
            assert by_recipe[head.recipe][view] == pytest.approx(weight * len(copy.folds))
    counts = copy.manifest.count_classes(copy.folds.train_rows(WHOLE))
    assert counts.tolist() == list(whole.facts.provenance.class_counts)


def test_a_finished_training_is_not_repeated_and_another_driver_is_refused(copy):
    refit(copy, "linear", Console(quiet=True))
    before = {path: path.stat().st_mtime_ns for path in copy.folder.rglob("fold-1*")}
    assert len(before) >= 2
    refit(copy, "linear", Console(quiet=True))
    assert {path: path.stat().st_mtime_ns for path in copy.folder.rglob("fold-1*")} == before
    with Run.reserved(copy.folder), pytest.raises(ArtifactError, match="must be a folder that no other raysk uses"):
        refit(copy, "linear", Console(quiet=True))


def test_an_interrupted_training_continues_to_the_same_weights(copy):
    recipe = copy.recipe(row(copy, "end to end").key)
    job = Job(recipe, WHOLE)

    class Stopping(Console):
        def print(self, *objects, **options):
            if "epoch 1 of 2" in str(objects[0]):
                raise CutOffError("stop")

    with pytest.raises(CutOffError):
        refit(copy, "end to end", Stopping(quiet=True))
    assert copy.classifier_file(job).with_suffix(".progress").exists()
    refit(copy, "end to end", Console(quiet=True))
    continued = ClassifierCheckpoint.read(copy.classifier_file(job), recipe.key, WHOLE)
    copy.classifier_file(job).unlink()
    refit(copy, "end to end", Console(quiet=True))
    at_once = ClassifierCheckpoint.read(copy.classifier_file(job), recipe.key, WHOLE)
    assert all(torch.equal(tensor, at_once.tensors[name]) for name, tensor in continued.tensors.items())
    assert continued.facts["losses"] == at_once.facts["losses"]


@pytest.mark.parametrize(("of_folds", "expected"), [((3, 6), 4), ((2, 2), 2), ((6, 6), 6)])
def test_stage_one_ends_after_the_mean_epochs_of_the_folds(of_folds, expected, run, small_recipe):
    plain = small_recipe({"stage_one.epochs": 6, "stage_one.patience": 2})
    job = Job(Recipe.from_plain(plain), 0)
    key = job.recipe.encoder_key
    for fold, epochs in enumerate(of_folds):
        facts = {"seconds": 1.0, "images": 1, "losses": [0.5] * epochs, "health": []}
        EncoderCheckpoint(key, fold, facts, {}).write(run.encoder_file(replace(job, fold=fold)))
    reports = []
    record = train_stage_one(replace(job, fold=WHOLE), run, ALONE, lambda progress: reports.append(progress.epochs))
    assert len(record.losses) == expected
    assert set(reports) == {6}, "the learning rate follows the whole schedule"


def test_a_head_without_training_and_logit_adjustment_are_refitted_too(run, small_recipe):
    recipes = {
        "nearest mean": Recipe.from_plain(small_recipe({"stage_two.head": {"name": "ncm"}})),
        "scaled": Recipe.from_plain(small_recipe({"stage_two.head": {"name": "lws"}, "stage_two.adjustment": 1.0})),
    }
    for recipe in recipes.values():
        run.keep_recipe(recipe)
        for fold in range(len(run.folds)):
            for job in (Job(recipe, fold), Job(recipe, fold).for_test()):
                run_job(job, run, ALONE, lambda progress: None)
    entries = read_entries(run, [Candidate(recipe, name, "", (), NOTHING) for name, recipe in recipes.items()])
    ensemble, crossed = select_ensemble(run, [entry.held_out for entry in entries])
    write_results(run, result_rows(run, entries, ensemble, crossed), {})
    for name in recipes:
        refit(run, name, Console(quiet=True))
        model = raysk.load(run.folder, name, refitted=True)
        assert np.isfinite(model.predict_proba([run.manifest.paths[0]])).all()


@pytest.mark.parametrize(
    ("words", "message"),
    [(["--row", "linaer"], "ROW must be a place, a name or a key"), (["--row", ""], "ROW must be a place")],
)
def test_a_wrong_row_is_refused(words, message, finished_run, capfd):
    assert main(["refit", str(finished_run.folder), *words]) == 2
    assert message in capfd.readouterr().err


def test_a_run_without_a_board_is_refused(run, capfd):
    assert main(["refit", str(run.folder)]) == 2
    assert "the study has not ended" in capfd.readouterr().err
