"""Retraining: training the file that `raysk recipe` prints gives exactly the predictions of its row."""

import io
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from rich.console import Console

from raysk.artifacts import write_json
from raysk.cli.main import main
from raysk.data.folds.dividing import FoldSettings
from raysk.data.sources import DataSettings
from raysk.evaluation.leaderboard import Leaderboard
from raysk.recipe import Job, Recipe
from raysk.retraining import RecipeFile, train_recipe
from raysk.run import Run
from raysk.scoring import chosen_on
from tests.command_line import refused

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def file(cache, manifest, small_recipe):
    data = DataSettings(source="csv", path=str(cache / "drawn" / "metadata.csv"), image="file", group="group")
    recipe = Recipe.from_plain(small_recipe())
    threads = torch.get_num_threads()
    return RecipeFile(data=data, folds=FoldSettings(k=2), recipe=recipe, cache=str(cache), threads=threads)


@pytest.fixture(scope="module")
def trained(file, tmp_path_factory):
    """A run that trained the recipe."""
    folder = tmp_path_factory.mktemp("trained")
    path = folder / "mine.yaml"
    path.write_text(file.text())
    train_recipe(path, folder / "run", False, Console(quiet=True))
    return Run.open(folder / "run")


@pytest.fixture
def printed(trained, tmp_path, capfd):
    """The file that `raysk recipe` prints for its row."""
    capfd.readouterr()
    assert main(["recipe", str(trained.folder), "1"]) == 0
    path = tmp_path / "again.yaml"
    path.write_text(capfd.readouterr().out)
    return path


def test_an_ensemble_has_no_recipe(tmp_path, capfd, trained):
    board = Leaderboard.read(trained.folder / "leaderboard.json")
    folder = tmp_path / "run"
    shutil.copytree(trained.folder, folder)
    ensemble = replace(board.rows[0], key="0" * 16, name="ensemble: greedy", kind="ensemble")
    write_json(folder / "leaderboard.json", replace(board, rows=(ensemble,)).to_json())
    line = refused(["recipe", folder, "ensemble: greedy"], capfd)
    assert line.startswith("ROW must be a single recipe, but 'ensemble: greedy' averages several")
    assert str(folder / "ensemble.json") in line


def test_a_folder_that_is_not_a_run_has_no_recipes(tmp_path, capfd):
    assert f"{tmp_path / 'run.json'} must exist" in refused(["recipe", tmp_path, "1"], capfd)


def test_a_recipe_file_survives_its_text(file, tmp_path):
    for written in (file, replace(file, threads=None, workers=4)):
        path = tmp_path / "recipe.yaml"
        path.write_text(written.text())
        assert RecipeFile.read(path) == written


def test_the_printed_file_has_everything_that_the_row_depends_on(file, printed):
    assert RecipeFile.read(printed) == replace(file, name="mine")
    assert list(yaml.safe_load(printed.read_text())) == [
        "data",
        "folds",
        "recipe",
        "cache",
        "stores",
        "workers",
        "threads",
        "name",
        "chosen_on",
        "metric",
        "require",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "FILE must be a recipe in YAML, but"),
        ("a: [", "FILE must be a recipe in YAML, but"),
        ("\x00", "FILE must be a recipe in YAML, but"),
        ("- 1", "FILE must be a recipe with data, folds and recipe"),
        ("", "FILE must be a recipe with data, folds and recipe"),
        ("recipe: {}", "FILE must be a recipe with data, folds and recipe"),
        ("{data: {}, folds: {}, recipe: {seeds: 1}}", "did you mean seed"),
        ("{data: {}, folds: {}, recipe: {}, gpu: 1}", "gpu"),
        ("{data: {}, folds: {k: 1}, recipe: {}}", "folds.k must be"),
        ("{data: {}, folds: {}, recipe: {stage_one: {epochs: none}}}", "recipe.stage_one.epochs must be"),
        ("{data: {}, folds: {}, recipe: {stage_two: {frozen: maybe}}}", "recipe.stage_two.frozen must be"),
        ("{data: 3, folds: {}, recipe: {}}", "data must be"),
        ("{data: {}, folds: {}, recipe: {}, threads: 0}", "threads must be"),
        ("{data: {}, folds: {}, recipe: {}, chosen_on: [a]}", "chosen_on must be a text, but got ['a']"),
        ("{data: {}, folds: {}, recipe: {}, metric: macro_f2}", "did you mean macro_f1"),
        ("{data: {}, folds: {}, recipe: {}, metric: [kappa]}", "metric must be a text"),
        ("{data: {}, folds: {}, recipe: {}, require: kappa>=0}", "require must be a list"),
        ("{data: {}, folds: {}, recipe: {}, require: [kappa]}", "a requirement must be METRIC>=BOUND"),
        ("{data: {}, folds: {}, recipe: {stage_one: null}}", "model must have trained weights for a frozen encoder"),
    ],
)  # fmt: skip
def test_an_invalid_file_is_refused_in_one_line(content, message, tmp_path, capfd):
    path = tmp_path / "wrong.yaml"
    if content is not None:
        path.write_text(content)
    assert message in refused(["train", path, "--run", tmp_path / "run"], capfd)
    assert not (tmp_path / "run").exists()


def test_a_recipe_that_a_run_chose_says_so_when_it_is_trained_again(trained, tmp_path, capfd):
    board = Leaderboard.read(trained.folder / "leaderboard.json")
    chosen = "held-out folds, best of 4 stage-two settings"
    copy = tmp_path / "study"
    shutil.copytree(trained.folder, copy)
    write_json(copy / "leaderboard.json", replace(board, rows=(replace(board.rows[0], chosen_on=chosen),)).to_json())
    assert main(["recipe", str(copy), "1"]) == 0
    path = tmp_path / "again.yaml"
    path.write_text(capfd.readouterr().out)
    # The folds are finished, so that only the scores are made anew.
    shutil.move(copy, tmp_path / "run")
    assert main(["train", str(path), "--run", str(tmp_path / "run"), "--resume"]) == 0
    assert f"mine, chosen on the {chosen}: macro-F1 " in " ".join(capfd.readouterr().out.split())
    (row,) = Leaderboard.read(tmp_path / "run" / "leaderboard.json").rows
    assert row.chosen_on == chosen


def test_a_probe_that_ends_stage_one_reads_the_held_out_folds_whatever_the_file_says(file):
    patient = replace(file.recipe, stage_one=replace(file.recipe.stage_one, patience=2))
    assert chosen_on(file.recipe) == "nothing"
    assert chosen_on(patient) == chosen_on(patient, "nothing") == "held-out folds"


def test_training_again_gives_the_same_bits(trained, printed, tmp_path, capfd):
    assert main(["train", str(printed), "--run", str(tmp_path / "run")]) == 0
    output = capfd.readouterr().out
    assert "fold 2 of 2, stage one, epoch 2 of 2: loss " in output
    assert "Leaderboard: 1 row, by macro-F1 out of fold\n" in output
    assert output.endswith(f"Files: {tmp_path / 'run'}/leaderboard.md, .csv, .html, .json, .parquet, .tex\n")
    again, (key,) = Run.open(tmp_path / "run"), keys(trained)
    for fold in (0, 1):
        for part in ("held_out", "test"):
            first, second = (run.predictions(key, fold, part) for run in (trained, again))
            assert np.array_equal(first.rows, second.rows)
            assert np.array_equal(first.probabilities, second.probabilities), (fold, part)
    (before,), (after,) = (Leaderboard.read(run.folder / "leaderboard.json").rows for run in (trained, again))
    assert (after.scores, after.key, after.images) == (before.scores, before.key, before.images)
    assert (before.name, after.name) == ("mine", "mine"), "the row keeps its name, whatever the file is called"
    assert after.chosen_on == "nothing"


def test_a_file_with_another_metric_trains_the_same_weights_and_is_ranked_by_it(trained, file, tmp_path, capfd):
    name = trained.manifest.class_names[0]
    path = tmp_path / "other.yaml"
    path.write_text(replace(file, metric=f"pauc@{name}:0.80", require=(f"sensitivity@{name}>=0.5",)).text())
    assert main(["train", str(path), "--run", str(tmp_path / "run")]) == 0
    assert f"by partial AUC of {name} (above sensitivity 0.8) out of fold" in " ".join(capfd.readouterr().out.split())
    again, (key,) = Run.open(tmp_path / "run"), keys(trained)
    board = Leaderboard.read(again.folder / "leaderboard.json")
    (row,) = board.rows
    assert (board.metric, row.key) == (f"pauc@{name}:0.8", key)
    record = again.record(Job(again.recipe(key), 0))
    assert (record.metric, len(record.required)) == (board.metric, 1)
    assert np.array_equal(again.predictions(key, 0).probabilities, trained.predictions(key, 0).probabilities)
    assert row.scores[f"oof_{board.metric}"] == pytest.approx(again.fold_scores(key)[0].mean())
    assert row.requirements[0].requirement == row.operating_points[0].requirements[0] == f"sensitivity@{name}>=0.5"
    repeated = RecipeFile.of_row(again, "1")
    assert (repeated.metric, repeated.require) == (board.metric, (f"sensitivity@{name}>=0.5",))
    line = refused(["train", path, "--run", trained.folder, "--resume"], capfd)
    assert f"raysk leaderboard {trained.folder} --metric {board.metric} ranks a finished study anew" in line


def keys(run):
    return [row.key for row in Leaderboard.read(run.folder / "leaderboard.json").rows]


def test_a_run_is_not_overwritten(trained, printed, capfd):
    before = {path: path.stat().st_mtime_ns for path in trained.folder.rglob("*")}
    line = refused(["train", printed, "--run", trained.folder], capfd)
    assert f"{trained.folder} has a study: add --resume" in line
    assert {path: path.stat().st_mtime_ns for path in trained.folder.rglob("*")} == before


def test_resume_repeats_only_missing_jobs(trained, printed, file):
    before_loss = Leaderboard.read(trained.folder / "leaderboard.json")
    jobs = [job for fold in (0, 1) for job in (Job(file.recipe, fold), Job(file.recipe, fold).for_test())]
    lost = jobs.pop()
    trained.record_file(lost).unlink()
    before = {job.id: trained.record_file(job).stat().st_mtime_ns for job in jobs}
    output = io.StringIO()
    leaderboard = train_recipe(printed, trained.folder, True, Console(file=output))
    assert trained.is_done(lost)
    assert {job.id: trained.record_file(job).stat().st_mtime_ns for job in jobs} == before
    assert "epoch" not in output.getvalue()
    assert leaderboard.rows[0].scores == before_loss.rows[0].scores


def test_another_recipe_does_not_resume_a_run(trained, file, tmp_path, capfd):
    path = tmp_path / "other.yaml"
    path.write_text(replace(file, recipe=replace(file.recipe, seed=5)).text())
    line = refused(["train", path, "--run", trained.folder, "--resume"], capfd)
    assert f"--resume must find the recipe that {trained.folder} was started with" in line


def test_two_processes_of_torchrun_train_together(printed, trained, tmp_path):
    run = tmp_path / "run"
    # Without the two dashes torchrun takes --run for its own --run-path, wherever it is.
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "--", "raysk.cli", "train"]
    done = subprocess.run(
        [sys.executable, *words, str(printed), "--run", str(run)], capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Leaderboard: 1 row") == 1, "only the main rank prints"
    assert done.stdout.count("1 workers trained the row, but this run has 2") == 1
    (key,) = keys(Run.open(run))
    record = Run.open(run).record(Job(Run.open(run).recipe(key), 0))
    assert record.workers == 2
    alone, together = (Run.open(folder).predictions(key, 0).mean() for folder in (trained.folder, run))
    # Without batch norm in this network, only the order of sums differs.
    np.testing.assert_allclose(together, alone, atol=0.02)


def test_several_seeds_give_a_row_each_and_the_spread_of_their_scores(trained, printed, file, tmp_path, capfd):
    run = tmp_path / "seeds"
    # What one seed has trained is not trained again.
    shutil.copytree(trained.folder, run)
    assert main(["train", str(printed), "--run", str(run), "--resume", "--seeds", "3"]) == 0
    board = Leaderboard.read(run / "leaderboard.json")
    assert sorted(row.name for row in board.rows) == [f"mine, seed {seed}" for seed in (0, 1, 2)]
    by_seed = {row.name: row for row in board.rows}
    (alone,) = Leaderboard.read(trained.folder / "leaderboard.json").rows
    assert by_seed["mine, seed 0"].scores == alone.scores
    assert len({row.scores["oof_macro_auc"] for row in board.rows}) == 3
    (table,) = board.tables
    assert [line[:2] for line in table.cells[:2]] == [("macro-F1", "out of fold"), ("macro-F1", "test part")]
    values = np.array([row.scores["test_macro_f1"] for row in board.rows])
    assert table.cells[1][2:] == pytest.approx((values.mean(), values.std(ddof=1), values.min(), values.max()))
    assert "seed 2, fold 1 of 2, stage one, epoch 1 of 2" in capfd.readouterr().out
    assert {Run.open(run).recipe(row.key).seed for row in board.rows} == {0, 1, 2}


@pytest.mark.parametrize("seeds", [0, -1, 101])
def test_a_number_of_seeds_that_makes_no_sense_is_refused(printed, seeds, capfd):
    error = refused(["train", printed, "--seeds", seeds], capfd)
    assert error == f"--seeds must be in [1, 100], but got {seeds}: give the number of training seeds"
