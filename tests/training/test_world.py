"""Two workers give the numbers of one; all tests share one pair of processes, since starting it takes seconds."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import raysk
from raysk.parts.losses import EmbeddingLoss, losses
from raysk.training.checkpoints import ClassifierCheckpoint, EncoderCheckpoint
from raysk.training.job import run_job
from raysk.training.world import World, is_lost_contact
from tests.conftest import OF_MASKS

SCRIPT = Path(__file__).with_name("two_workers.py")
# Sums in another order differ by 1e-7; larger steps would amplify this within a few epochs.
TASKS = {
    "contrastive": {
        "test_views": "dihedral", "stage_one.epochs": 3, "stage_one.optimizer": {"lr": 0.01, "warmup": 0.2}
    },
    "unlabelled": {"stage_one.loss": {"name": "simclr"}, "label_share": 0.5},
    "pieces": {"stage_one.accumulate": 2, "stage_one.loss": {"name": "simclr"}, "stage_two.accumulate": 4},
    "one-stage": {
        "stage_one": None, "stage_two.frozen": False, "stage_two.epochs": 3, "stage_two.accumulate": 2,
        "stage_two.ema": 0.5, "stage_two.loss": {"name": "cross_entropy", "weights": "balanced"},
        "stage_two.sampler": {"name": "square_root"}, "stage_two.view": "light",
        "stage_two.optimizer": {"name": "sgd", "lr": 0.05},
    },
    "mixed": {
        "stage_one": None, "stage_two.frozen": False, "stage_two.epochs": 2, "stage_two.mixing": {"name": "remix"},
        "stage_two.adjustment": 1.0, "stage_two.optimizer": {"name": "sgd", "lr": 0.02},
        "stage_two.loss": {"name": "gcl"}, "stage_two.head": {"name": "cosine"},  # all ranks draw the same noise
    },
    "mixed stage one": {
        "stage_one.loss": None, "stage_one.classifier_loss": {"name": "cross_entropy"}, "stage_one.views": ["light"],
        "stage_one.mixing": {"name": "mixup"}, "stage_two.shift_batch_norm": True, "stage_two.head": {"name": "lws"},
        "stage_two.loss": {"name": "label_aware_smoothing"}, "stage_two.accumulate": 2,
    },
    "batch norm": {
        "model.backbone": "test_resnet", "stage_one.optimizer": {"lr": 0.0003},
        "stage_one.loss": {"name": "supcon", "temperature": 0.5},
        "stage_two": {"frozen": False, "epochs": 2, "batch_size": 16, "optimizer": {"name": "sgd", "lr": 0.0003}},
    },
    "gravis, end to end": {
        "model.backbone": "test_resnet", "stage_one.loss": {"name": "gravis"}, "stage_one.views": ["gravis"],
        "stage_one.copies": 3, "stage_one.normalise": False, "stage_one.optimizer": {"lr": 0.0003},
        "stage_two": {
            "frozen": False, "epochs": 2, "head_epochs": 1, "batch_size": 16,
            "optimizer": {"name": "sgd", "lr": 0.0003, "head_factor": 10.0, "layer_decay": 0.8},
        },
    },
    "care": {
        "image_size": 64, "model.backbone": "test_resnet", "stage_one.loss": None,
        "stage_one.classifier_loss": {"name": "cross_entropy"}, "stage_one.views": ["light"],
        "stage_one.optimizer": {"lr": 0.0003},
        "stage_two": {
            "frozen": False, "epochs": 2, "batch_size": 16, "view": "light", "head_epochs": 1,
            "attention": {"name": "care", "rare": 0.3, "distance": 0.2},
            "optimizer": {"name": "sgd", "lr": 0.0003, "head_factor": 10.0},
        },
    },
    "masks": {
        **OF_MASKS, "model.backbone": "test_resnet", "stage_two.head_epochs": 1,
        "stage_two.optimizer": {"name": "sgd", "lr": 0.003, "head_factor": 3.0},
    },
    "combined": {
        "stage_one.loss": {"name": "paco"}, "stage_one.classifier_loss": {"name": "balanced_softmax"},
        "stage_one.epochs": 2, "stage_one.optimizer": {"lr": 0.01}, "stage_two.head": {"name": "lws"},
    },
}  # fmt: skip

# The epochs after which a job is interrupted.
INTERRUPTED = {
    "contrastive": [("stage one", 1), ("stage one", 3), ("stage two", 1)],
    "gravis, end to end": [("stage one", 1), ("stage two", 1)],
}


@pytest.fixture(scope="module")
def jobs(make_job):
    return {name: make_job(changes) for name, changes in TASKS.items()}


@pytest.fixture(scope="module")
def new_runs(new_run, new_unlabelled_run, new_mask_run):
    """Returns what makes the run of a task."""
    makers = {"unlabelled": new_unlabelled_run, "masks": new_mask_run}
    return lambda name, folder: makers.get(name, new_run)(folder)


@pytest.fixture(scope="module")
def pair(tmp_path_factory, new_runs, jobs):
    """Returns the folder with the files of two workers."""
    folder = tmp_path_factory.mktemp("pair")
    tasks = [(name, job, []) for name, job in jobs.items()]
    tasks += [(f"{name}, interrupted", jobs[name], leave_after) for name, leave_after in INTERRUPTED.items()]
    for name, _, _ in tasks:
        new_runs(name, folder / name)
    plain = [{"folder": str(folder / name), "job": job.to_plain(), "leave_after": leave} for name, job, leave in tasks]
    (folder / "tasks.json").write_text(json.dumps(plain), encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(Path(raysk.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    logs = [(folder / f"log{rank}").open("w") for rank in range(2)]
    workers = [
        subprocess.Popen([sys.executable, str(SCRIPT), str(folder), str(rank)], env=environment, stdout=log, stderr=log)
        for rank, log in enumerate(logs)
    ]
    codes = [worker.wait(timeout=200) for worker in workers]
    assert codes == [0, 0], "\n".join((folder / f"log{rank}").read_text()[-3000:] for rank in range(2))
    return folder


@pytest.fixture(scope="module")
def single(tmp_path_factory, new_runs, jobs, alone, diary):
    """Returns the runs of a single worker."""
    folder = tmp_path_factory.mktemp("single")
    runs = {name: new_runs(name, folder / name) for name in jobs}
    for name, job in jobs.items():
        run_job(job, runs[name], alone, diary())
    return runs


def test_a_worker_distinguishes_lost_contact_from_its_own_errors(pair):
    assert json.loads((pair / "lost.json").read_text()) is True
    own_errors = ("CUDA out of memory", "[gloo/transport/tcp/pair.cc] op.preamble.length <= op.nbytes", "NCCL error")
    for error in (ValueError("Connection reset by peer"), *map(RuntimeError, own_errors)):
        assert not is_lost_contact(error)


def run_of(pair: Path, name: str, single):
    return type(single["contrastive"]).open(pair / name)


def test_without_a_process_group_the_world_is_one_worker():
    world = World.current(torch.device("cpu"))
    assert (world.rank, world.size, world.is_main_rank, world.loader_workers) == (0, 1, True, 0)
    assert World.current(torch.device("cpu"), loader=2).loader_workers == 2
    values = torch.ones(2, requires_grad=True)
    assert world.gather(values) is values
    assert [world.agree(True), world.agree(False)] == [True, False]
    assert world.broadcast_text("größer") == "größer"
    world.barrier()


def test_a_gpu_gets_its_share_of_the_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)))
    for gpus, processes in ((1, 15), (4, 3), (16, 1), (0, 15)):
        monkeypatch.setattr(torch.cuda, "device_count", lambda gpus=gpus: gpus)
        assert World(0, 1, torch.device("cuda")).loader_workers == processes


def test_workers_receive_the_values_of_the_main_rank(pair):
    answers = [json.loads((pair / f"answers{rank}.json").read_text(encoding="utf-8")) for rank in range(2)]
    assert [answer["world"] for answer in answers] == [[0, 2, True], [1, 2, False]]
    for answer in answers:
        assert answer["agree"] == [True, False]
        assert answer["texts"] == ["größer", "", "a" * 5000]
        assert answer["rows"] == [0, 1, 2, 10, 11, 12]


@pytest.mark.parametrize("name", [name for name in losses if issubclass(losses[name], EmbeddingLoss)])
def test_a_loss_on_embeddings_and_its_gradient_are_those_of_one_worker(name, pair, alone):
    expected = runpy.run_path(str(SCRIPT))["embedding_gradients"](alone)
    assert expected[f"{name}/weight"].abs().max() > 1e-3
    for rank in range(2):
        actual = load_file(pair / f"gradients{rank}.safetensors")
        for what in ("loss", "weight", "bias"):
            torch.testing.assert_close(actual[f"{name}/{what}"], expected[f"{name}/{what}"], rtol=1e-9, atol=1e-12)


def test_batch_norm_uses_the_statistics_of_the_global_batch(pair, alone):
    expected = runpy.run_path(str(SCRIPT))["batch_norm_gradients"](alone)
    assert sum(name.endswith("running_var") for name in expected) > 5
    for rank in range(2):
        actual = load_file(pair / f"batch_norm{rank}.safetensors")
        assert actual.keys() == expected.keys()
        # Statistics of shares are far off: the test can fail.
        assert abs(actual.pop("resnet/loss of shares") - expected["resnet/loss"]) > 0.01
        for name, tensor in actual.items():
            torch.testing.assert_close(tensor, expected[name], rtol=1e-8, atol=1e-11, msg=name)


@pytest.mark.parametrize("name", TASKS)
def test_loss_curves_are_those_of_one_worker(name, pair, single, jobs):
    expected, actual = single[name].record(jobs[name]), run_of(pair, name, single).record(jobs[name])
    assert (expected.workers, actual.workers) == (1, 2)
    assert (expected.stage_one is None, actual.stage_one is None) == (jobs[name].recipe.stage_one is None,) * 2
    pairs = [(expected.stage_two, actual.stage_two)]
    pairs += [(expected.stage_one, actual.stage_one)] if expected.stage_one else []
    for single_stage, pair_stage in pairs:
        assert pair_stage.losses == pytest.approx(single_stage.losses, abs=1e-5)
        assert pair_stage.images == single_stage.images
        probes = ([health.probe for health in stage.health] for stage in (single_stage, pair_stage))
        assert next(probes) == pytest.approx(next(probes))
        assert len(set(single_stage.losses)) > 1


@pytest.mark.parametrize("name", TASKS)
def test_weights_and_predictions_are_those_of_one_worker(name, pair, single, jobs):
    job, runs = jobs[name], (single[name], run_of(pair, name, single))
    files = [(ClassifierCheckpoint, "classifier_file", job.recipe.key)]
    if job.recipe.stage_one:
        files.append((EncoderCheckpoint, "encoder_file", job.recipe.encoder_key))
    for kind, file, key in files:
        expected, actual = (kind.read(getattr(run, file)(job), key, 0).tensors for run in runs)
        for tensor in expected:
            torch.testing.assert_close(actual[tensor], expected[tensor], rtol=1e-4, atol=1e-5)
    expected, actual = (run.predictions(job.recipe.key, 0) for run in runs)
    assert actual.views == expected.views
    assert np.array_equal(actual.rows, expected.rows)
    step = 1e-5 if expected.probabilities.dtype == np.float32 else 2**-11  # masks are kept in 16 bits
    np.testing.assert_allclose(actual.probabilities, expected.probabilities, atol=step)


def test_the_held_out_rows_do_not_divide_evenly(single):
    """So the test above has covered the row that pads the last share."""
    assert len(single["contrastive"].folds.held_out_rows(0)) % 2 == 1


@pytest.mark.parametrize("name", INTERRUPTED)
def test_two_interrupted_workers_resume_bit_for_bit(name, pair, single, jobs):
    job = jobs[name]
    whole, interrupted = (run_of(pair, folder, single) for folder in (name, f"{name}, interrupted"))
    for stage in ("stage_one", "stage_two"):
        assert getattr(interrupted.record(job), stage).losses == getattr(whole.record(job), stage).losses
    expected, actual = (
        ClassifierCheckpoint.read(run.classifier_file(job), job.recipe.key, 0).tensors for run in (whole, interrupted)
    )
    assert all(torch.equal(actual[name], tensor) for name, tensor in expected.items())
    assert not list(interrupted.folder.rglob("*.progress"))
