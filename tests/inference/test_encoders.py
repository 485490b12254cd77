"""The encoder of a row as weights for other studies, and a probe's whole life: jobs, refit, bundle, encoder."""

from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import save_file

from raysk.cli.main import main
from raysk.data.folds.assignment import WHOLE
from raysk.data.seen import Identities
from raysk.errors import ArtifactError
from raysk.evaluation.ensemble import GREEDY
from raysk.evaluation.leaderboard import Leaderboard
from raysk.inference.encoders import encoder_of_row
from raysk.inference.packing import pack_row
from raysk.inference.predictor import Predictor
from raysk.parts.backbones import create_backbone
from raysk.parts.weights import read_weights
from raysk.recipe import Job, Recipe
from raysk.refitting import refit
from raysk.scoring import NOTHING, read_test
from raysk.search.candidates import Candidate
from raysk.search.results import read_entries, result_rows, select_ensemble, write_results
from raysk.training.job import run_job
from raysk.training.stage_one import load_encoder
from raysk.training.world import World
from tests.command_line import refused, said

ALONE = World(0, 1, torch.device("cpu"))


def recipe_of(run, name):
    rows = Leaderboard.read(run.folder / "leaderboard.json").rows
    return run.recipe(next(row.key for row in rows if row.name == name))


def test_the_encoder_of_a_fold_fills_another_network_and_says_what_it_has_seen(finished_run, tmp_path, capfd):
    output = tmp_path / "linear.safetensors"
    text = said(["encoder", finished_run.folder, "linear", "--fold", "1", "--output", output], capfd)
    assert "the test_convnext of linear, of fold 1" in text
    assert f"raysk tune --space probe model.backbone=test_convnext model.checkpoint={output}" in text
    encoder = load_encoder(Job(recipe_of(finished_run, "linear"), 1), finished_run)
    filled = create_backbone("test_convnext", False, output)
    for name, tensor in encoder.backbone.network.state_dict().items():
        assert torch.equal(filled.network.state_dict()[name], tensor), name
    origin = read_weights(output).origin
    assert (origin.fold, origin.row, origin.image_size, origin.published) == (1, "linear", 32, False)
    assert origin.manifest == finished_run.manifest.digest
    expected = Identities(finished_run.manifest).seen(finished_run.folds.train_rows(1))
    assert set(origin.pictures) == expected.pictures
    assert set(origin.groups) == expected.groups


def test_an_encoder_that_the_folds_chose_has_seen_them_all(finished_run):
    tensors, origin = encoder_of_row(finished_run, "end to end", 0)
    expected = Identities(finished_run.manifest).seen(finished_run.folds.train_rows(WHOLE))
    assert set(origin.pictures) == expected.pictures
    assert origin.backbone == "test_resnet"
    assert "fc.weight" not in tensors


def test_wrong_requests_are_refused_in_one_line(finished_run, tmp_path, capfd):
    run, output = finished_run.folder, tmp_path / "x.safetensors"
    error = refused(["encoder", run, "linear", "--output", output], capfd)
    assert "'linear' has 2, one for each fold: train one on all rows with raysk refit" in error
    assert "or give --fold 0" in error
    assert "ROW must be a single recipe" in refused(["encoder", run, GREEDY, "--output", output], capfd)
    assert "--fold must be in [0, 1], but got 2" in refused(
        ["encoder", run, "linear", "--fold", "2", "--output", output], capfd
    )
    assert "--output must end in .safetensors" in refused(["encoder", run, "linear", "--output", "x.pt"], capfd)
    output.write_bytes(b"")
    assert "--output must be a new file" in refused(["encoder", run, "linear", "--output", output], capfd)


@pytest.fixture(scope="module")
def probed(tmp_path_factory, new_run, small_recipe):
    """A finished run of one probe, on published weights as far as anybody knows."""
    folder = tmp_path_factory.mktemp("probed")
    torch.manual_seed(5)
    save_file(create_backbone("test_convnext", False, None).network.state_dict(), folder / "test_convnext.safetensors")
    run = new_run(folder / "run")
    changes = {"stage_one": None, "model.weights": str(folder), "model.pooling": "gem", "model.layers": 2}
    recipe = Recipe.from_plain(small_recipe({"test_views": "dihedral", **changes}))
    run.keep_recipe(recipe)
    for fold in range(len(run.folds)):
        for job in (Job(recipe, fold), Job(recipe, fold).for_test()):
            run_job(job, run, ALONE, lambda progress: False)
    entries = read_entries(run, [Candidate(recipe, "probe", "", (), NOTHING)])
    ensemble, crossed = select_ensemble(run, [entry.held_out for entry in entries])
    write_results(run, result_rows(run, entries, ensemble, crossed), {})
    return run


def test_a_bundle_of_a_probe_has_its_encoder_once_and_predicts_what_the_run_did(probed):
    bundle = pack_row(probed, "probe")
    assert len(bundle.facts.encoders) == 1
    assert len(bundle.facts.heads) == len(probed.folds)
    assert bundle.facts.provenance.kind == "probe"
    rows = probed.folds.test_rows
    paths = [str(probed.manifest.paths[row]) for row in rows]
    predicted = Predictor(bundle).predict_proba(paths)
    expected = read_test(probed, recipe_of(probed, "probe").key).mean()
    np.testing.assert_allclose(predicted, expected, atol=1e-5)


def test_a_probe_is_refitted_on_all_rows_and_its_encoder_stays(probed):
    refit(probed, "probe", Console(quiet=True), gpus=False)
    bundle = pack_row(probed, "probe", refitted=True)
    assert [head.fold for head in bundle.facts.heads] == [WHOLE]
    tensors, origin = encoder_of_row(probed, "probe")
    assert origin.published
    assert origin.pictures == ()
    given = read_weights(recipe_of(probed, "probe").model.file).tensors
    assert all(torch.equal(tensors[name], tensor) for name, tensor in given.items())


def test_a_ready_encoder_that_is_gone_is_refused_in_one_line(probed, tmp_path, monkeypatch, capfd):
    file = recipe_of(probed, "probe").model.file
    moved = file.rename(Path(tmp_path / "moved"))
    try:
        error = refused(["encoder", probed.folder, "probe", "--output", tmp_path / "x.safetensors"], capfd)
    finally:
        moved.rename(file)
    assert "is not a file: correct model.checkpoint or model.weights" in error
    assert main(["show", str(tmp_path / "none.raysk")]) == 2
    with pytest.raises(ArtifactError):
        encoder_of_row(probed, "nothing")
