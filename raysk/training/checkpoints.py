"""The files of training: safetensors with the facts as JSON in the header; nothing is pickled.

A file has one of four kinds, and reading refuses the wrong kind: the encoder of stage one, its features, the classifier
of stage two, and the progress of an unfinished stage.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor, nn

from raysk.artifacts import replacing
from raysk.errors import ArtifactError, in_one_line


@dataclass(frozen=True)
class Checkpoint:
    """Named tensors and the facts about them.

    Args:
        key: The key of its content: an encoder key or a recipe key.
        fold: The fold that was held out.
        facts: JSON values: cost, loss curve, epochs done.
        tensors: The weights, on the CPU.
    """

    kind: ClassVar[str] = "checkpoint"

    key: str
    fold: int
    facts: dict[str, Any]
    tensors: dict[str, Tensor]

    def write(self, path: Path) -> None:
        """Writes the whole file or nothing.

        Raises:
            ArtifactError: The disk is full, or writing is not permitted.
        """
        header = {"kind": self.kind, "key": self.key, "fold": self.fold, "facts": self.facts}
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.tensors.items()}
        with replacing(path) as temporary:
            try:
                save_file(tensors, temporary, {"raysk": json.dumps(header)})
            except SafetensorError as error:  # safetensors reports a full disk this way, not as an OSError.
                raise ArtifactError(
                    f"{path} must be writable, but {error}: free space or choose another folder"
                ) from error

    @classmethod
    def read(cls, path: Path, key: str, fold: int) -> Self:
        """Reads a file.

        Args:
            path: The file.
            key: The key that it must have.
            fold: The fold that it must have.

        Raises:
            ArtifactError: The file is missing, broken, of another kind, or from another job.
        """
        try:
            # Read at once: `safe_open` opens the file for the header and again for the tensors, and another lane may
            # replace it in between.
            content = path.read_bytes()
            tensors = load(content)
        except (OSError, SafetensorError) as error:
            raise ArtifactError(f"{path} must be a whole safetensors file, but {error}: remove it") from error
        header = _facts_of(content)
        identity = (header.get("kind"), header.get("key"), header.get("fold"))
        if identity != (cls.kind, key, fold):
            wanted = f"the {cls.kind} {key} of fold {fold}"
            raise ArtifactError(f"{path} must hold {wanted}, but holds {identity}: remove it and resume")
        return cls(key, fold, header["facts"], tensors)


class EncoderCheckpoint(Checkpoint):
    """The encoder of stage one, without its projection head."""

    kind = "encoder"


class ClassifierCheckpoint(Checkpoint):
    """The head of stage two, and the encoder if it was trained with it."""

    kind = "classifier"


class FeatureCheckpoint(Checkpoint):
    """The features of rows in one view, from a frozen encoder."""

    kind = "features"


class ProgressCheckpoint(Checkpoint):
    """The state of a stage after some of its epochs, sufficient to resume with the same numbers."""

    kind = "progress"


def _facts_of(content: bytes) -> dict[str, Any]:
    """Returns the facts that `Checkpoint.write` put into the header of a safetensors file; {} for foreign files."""
    length = int.from_bytes(content[:8], "little")
    metadata = json.loads(content[8 : 8 + length]).get("__metadata__") or {}
    facts: dict[str, Any] = json.loads(metadata.get("raysk", "{}"))
    return facts


def pack(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Adds a prefix to every name, so that several state dicts share a file."""
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}


def unpack(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the tensors that `pack` stored under this prefix."""
    start = f"{prefix}/"
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Returns an optimizer's running statistics as named tensors; its settings come from the recipe."""
    state = optimizer.state_dict()["state"]
    slots = {f"{index}/{name}": value for index, entry in state.items() for name, value in entry.items()}
    return {name: value for name, value in slots.items() if value is not None}


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Restores the statistics from `optimizer_tensors`."""
    state_dict = optimizer.state_dict()
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, slot = name.split("/", 1)
        state.setdefault(int(index), {})[slot] = tensor
    optimizer.load_state_dict(state_dict | {"state": state})


def load_weights(module: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Loads weights that must fit exactly.

    Raises:
        ArtifactError: Names or shapes differ.
    """
    try:
        module.load_state_dict(dict(tensors))
    except RuntimeError as error:
        reason = in_one_line(error)[:200]
        raise ArtifactError(f"{path} must fit the network of the recipe, but {reason}: remove it and resume") from error
