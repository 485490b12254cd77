"""Properties that hold on a GPU only."""

import pytest
import torch
import torch.distributed as dist
from torch import nn

from raysk.evaluation.predictions import Predictions
from raysk.parts.losses import losses
from raysk.parts.losses.base import LogitLoss
from raysk.recipe import Job, Recipe
from raysk.stage_two import StageTwo
from raysk.training.batch_norm import GlobalBatchNorm
from raysk.training.features import FrozenFeatures
from raysk.training.job import run_job
from raysk.training.stage_one import load_encoder
from raysk.training.stage_two_search.many_heads import fit_heads, many_logits
from raysk.training.world import World
from tests.conftest import OF_MASKS

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture(scope="module")
def gpu() -> World:
    return World(0, 1, torch.device("cuda"))


def test_loader_processes_draw_the_views(gpu):
    assert gpu.loader_workers > 0


@pytest.mark.parametrize("frozen", [True, False])
def test_a_repeated_job_gives_the_same_probabilities_bit_for_bit(frozen, tmp_path, new_run, frozen_job, gpu, diary):
    plain = frozen_job.recipe.to_plain()
    plain["stage_two"]["frozen"] = frozen
    job = Job(Recipe.from_plain(plain), 0)

    def predictions(name: str) -> Predictions:
        run = new_run(tmp_path / name)
        run_job(job, run, gpu, diary())
        return run.predictions(job.recipe.key, 0)

    first, second = predictions("first"), predictions("second")
    assert (first.probabilities == second.probabilities).all()


def test_repeated_masks_are_the_same_bit_for_bit(tmp_path, new_mask_run, make_job, gpu, diary):
    job = make_job({**OF_MASKS, "model.backbone": "test_resnet"})
    runs = [new_mask_run(tmp_path / name) for name in ("first", "second")]
    for run in runs:
        run_job(job, run, gpu, diary())
    first, second = (run.predictions(job.recipe.key, 0).probabilities for run in runs)
    assert (first == second).all()


def test_drawn_features_equal_those_of_a_cpu_up_to_half_precision(finished, frozen_job, gpu):
    def drawn(device: str) -> torch.Tensor:
        run = finished
        frozen = FrozenFeatures(frozen_job, run, World(0, 1, torch.device(device)), load_encoder)
        features = frozen.training("medium", 2).cpu()
        for number in range(2):
            run.features_file(frozen_job, f"train-medium-{number}").unlink()
        return features

    on_gpu, on_cpu = drawn("cuda"), drawn("cpu")
    assert (on_gpu - on_cpu).norm() < 0.02 * on_cpu.norm()


def test_many_heads_equal_those_of_a_cpu():
    random = torch.Generator().manual_seed(0)
    features = torch.randn(2, 60, 16, generator=random)
    labels = torch.arange(60).remainder(3).numpy()
    plain = {"epochs": 3, "batch_size": 16, "passes": 2}
    names = [name for name in losses if issubclass(losses[name], LogitLoss)]
    stages = [StageTwo.from_plain(plain | {"loss": {"name": name}}) for name in names]
    on_gpu, on_cpu = (fit_heads(stages, {"none": features.to(device)}, labels, 3, 0, 0) for device in ("cuda", "cpu"))
    logits = many_logits(on_gpu, features.cuda()).cpu()
    torch.testing.assert_close(logits, many_logits(on_cpu, features), atol=1e-4, rtol=1e-4)


def test_batch_norm_of_the_global_batch_is_torchs_in_a_group_of_one_worker():
    dist.init_process_group("nccl", store=dist.HashStore(), rank=0, world_size=1)
    outputs = []
    for wrap in (GlobalBatchNorm, nn.Sequential):
        torch.manual_seed(0)
        layer = nn.BatchNorm2d(4).cuda()
        inputs = torch.randn(8, 4, 5, 5, device="cuda", requires_grad=True)
        values = wrap(layer)(inputs)
        values.pow(3).sum().backward()
        outputs.append((values, inputs.grad, layer.weight.grad, layer.running_mean, layer.running_var))
    dist.destroy_process_group()
    for actual, expected in zip(*outputs, strict=True):
        torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)
