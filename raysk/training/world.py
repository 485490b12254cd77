"""The workers that train one job together, from the view of one of them."""

import os
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class _Gather(torch.autograd.Function):
    """Concatenates every rank's tensor along the first axis, with gradient.

    Every rank computes the same loss of the gathered tensor, so the gradient of its own slice is already complete.
    `DistributedDataParallel` then averages over the ranks instead of summing, hence the factor.
    """

    @staticmethod
    def forward(ctx: Any, local: Tensor) -> Tensor:
        size = dist.get_world_size()
        slices = [torch.empty_like(local) for _ in range(size)]
        dist.all_gather(slices, local.contiguous())
        return torch.cat(slices)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> Tensor:
        size, rank = dist.get_world_size(), dist.get_rank()
        return grad[0].chunk(size)[rank] * size


# Error texts of gloo and NCCL when another process is gone; both raise errors of a general type.
_LOST_CONTACT = ("closed by peer", "reset by peer", "Broken pipe", "Connection refused", "ncclRemoteError")


def is_lost_contact(error: Exception) -> bool:
    """Returns whether an error reports that another worker of the group is gone, and no fault of this worker."""
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _LOST_CONTACT)


@dataclass(frozen=True)
class World:
    """The place of this worker among those that train the same job.

    Args:
        rank: Rank of this worker, from 0.
        size: Number of workers.
        device: Device of this worker.
        loader: Number of processes that draw views beside this one; None derives it from the machine.
    """

    rank: int
    size: int
    device: torch.device
    loader: int | None = None

    @classmethod
    def current(cls, device: torch.device | None = None, loader: int | None = None) -> "World":
        """Returns the world of the process group, or a world of one worker without a group."""
        device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size(), device, loader)
        return cls(0, 1, device, loader)

    @property
    def is_main_rank(self) -> bool:
        """Whether this worker writes files and reports."""
        return self.rank == 0

    @property
    def loader_workers(self) -> int:
        """Number of processes that draw views: none on a CPU, whose cores train; else this GPU's share of the cores."""
        if self.loader is not None:
            return self.loader
        if self.device.type != "cuda":
            return 0
        return max(1, len(os.sched_getaffinity(0)) // max(1, torch.cuda.device_count()) - 1)

    def gather(self, local: Tensor) -> Tensor:
        """Concatenates every rank's tensor (B/W, …) to (B, …), with gradient.

        The loss computed from it must be the same on every rank, and its gradients must pass through
        `DistributedDataParallel`.
        """
        if self.size == 1:
            return local
        gathered: Tensor = _Gather.apply(local)
        return gathered

    def barrier(self) -> None:
        """Waits for every rank."""
        if self.size > 1:
            dist.barrier()

    def agree(self, verdict: bool) -> bool:
        """Returns the main rank's verdict on every rank."""
        if self.size == 1:
            return verdict
        flag = torch.tensor([int(verdict)], device=self.device)
        dist.broadcast(flag, src=0)
        return bool(flag.item())

    def broadcast_text(self, text: str) -> str:
        """Returns the main rank's text on every rank."""
        if self.size == 1:
            return text
        data = torch.tensor(list(text.encode()), dtype=torch.uint8, device=self.device)
        length = torch.tensor([len(data)], device=self.device)
        dist.broadcast(length, src=0)
        if not self.is_main_rank:
            data = torch.empty(int(length.item()), dtype=torch.uint8, device=self.device)
        dist.broadcast(data, src=0)
        return bytes(data.cpu().tolist()).decode()
