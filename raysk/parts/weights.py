"""Files of weights: safetensors under timm's names; in the header `raysk encoder` says where the encoder comes from."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, FiniteFloat
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from raysk.artifacts import replacing
from raysk.errors import ArtifactError, ConfigError, in_one_line, shown
from raysk.records import Record

# Raise it when a header means something else.
SCHEMA = 1
# The name of the origin in the header of a file.
_IN_HEADER = "raysk_encoder"

_Positive = Annotated[FiniteFloat, Field(gt=0)]


@dataclass(frozen=True, kw_only=True)
class Origin(Record):
    """Where the encoder of a file comes from, and what it has seen.

    Args:
        schema_version: `SCHEMA` of the raysk that wrote it.
        backbone: Its timm name.
        image_size: Side of the images that it was trained on, in pixels.
        mean: Mean of each colour that it expects to be subtracted, for pixels in [0, 1].
        std: Standard deviation of each colour that it expects to be divided by.
        row: Name of the row whose encoder it is.
        recipe: Key of its recipe.
        fold: The fold that its training did not see; -1 if it saw all rows that were not locked away.
        manifest: Digest of the rows of its study.
        published: Whether its training began from published weights, whose pictures nobody lists.
        pictures: Digests of the pictures that it has seen, as `data.seen` makes them.
        groups: Digests of the groups that it has seen.
        digest: Digest of the weights and of all other facts; "" before the file is written.
    """

    schema_version: int
    backbone: str
    image_size: int
    mean: tuple[FiniteFloat, FiniteFloat, FiniteFloat]
    std: tuple[_Positive, _Positive, _Positive]
    row: str
    recipe: str
    fold: int
    manifest: str
    published: bool
    pictures: tuple[str, ...]
    groups: tuple[str, ...]
    digest: str = ""


@dataclass(frozen=True)
class Weights:
    """The content of a file of weights.

    Args:
        tensors: By timm's names.
        origin: Where they come from; None for a file that raysk did not write.
        digest: Digest of the whole file.
    """

    tensors: Mapping[str, Tensor]
    origin: Origin | None
    digest: str


def write_weights(path: Path, tensors: Mapping[str, Tensor], origin: Origin) -> None:
    """Writes the whole file or nothing.

    Raises:
        ArtifactError: The disk is full, or writing is not permitted.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    sealed = replace(origin, digest=_digest(plain, origin))
    with replacing(path) as temporary:
        try:
            save_file(plain, temporary, {_IN_HEADER: json.dumps(sealed.to_plain())})
        except SafetensorError as error:
            raise ArtifactError(f"{path} must be writable, but {error}: free space or choose another folder") from error


def read_weights(path: Path) -> Weights:
    """Reads a file of weights; reading other formats can run code.

    Raises:
        ConfigError: It is missing or broken, or is not as `write_weights` wrote it.
    """
    rule = "a file of weights must be safetensors"
    if not path.is_file():
        raise ConfigError(f"{rule}, but {path} is not a file: correct model.checkpoint or model.weights")
    try:
        content = path.read_bytes()
        tensors = load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")]).get("__metadata__") or {}
    except (OSError, SafetensorError, LookupError, ValueError) as error:
        raise ConfigError(f"{rule}, but {path} is not readable ({_reason(error)}): save it as .safetensors") from error
    if "raysk" in header:
        raise ConfigError(f"{rule} under timm's names, but {path} is a file inside a run: write one with raysk encoder")
    digest = hashlib.blake2b(content, digest_size=8).hexdigest()
    return Weights(tensors, _origin(header, tensors, path), digest)


def _origin(header: Mapping[str, str], tensors: Mapping[str, Tensor], path: Path) -> Origin | None:
    if _IN_HEADER not in header:
        return None
    rule = f"{path} must be as raysk encoder wrote it"
    try:
        plain: Any = json.loads(header[_IN_HEADER])
        schema = plain["schema_version"]
        if schema != SCHEMA:
            raise ConfigError(f"{rule} with schema {SCHEMA}, but has schema {schema!r:.20}: write it again")
        origin = Origin.from_plain(plain, path)
    except (ValueError, LookupError, TypeError, RecursionError, ArtifactError) as error:
        raise ConfigError(f"{rule}, but its header is broken ({shown(error, 200)}): write it again") from error
    if origin.digest != _digest(tensors, origin):
        raise ConfigError(f"{rule}, but its header or its weights were changed: write it again")
    return origin


def _digest(tensors: Mapping[str, Tensor], origin: Origin) -> str:
    facts = json.dumps(replace(origin, digest="").to_plain(), sort_keys=True)
    digest = hashlib.blake2b(facts.encode(), digest_size=16)
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        # A number without dimensions has no other view as bytes.
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _reason(error: Exception) -> str:
    return in_one_line(error)[:200].rstrip(".") or type(error).__name__
