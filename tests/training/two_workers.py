"""One of two workers, started by test_world.py: `python two_workers.py FOLDER RANK`."""

import json
import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from raysk.parts.heads import unit_length
from raysk.parts.losses import EmbeddingLoss, losses
from raysk.parts.losses.contrastive import SupCon
from raysk.recipe import Job, Model
from raysk.run import Run
from raysk.training.batch_norm import GlobalBatchNorm
from raysk.training.job import run_job
from raysk.training.loop import StageProgress
from raysk.training.networks import StageOneNetwork, new_encoder
from raysk.training.world import World, is_lost_contact


class Leave(Exception):  # noqa: N818 - stopping is no error
    pass


def embedding_gradients(world: World) -> dict[str, Tensor]:
    """Returns, for every loss on embeddings, its value and the gradient of a layer before it, in double precision."""
    random = torch.Generator().manual_seed(0)
    inputs = torch.randn(8, 3, 6, generator=random, dtype=torch.float64)
    # Class 1 has positives on the other worker only, class 0 more on one worker, classes 2 and 3 none.
    labels = torch.tensor([0, 0, 1, 2, 0, 1, 3, 0])
    results = {}
    for name in losses:
        if issubclass(losses[name], EmbeddingLoss):
            torch.manual_seed(1)
            layer = nn.Linear(6, 5).double()
            network = DistributedDataParallel(layer) if world.size > 1 else layer
            share, targets = (tensor.chunk(world.size)[world.rank] for tensor in (inputs, labels))
            embeddings = unit_length(network(share))
            loss = losses[name]().build(labels.bincount(), 5)(world.gather(embeddings), world.gather(targets))
            loss.backward()
            results |= {
                f"{name}/loss": loss.detach(),
                f"{name}/weight": layer.weight.grad,
                f"{name}/bias": layer.bias.grad,
            }
    return results


def batch_norm_gradients(world: World) -> dict[str, Tensor]:
    """Returns SupCon's value, gradients and running statistics with layers that normalise, in double precision."""
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (8, 2, 32, 32, 3), generator=random, dtype=torch.uint8)
    torch.manual_seed(1)
    networks: dict[str, nn.Module] = {
        "resnet": StageOneNetwork(new_encoder(Model(backbone="test_resnet"), 32), 5),
        "rows": nn.Sequential(nn.Flatten(2), _EachView(nn.Linear(3072, 6), nn.BatchNorm1d(6, affine=False))),
    }
    results = {}
    for name, network in networks.items():
        network.double()
        results |= {f"{name}/{key}": tensor for key, tensor in supcon_step(network, images, world).items()}
    shares = supcon_step(networks["resnet"], images, world, are_shared=False)
    return results | {"resnet/loss of shares": shares["loss"]}


class _EachView(nn.Sequential):
    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = super().forward(inputs.double().flatten(0, 1))
        return unit_length(outputs.unflatten(0, inputs.shape[:2]))


def supcon_step(network: nn.Module, images: Tensor, world: World, are_shared: bool = True) -> dict[str, Tensor]:
    """Returns the loss of a global batch, the gradients of the network, and its buffers."""
    labels = torch.tensor([0, 0, 1, 2, 0, 1, 3, 0])
    network.zero_grad()
    whole = network
    if world.size > 1:
        whole = DistributedDataParallel(GlobalBatchNorm(network) if are_shared else network)
    share, targets = (tensor.chunk(world.size)[world.rank] for tensor in (images, labels))
    loss = SupCon().build(labels.bincount(), 5)(world.gather(whole(share)), world.gather(targets))
    loss.backward()
    tensors = {name: weight.grad for name, weight in network.named_parameters() if weight.grad is not None}
    tensors |= {"loss": loss.detach()} | dict(network.named_buffers())
    return {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}


def do_jobs(tasks: list[dict[str, Any]], world: World) -> None:
    for task in tasks:
        for leave_after in (*task["leave_after"], None):

            def report(progress: StageProgress, leave_after: list[Any] | None = leave_after) -> None:
                if [progress.stage, progress.epoch] == leave_after:
                    raise Leave

            try:
                run_job(Job.from_plain(task["job"]), Run.open(Path(task["folder"])), world, report)
            except Leave:
                continue


def first_error(world: World) -> Exception:
    """Calls the other worker until a call fails, and returns the error."""
    while True:
        try:
            world.gather(torch.zeros(1))
        except Exception as error:
            return error


def main(folder: Path, rank: int) -> None:
    torch.set_num_threads(1)
    meeting = (folder / "meeting").as_uri()
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2, timeout=timedelta(seconds=120))
    world = World.current(torch.device("cpu"))
    answers = {
        "world": [world.rank, world.size, world.is_main_rank],
        "agree": [world.agree(world.is_main_rank), world.agree(not world.is_main_rank)],
        "texts": [world.broadcast_text(text if world.is_main_rank else "other") for text in ("größer", "", "a" * 5000)],
        "rows": world.gather(torch.arange(3) + 10 * rank).tolist(),
    }
    (folder / f"answers{rank}.json").write_text(json.dumps(answers), encoding="utf-8")
    save_file(embedding_gradients(world), folder / f"gradients{rank}.safetensors")
    save_file(batch_norm_gradients(world), folder / f"batch_norm{rank}.safetensors")
    do_jobs(json.loads((folder / "tasks.json").read_text(encoding="utf-8")), world)
    if rank == 1:
        os._exit(0)  # as a worker on a lost node
    (folder / "lost.json").write_text(json.dumps(is_lost_contact(first_error(world))), encoding="utf-8")
    # A thread of gloo that waits for the lost worker can abort a process that exits in order.
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
