"""What training leaves behind: safetensors files whose header holds the facts as JSON; nothing is pickled.

A file is one of four kinds, and each is refused where another is wanted: the encoder of stage one, the features that it
gives, the classifier of stage two, and the progress of a stage that is under way.
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
        key: The content that made it: an encoder key, a recipe key.
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
        """Writes the file, whole or not at all.

        Raises:
            ArtifactError: There is no room or no permission to write.
        """
        header = {"kind": self.kind, "key": self.key, "fold": self.fold, "facts": self.facts}
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.tensors.items()}
        with replacing(path) as temporary:
            try:
                save_file(tensors, temporary, {"raysk": json.dumps(header)})
            except SafetensorError as error:  # How safetensors says that the disk is full; it is no OSError.
                raise ArtifactError(
                    f"{path} must be writable, but {error}: free space or choose another folder"
                ) from error

    @classmethod
    def read(cls, path: Path, key: str, fold: int) -> Self:
        """Reads the file back.

        Args:
            path: Where it is.
            key: The content that must have made it.
            fold: The fold that it must have held out.

        Raises:
            ArtifactError: It is missing, broken, of another kind, or of another job.
        """
        try:
            # Read in one go: `safe_open` opens the file once for the header and once for the tensors, between which
            # another lane may have put a new file in its place.
            content = path.read_bytes()
            tensors = load(content)
        except (OSError, SafetensorError) as error:
            raise ArtifactError(f"{path} must be a whole safetensors file, but {error}: remove it") from error
        header = _facts_of(content)
        found = (header.get("kind"), header.get("key"), header.get("fold"))
        if found != (cls.kind, key, fold):
            wanted = f"the {cls.kind} {key} of fold {fold}"
            raise ArtifactError(f"{path} must hold {wanted}, but holds {found}: remove it and resume")
        return cls(key, fold, header["facts"], tensors)


class EncoderCheckpoint(Checkpoint):
    """The encoder of stage one, without its projection head."""

    kind = "encoder"


class ClassifierCheckpoint(Checkpoint):
    """The head of stage two, and the encoder where it was trained along."""

    kind = "classifier"


class FeatureCheckpoint(Checkpoint):
    """What a frozen encoder says of some rows in one view."""

    kind = "features"


class ProgressCheckpoint(Checkpoint):
    """A stage after some of its epochs: all that going on with the same numbers needs."""

    kind = "progress"


def _facts_of(content: bytes) -> dict[str, Any]:
    """Returns what `Checkpoint.write` puts into the header of a whole safetensors file, or {} for another's."""
    length = int.from_bytes(content[:8], "little")
    metadata = json.loads(content[8 : 8 + length]).get("__metadata__") or {}
    facts: dict[str, Any] = json.loads(metadata.get("raysk", "{}"))
    return facts


def pack(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Puts a prefix before every name, so that several state dicts share a file."""
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}


def unpack(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Takes the tensors that `pack` gave this prefix."""
    start = f"{prefix}/"
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Returns an optimizer's running statistics as named tensors; its settings come from the recipe."""
    state = optimizer.state_dict()["state"]
    slots = {f"{index}/{name}": value for index, named in state.items() for name, value in named.items()}
    return {name: value for name, value in slots.items() if value is not None}


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Puts back the statistics that `optimizer_tensors` took."""
    whole = optimizer.state_dict()
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, slot = name.split("/", 1)
        state.setdefault(int(index), {})[slot] = tensor
    optimizer.load_state_dict(whole | {"state": state})


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
