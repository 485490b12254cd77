"""A run as data frames: they give the scores of the leaderboard, and the example in docs/notebook.md runs."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import raysk
from raysk.artifacts import read_json, write_json
from raysk.cli.main import main
from raysk.data.folds.dividing import FoldSettings, make_folds
from raysk.data.manifest import make_manifest
from raysk.evaluation.ensemble import AVERAGE, GREEDY, Ensemble, Member
from raysk.evaluation.leaderboard import Leaderboard
from raysk.evaluation.metrics import parse_metric
from raysk.evaluation.predictions import Predictions
from raysk.notebook import RunResults
from raysk.recipe import Job, Recipe
from raysk.run import Run
from raysk.scoring import NOTHING, read_held_out
from raysk.search.candidates import Candidate
from raysk.search.results import read_entries, result_rows, select_ensemble, write_results
from raysk.training.job import run_job
from raysk.training.world import World
from tests.run_facts import run_facts

ROOT = Path(__file__).parents[1]
RECIPES = {
    "supcon": {"test_views": "dihedral"},
    "kept": {"test_views": "dihedral", "stage_two.epochs": 3},
    "focal: paper": {
        "stage_one": None, "stage_two.frozen": False, "stage_two.epochs": 1, "stage_two.loss": {"name": "focal"},
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def recipes(small_recipe):
    return {name: Recipe.from_plain(small_recipe(changes)) for name, changes in RECIPES.items()}


@pytest.fixture(scope="module")
def study(tmp_path_factory, cache, manifest, folds, recipes):
    """A run with three trained recipes, of which "kept" has no row, and with both ensembles."""
    facts = run_facts(manifest, folds, cache, repeating_command="raysk tune")
    run = Run.create(tmp_path_factory.mktemp("study") / "run", manifest, folds, facts)
    alone = World(0, 1, torch.device("cpu"))
    for recipe in recipes.values():
        run.keep_recipe(recipe)
        for fold in range(len(folds)):
            for job in (Job(recipe, fold), Job(recipe, fold).for_test()):
                run_job(job, run, alone, lambda progress: None)
    candidates = [Candidate(recipe, name, "", (), NOTHING, has_row=name != "kept") for name, recipe in recipes.items()]
    ensemble, crossed = select_ensemble(run, [read_held_out(run, candidate.recipe.key) for candidate in candidates])
    write_results(run, result_rows(run, read_entries(run, candidates), ensemble, crossed), {})
    return run


@pytest.fixture(scope="module")
def results(study):
    return raysk.open_run(study.folder)


def probabilities(frame, results):
    return frame[list(results.class_names)].to_numpy()


def codes(frame, results):
    return np.array([results.class_names.index(label) for label in frame["label"]])


def test_the_board_has_a_line_for_each_row_under_its_place(results, study):
    rows = Leaderboard.read(study.folder / "leaderboard.json").rows
    board = results.board()
    assert (board.index.name, board.index.tolist()) == ("place", [1, 2, 3, 4])
    assert board["key"].tolist() == [row.key for row in rows]
    assert board["test_macro_f1"].tolist() == [row.scores["test_macro_f1"] for row in rows]
    csv = pd.read_csv(study.folder / "leaderboard.csv")
    assert board.columns.tolist() == csv.columns.tolist()


def test_a_row_is_found_by_place_name_and_key(results):
    board = results.board()
    for place, name, key in zip(board.index, board["name"], board["key"], strict=True):
        for wanted in (place, np.int64(place), str(place), name, key, key[:10]):
            row = results.row(wanted)
            assert (row.name, row["name"], row["key"]) == (place, name, key)


@pytest.mark.parametrize("name", ["supcon", "focal: paper", GREEDY, AVERAGE])
def test_the_test_part_gives_the_test_score_of_the_board(name, results, study):
    frame = results.test_part(name)
    assert frame.index.tolist() == study.folds.test_rows.tolist()
    assert frame.columns.tolist() == ["image", "group", "label", *results.class_names]
    score = parse_metric("macro_f1")(probabilities(frame, results), codes(frame, results))
    assert score == results.row(name)["test_macro_f1"]


@pytest.mark.parametrize("name", ["supcon", "focal: paper", AVERAGE])
def test_the_out_of_fold_frame_gives_the_out_of_fold_score_of_the_board(name, results):
    """The greedy ensemble is missing here: the board has its cross-fitted score."""
    frame = results.out_of_fold(name)
    scores = [
        parse_metric("macro_f1")(probabilities(part, results), codes(part, results))
        for _, part in frame.groupby("fold")
    ]
    assert np.mean(scores) == results.row(name)["oof_macro_f1"]


def files_of(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("metric", ["kappa", "log_loss", "macro_auc", "sensitivity@{0}", "pauc@{0}:0.80"])
def test_a_run_is_ranked_anew_by_another_metric_from_its_predictions(metric, results, study):
    metric = parse_metric(metric.format(study.manifest.class_names[0]), study.manifest.class_names)
    before = files_of(study.folder)
    board = results.board(metric=metric.name)
    assert files_of(study.folder) == before
    assert set(board["key"]) == set(results.board()["key"])
    for name in ("supcon", "focal: paper", GREEDY, AVERAGE):
        frame, row = results.test_part(name), board[board["name"] == name].iloc[0]
        assert row[f"test_{metric.name}"] == metric(probabilities(frame, results), codes(frame, results))
        assert row["test_macro_f1"] == results.row(name)["test_macro_f1"]
        assert row["oof_macro_f1"] == pytest.approx(results.row(name)["oof_macro_f1"], abs=1e-9)
        if name != GREEDY:
            frame = results.out_of_fold(name)
            by_fold = [metric(probabilities(part, results), codes(part, results)) for _, part in frame.groupby("fold")]
            assert row[f"oof_{metric.name}"] == pytest.approx(np.mean(by_fold))
    assert board.columns[5] == f"test_{metric.name}"
    scores = board[f"oof_{metric.name}"].tolist()
    assert scores == sorted(scores, reverse=metric.larger_is_better)


def test_the_command_line_ranks_anew_and_prints_every_format(results, study, capsys):
    for format in ("md", "csv", "tex", "html"):
        assert main(["leaderboard", str(study.folder), "--metric", "log_loss", "--format", format]) == 0
        assert "log" in capsys.readouterr().out
    assert main(["leaderboard", str(study.folder), "--metric", "log_loss", "--format", "json"]) == 0
    board = json.loads(capsys.readouterr().out)
    assert board["metric"] == "log_loss"
    assert [row["key"] for row in board["rows"]] == results.board(metric="log_loss")["key"].tolist()
    assert board["meta"]["ranked anew"] == "by log loss; the study searched by macro-F1"
    assert main(["leaderboard", str(study.folder), "--metric", "macro_f1", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["metric"] == "macro_f1"


@pytest.mark.parametrize(
    ("metric", "message"),
    [("auc@nobody", "the class in 'auc@nobody' must be a known name"), ("log-loss", "did you mean log_loss"),
     ("", "metric must be a known name"), ("pauc@{0}:80", r"must be in [0, 1), but got 80")],
)  # fmt: skip
def test_a_metric_that_cannot_rank_the_run_is_refused_in_one_line(metric, message, study, capsys):
    assert main(["leaderboard", str(study.folder), "--metric", metric.format(study.manifest.class_names[0])]) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.count("\n") == 1


def test_predictions_have_image_group_label_and_fold_of_their_row(results, study, manifest):
    frame = results.out_of_fold("supcon")
    assert frame.index.name == "row"
    assert len(frame) == sum(len(study.folds.held_out_rows(fold)) for fold in (0, 1))
    for row, line in frame.iterrows():
        assert line["image"] == manifest.table.column("image")[row].as_py()
        assert line["group"] == manifest.table.column("group")[row].as_py()
        assert line["label"] == manifest.class_names[manifest.labels[row]]
        assert line["fold"] == study.folds.fold[row]
        of_fold = study.predictions(results.row("supcon")["key"], line["fold"])
        expected = of_fold.probabilities[:, of_fold.rows.tolist().index(row)].mean(axis=0)
        np.testing.assert_array_equal(line[list(results.class_names)].to_numpy(np.float32), expected)


@pytest.mark.parametrize(("name", "file"), [(GREEDY, "ensemble.json"), (AVERAGE, "ensemble_average.json")])
def test_an_ensemble_is_the_mean_of_its_members_with_their_weights(name, file, results, study):
    members = results.members(name)
    written = read_json(study.folder / file)["members"]
    assert members[["recipe", "view", "weight"]].to_dict("records") == [
        {"recipe": member["recipe_key"], "view": member["view"], "weight": member["weight"]} for member in written
    ]
    assert members["share"].sum() == pytest.approx(1)
    total = 0.0
    for member in members.itertuples():
        parts = [study.predictions(member.recipe, fold, "test") for fold in (0, 1)]
        mean = np.mean([part.probabilities[part.views.index(member.view)] for part in parts], axis=0)
        total = total + member.weight * mean
    frame = results.test_part(name)
    np.testing.assert_allclose(probabilities(frame, results), total / members["weight"].sum(), rtol=1e-5)
    np.testing.assert_allclose(probabilities(results.out_of_fold(name), results).sum(axis=1), 1, rtol=1e-5)


def test_members_carry_the_name_of_their_row(results, study, recipes, tmp_path):
    names = dict(zip(results.members(AVERAGE)["recipe"], results.members(AVERAGE)["name"], strict=True))
    assert names == {recipes[name].key: name for name in ("supcon", "focal: paper")}
    copy = copied(study, tmp_path)
    path = copy.ensemble_file(GREEDY)
    greedy = Ensemble.read(path)
    replace(greedy, members=(Member(recipes["kept"].key, "identity"),), weights=(3,)).write(path)
    frame = RunResults(copy).members()
    assert frame.to_dict("records") == [
        {"recipe": recipes["kept"].key, "name": "", "view": "identity", "weight": 3, "share": 1.0}
    ]


def copied(study, folder):
    """A run beside the study that shares its files, except the leaderboard and the ensembles."""
    (folder / "run").mkdir()
    for path in study.folder.iterdir():
        if path.is_dir() or path.suffix == ".parquet":
            (folder / "run" / path.name).symlink_to(path)
        else:
            (folder / "run" / path.name).write_bytes(path.read_bytes())
    return Run.open(folder / "run")


def test_the_recipe_of_a_row_is_the_recipe_that_it_trained(results, recipes):
    assert results.recipe("focal: paper") == recipes["focal: paper"]
    assert results.recipe("focal: paper").to_plain()["stage_two"]["loss"]["name"] == "focal"


def test_curves_have_each_epoch_of_each_stage_and_fold(results, study, recipes):
    frame = results.curves("supcon")
    assert frame.columns.tolist() == [
        "fold", "stage", "epoch", "loss", "probe", "linear_probe", "neighbour_probe", "alignment", "uniformity",
        "effective_rank",
    ]  # fmt: skip
    expected = [(fold, stage, epoch) for fold in (0, 1) for stage in ("stage one", "stage two") for epoch in (1, 2)]
    assert list(frame[["fold", "stage", "epoch"]].itertuples(index=False, name=None)) == expected
    record = study.record(Job(recipes["supcon"], 1))
    of_fold = frame[frame["fold"] == 1].set_index(["stage", "epoch"])
    assert of_fold.loc["stage one", "loss"].tolist() == list(record.stage_one.losses)
    assert of_fold.loc["stage two", "loss"].tolist() == list(record.stage_two.losses)
    assert of_fold.loc["stage one", "probe"].tolist() == [health.probe for health in record.stage_one.health]
    assert of_fold.loc["stage two", "probe"].isna().all()
    assert results.curves("focal: paper")["stage"].unique().tolist() == ["stage two"]
    assert (frame.dtypes.loc["loss":] == np.float64).all()


def test_a_recipe_without_a_row_is_named_by_its_whole_key(results, recipes):
    key = recipes["kept"].key
    assert len(results.out_of_fold(key)) == len(results.out_of_fold(1))
    assert len(results.test_part(key)) == len(results.test_part(1))
    assert results.recipe(key) == recipes["kept"]
    assert len(results.curves(key)) == 2 * (2 + 3)
    with pytest.raises(raysk.RayskError, match="ROW must be a place, a name or a key"):
        results.row(key)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda results: results.row(9), "ROW must be a place, a name or a key of one row, but got '9'"),
        (lambda results: results.row(0), "got '0'"),
        (lambda results: results.row(-1), "got '-1'"),
        (lambda results: results.row(1.0), "ROW must be a place, a name or a key, but got a float"),
        (lambda results: results.row(None), "but got a NoneType"),
        (lambda results: results.row(True), "but got a bool"),
        (lambda results: results.curves(results.board().iloc[0]), "but got a Series: give a number or text"),
        (lambda results: results.out_of_fold("../recipes"), "ROW must be a place"),
        (lambda results: results.test_part("x" * 999), "ROW must be a place"),
        (lambda results: results.recipe(GREEDY), "ROW must be a single recipe, but 'ensemble: greedy' averages"),
        (lambda results: results.curves(AVERAGE), "ROW must be a single recipe"),
        (lambda results: results.members("supcon"), "ROW must be an ensemble"),
    ],
)
def test_a_wrong_row_is_an_error_of_one_line(ask, message, results):
    with pytest.raises(raysk.RayskError, match=message) as caught:
        ask(results)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        (lambda study: study.folder.parent, r"run\.json must exist"),
        (lambda study: study.folder / "leaderboard.json", r"run\.json must exist"),
        (lambda study: study.folder / "nowhere", r"run\.json must exist"),
        (lambda study: "s3://bucket/run", "must be a local folder, but got 's3://bucket/run': copy it"),
    ],
)
def test_a_wrong_folder_is_an_error_of_one_line(folder, message, study):
    with pytest.raises(raysk.RayskError, match=message) as caught:
        raysk.open_run(folder(study))
    assert "\n" not in str(caught.value)


def test_a_home_folder_may_be_written_with_a_tilde(study, monkeypatch):
    monkeypatch.setenv("HOME", str(study.folder.parent))
    assert raysk.open_run("~/run").folder == study.folder


def test_a_study_that_has_not_ended_has_no_board_but_finished_recipes(study, recipes, small_recipe, tmp_path):
    copy = copied(study, tmp_path)
    (copy.folder / "leaderboard.json").unlink()
    results = RunResults(copy)
    with pytest.raises(raysk.RayskError, match=r"leaderboard\.json must exist, but the study has not ended"):
        results.board()
    assert len(results.out_of_fold(recipes["supcon"].key))
    (copy.folder / "recipes").unlink()
    begun = Recipe.from_plain(small_recipe({"seed": 7}))
    copy.keep_recipe(begun)
    with pytest.raises(raysk.RayskError, match="must have a finished fold to have curves"):
        results.curves(begun.key)
    with pytest.raises(raysk.RayskError, match="must have predicted the held-out rows, but fold 0 of recipe"):
        results.out_of_fold(begun.key)
    with pytest.raises(raysk.RayskError, match="must have predicted the test rows"):
        results.test_part(begun.key)


def test_a_class_that_is_called_like_a_column_keeps_its_probabilities(tmp_path, cache, small_recipe):
    names = ["label", "p(label)", "fold", "image"]
    manifest = make_manifest([f"{row}.png" for row in range(48)], names * 12, root=tmp_path, class_names=names)
    folds = make_folds(manifest, FoldSettings(k=2, test_share=0.25))
    run = Run.create(tmp_path / "run", manifest, folds, run_facts(manifest, folds, cache))
    recipe = Recipe.from_plain(small_recipe())
    run.keep_recipe(recipe)
    for part in ("held_out", "test"):
        for fold in (0, 1):
            rows = folds.scored_rows(fold, part)
            Predictions.of_fold(
                manifest, folds, fold=fold, part=part, recipe_key=recipe.key, views=["identity"],
                probabilities=np.eye(4, dtype=np.float32)[None, manifest.labels[rows]], class_names=run.class_names,
            ).write(run.predictions_file(recipe.key, fold, part))  # fmt: skip
    results = raysk.open_run(run.folder)
    frame = results.out_of_fold(recipe.key)
    assert frame.columns.tolist() == [
        "image", "group", "label", "fold", "p(p(label))", "p(label)", "p(fold)", "p(image)",
    ]  # fmt: skip
    assert (frame["p(p(label))"] == (frame["label"] == "label")).all()
    assert (frame["p(label)"] == (frame["label"] == "p(label)")).all()
    assert results.test_part(recipe.key).columns.tolist()[3:] == ["p(p(label))", "p(label)", "fold", "p(image)"]


def test_a_changed_frame_changes_no_later_one(results):
    first = results.board()
    first.loc[:, "name"] = "mine"
    del first["key"]
    assert results.row(1)["name"] != "mine"


def test_results_are_read_without_torch_and_ray(study):
    script = f"""
import sys, raysk
run = raysk.open_run({str(study.folder)!r})
run.board(), run.board(metric="kappa")
run.row(1), run.out_of_fold(1), run.test_part({GREEDY!r}), run.members(), run.curves("supcon")
print(sorted({{"torch", "ray", "timm", "optuna", "sklearn", "albumentations"}} & set(sys.modules)))
run.recipe("supcon")
print("ray" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:2] == ["[]", "False"]


def test_the_example_in_the_documentation_runs(study, tmp_path, monkeypatch):
    page = (ROOT / "docs" / "notebook.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 2
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "first").symlink_to(study.folder)
    monkeypatch.chdir(tmp_path)
    seen = {}
    for block in blocks:
        exec(block, seen)
    assert seen["confusion"].to_numpy().sum() == len(seen["frame"])
    assert seen["losses"].notna().any(axis=None)
    assert set(seen["worst"]) <= set(seen["test"]["image"])
    assert seen["classes"] == list(study.manifest.class_names)
    assert json.dumps(seen["recipe"].to_plain())


def test_a_run_of_another_schema_is_refused(study, tmp_path):
    copy = copied(study, tmp_path)
    write_json(copy.folder / "run.json", read_json(copy.folder / "run.json") | {"schema": "3.1"})
    with pytest.raises(raysk.RayskError, match=r"must be a run of schema \d+\.\d+, but"):
        raysk.open_run(copy.folder)
