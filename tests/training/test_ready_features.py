"""Features of an encoder that came ready: encoded once for all folds and studies, and equal to those by hand."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from raysk.errors import ArtifactError
from raysk.parts.backbones import create_backbone
from raysk.recipe import Job
from raysk.spaces.space import load_space
from raysk.training.features import FrozenFeatures
from raysk.training.job import run_job
from raysk.training.linear_start import linear_start
from raysk.training.ready_features import ReadyFeatures
from raysk.training.stage_one import load_encoder
from raysk.training.stage_two_search.search import search_stage_two


def write_weights(path, seed):
    torch.manual_seed(seed)
    save_file(create_backbone("test_convnext", False, None).network.state_dict(), path)


@pytest.fixture
def probe(make_job, tmp_path, request):
    """A job with weights that no other test has."""
    path = tmp_path / "test_convnext.safetensors"
    write_weights(path, abs(hash(request.node.name)) % 2**31)
    return make_job({"stage_one": None, "model.checkpoint": str(path)})


class Counting:
    """Loads encoders, and counts how often."""

    def __init__(self):
        self.times = 0

    def __call__(self, job, run):
        self.times += 1
        return load_encoder(job, run)


def by_hand(job, run, rows):
    encoder = load_encoder(job, run).eval()
    images = torch.from_numpy(np.array(run.store(32).pixels[rows]))
    with torch.no_grad():
        return encoder(images)


def close(one, two):
    torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-4)


def test_every_part_of_every_fold_is_cut_out_of_one_encoding(probe, run, alone):
    load = Counting()
    for fold in range(len(run.folds)):
        job = replace(probe, fold=fold)
        features = FrozenFeatures(job, run, alone, load)
        close(features.part("held_out")[0], by_hand(job, run, run.folds.held_out_rows(fold)))
        close(features.part("test")[0], by_hand(job, run, run.folds.test_rows))
        close(features.training("none", 1)[0], by_hand(job, run, run.folds.train_rows(fold)))
    assert load.times == 1
    assert not (run.folder / "features").exists(), "the cache keeps them, for all runs"


def test_another_study_reads_them_and_another_pooling_or_file_encodes_anew(probe, run, new_run, tmp_path, alone):
    load = Counting()
    first = FrozenFeatures(probe, run, alone, load).part("held_out")
    other = new_run(tmp_path / "other")
    assert torch.equal(FrozenFeatures(probe, other, alone, load).part("held_out"), first)
    assert load.times == 1
    model = replace(probe.recipe.model, pooling="gem", layers=2)
    wide = FrozenFeatures(replace(probe, recipe=replace(probe.recipe, model=model)), run, alone, load)
    assert wide.part("held_out").shape[2] > first.shape[2]
    assert load.times == 2
    model = replace(probe.recipe.model, precision="bfloat16")
    half = FrozenFeatures(replace(probe, recipe=replace(probe.recipe, model=model)), run, alone, load)
    assert half.part("held_out").dtype is torch.float32
    assert load.times == 3
    write_weights(probe.recipe.model.file, 1)
    assert not torch.equal(FrozenFeatures(probe, run, alone, load).part("held_out"), first)
    assert load.times == 4


def test_drawn_views_depend_on_the_seed_and_plain_ones_do_not(probe, run, alone):
    load = Counting()
    seeded = replace(probe, recipe=replace(probe.recipe, seed=1))
    plain = [FrozenFeatures(job, run, alone, load).training("none", 1) for job in (probe, seeded)]
    assert torch.equal(*plain)
    assert load.times == 1
    drawn = [FrozenFeatures(job, run, alone, load).training("light", 2) for job in (probe, seeded)]
    assert not torch.equal(*drawn)
    assert not torch.equal(drawn[0][0], drawn[0][1])


def test_two_jobs_at_once_encode_once(probe, run, alone):
    load = Counting()
    jobs = [replace(probe, fold=fold) for fold in (0, 1)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda job: FrozenFeatures(job, run, alone, load).training("none", 1), jobs))
    assert load.times == 1


def test_a_damaged_file_is_refused(probe, run, alone):
    FrozenFeatures(probe, run, alone, load_encoder).part("held_out")
    kept = ReadyFeatures.of(probe.recipe, "identity", run.store(32), run, alone)
    kept.path.write_bytes(kept.path.read_bytes()[:-100])
    with pytest.raises(ArtifactError, match=r"must hold features of all rows, but .*: remove it"):
        FrozenFeatures(probe, run, alone, load_encoder).part("held_out")
    kept.path.unlink()


@pytest.mark.parametrize("head", ["linear", "cosine", "lws", "disalign", "tau_norm", "ncm"])
def test_every_head_trains_on_a_ready_encoder(head, make_job, probe, run, alone):
    changes = {"stage_one": None, "model.checkpoint": probe.recipe.model.checkpoint, "stage_two.head": {"name": head}}
    job = make_job(changes)
    run_job(job, run, alone, lambda progress: False)
    run_job(job.for_test(), run, alone, lambda progress: False)
    assert run.record(job).score is not None
    assert len(run.predictions(job.recipe.key, 0, "test").rows) == len(run.folds.test_rows)


def test_the_start_of_lws_is_fitted_to_the_features_of_the_fold(probe, run, alone):
    weight, bias = linear_start(probe, run, alone)
    rows = run.folds.train_rows(0)
    logits = by_hand(probe, run, rows) @ weight.T + bias
    accuracy = (logits.argmax(dim=1).numpy() == run.manifest.labels[rows]).mean()
    assert accuracy > np.bincount(run.manifest.labels[rows]).max() / len(rows)
    assert not torch.equal(linear_start(replace(probe, fold=1), run, alone)[0], weight)


def test_the_batch_norm_of_a_ready_encoder_can_follow_the_images(make_job, run, alone, tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "resnet.safetensors"
    save_file(create_backbone("test_resnet", False, None).network.state_dict(), path)
    model = {"backbone": "test_resnet", "checkpoint": str(path)}
    job = make_job({"stage_one": None, "model": model, "stage_two.shift_batch_norm": True})
    run_job(job, run, alone, lambda progress: False)
    assert run.record(job).score is not None


def test_a_search_of_stage_two_encodes_once_for_all_settings_and_folds(probe, run, alone):
    space = load_space(
        "probe",
        [
            f"model.checkpoint={probe.recipe.model.checkpoint}", "model.backbone=test_convnext", "image_size=32",
            "stage_two.search=8", "stage_two.epochs=2",
        ],
    )  # fmt: skip
    point = space.starts()[0]
    search = space.stage_two_search(point)
    assert search is not None
    search_stage_two(search, run, alone, lambda progress: False)
    record = run.search(search.id)
    assert len(record.tried) == 8
    files = {path.name for path in (run.cache / "features").glob("*.safetensors")}
    assert f"{ReadyFeatures.of(search.recipe, 'identity', run.store(32), run, alone).key}.safetensors" in files


def test_one_lane_has_a_ready_encoder_at_a_time_whatever_the_fold(probe):
    names = {replace(probe, fold=fold).trained_encoder for fold in range(3)}
    assert names == {probe.recipe.encoder_key}
    assert Job(probe.recipe, 0).for_test().trained_encoder is None
