"""`raysk explain RUN --all`: the attention of all rows of a finished run, as columns of its leaderboard."""

import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from raysk.cli.main import main
from raysk.evaluation.attention_record import ATTENTION_FILE, AttentionRecord
from raysk.evaluation.ensemble import AVERAGE, GREEDY
from raysk.evaluation.leaderboard import Leaderboard
from raysk.inference.board_explaining import explain_board, explain_test_part
from raysk.inference.explaining import Explainer
from raysk.inference.packing import pack_row
from raysk.inference.predictor import Predictor
from raysk.recipe import Job, Recipe
from raysk.run import Run
from raysk.scoring import NOTHING
from raysk.search.candidates import Candidate
from raysk.search.results import read_entries, result_rows, select_ensemble, write_results
from raysk.training.job import run_job
from raysk.training.world import World

# Maps of 4 by 4 positions; a row that sees cropped pictures has no bundle.
WITH_MAPS = {"stage_one": None, "stage_two.frozen": False, "model.backbone": "test_resnet", "model.output_stride": 8}
ROWS = {"looks": {}, "longer": {"stage_two.epochs": 3}, "cropped": {"crop": {"region": "box"}}}


@pytest.fixture(scope="module")
def trained(tmp_path_factory, new_run, small_recipe):
    run = new_run(tmp_path_factory.mktemp("looking") / "run")
    alone, entries = World(0, 1, torch.device("cpu")), []
    for name, changes in ROWS.items():
        recipe = Recipe.from_plain(small_recipe({**WITH_MAPS, **changes}))
        run.keep_recipe(recipe)
        for fold in range(len(run.folds)):
            for job in (Job(recipe, fold), Job(recipe, fold).for_test()):
                run_job(job, run, alone, lambda progress: None)
        entries += read_entries(run, [Candidate(recipe, name, "", (), NOTHING)])
    ensemble, crossed = select_ensemble(run, [entry.held_out for entry in entries[:2]])
    rows = result_rows(run, entries, ensemble, crossed)
    write_results(run, rows, {}, chosen=entries[0].candidate.recipe.key)
    return run


@pytest.fixture(scope="module")
def explained(trained, tmp_path_factory):
    """A copy of the run whose rows are explained, and the progress that was told."""
    folder, told = tmp_path_factory.mktemp("explained") / "run", []
    shutil.copytree(trained.folder, folder)
    run = Run.open(folder)
    explain_board(run, "cpu", lambda *done: told.append(done))
    return run, told


def record_of(run):
    return AttentionRecord.read(run.folder / ATTENTION_FILE), Leaderboard.read(run.folder / "leaderboard.json")


def test_all_rows_get_the_scores_that_each_has_alone(explained, tmp_path):
    run, told = explained
    record, board = record_of(run)
    keys = {row.name: row.key for row in board.rows}
    assert set(record.scores) == {keys[name] for name in ("looks", "longer", GREEDY)}
    assert set(record.left_out) == {keys["cropped"], keys[AVERAGE]}
    assert "crop.region=box" in record.left_out[keys["cropped"]]
    assert told[-1][0] <= told[-1][1] == len(board.rows) * len(run.folds.test_rows)
    assert record.num_lesions == record.num_images == len(run.folds.test_rows)
    table = explain_test_part(Explainer(Predictor(pack_row(run, "longer"), "cpu")), run, tmp_path / "looks")
    scores = next(row.scores for row in board.rows if row.name == "longer")
    energy, pointing = scores["test_attention_energy"], scores["test_attention_pointing"]
    assert f"| all | {record.num_lesions} | {energy:.3f} | {pointing:.3f} | {record.area:.3f} |" in table


def test_the_page_has_the_errors_of_the_chosen_row_in_small_pictures(explained):
    run, _ = explained
    record, board = record_of(run)
    assert record.errors_of == board.chosen
    rows = run.folds.test_rows
    predictor = Predictor(pack_row(run, board.chosen), "cpu")
    probabilities = predictor.predict_proba([str(run.manifest.paths[row]) for row in rows])
    labels = run.manifest.labels[rows]
    for truth in np.unique(labels):
        said = probabilities[labels == truth]
        wrong = sorted(said.max(axis=1)[said.argmax(axis=1) != truth].tolist(), reverse=True)
        of_class = [e.probability for e in record.errors if e.label == run.manifest.class_names[truth]]
        assert of_class == pytest.approx(wrong[:4], abs=1e-6)
    pictures = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', (run.folder / "leaderboard.html").read_text())
    assert pictures == [error.picture for error in record.errors]
    assert max(map(len, pictures)) < 40_000


def test_what_is_done_is_not_done_again_and_the_board_shows_it(explained, capsys):
    run, _ = explained
    before, _ = record_of(run)
    (run.folder / "leaderboard.csv").unlink()
    assert main(["explain", str(run.folder), "--all", "--device", "cpu"]) == 0
    printed, num = capsys.readouterr().out, len(run.folds.test_rows)
    assert f"the attention of 3 rows on {num} of {num} images with masks" in printed
    assert "images/s" not in printed and record_of(run)[0] == before
    assert "test_attention_energy" in (run.folder / "leaderboard.csv").read_text()
    assert main(["leaderboard", str(run.folder), "--metric", "accuracy"]) == 0
    assert "## Attention inside the lesion on the test part" in capsys.readouterr().out


def test_without_masks_the_page_has_the_errors_alone(trained, tmp_path):
    shutil.copytree(trained.folder, tmp_path / "run")
    manifest = trained.manifest
    replace(manifest, table=manifest.table.drop_columns(["mask"])).write(tmp_path / "run" / "manifest.parquet")
    run = Run.open(tmp_path / "run")
    assert explain_board(run, "cpu").num_lesions == 0
    record, board = record_of(run)
    assert record.errors and set(record.scores) == {board.chosen}
    assert "test_attention" not in (run.folder / "leaderboard.csv").read_text()
    assert "Most confident errors of looks" in (run.folder / "leaderboard.html").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--all", "--row", "1"], "--all must be given with a run and nothing else to explain, but got row as well"),
        (["--all", "photograph.png"], "but got images as well: leave it out"),
        (["--all", "--device", "nowhere"], "device must be one of this machine, such as cpu or cuda, but got nowhere"),
        ([], "--output must be a new folder, but got none: choose a name, or explain a run with --all"),
    ],
)
def test_a_users_mistake_is_one_line(trained, capsys, words, message):
    assert main(["explain", str(trained.folder), *words]) == 2
    assert message in capsys.readouterr().err
    assert not (trained.folder / ATTENTION_FILE).exists()


def test_all_rows_are_those_of_a_run(tmp_path, capsys):
    assert main(["explain", str(tmp_path / "a.raysk"), "--all"]) == 2
    assert "a.raysk, which is no folder" in capsys.readouterr().err
