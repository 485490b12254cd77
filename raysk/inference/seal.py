"""The seal of a bundle file: a digest of all its bytes, in its own header, beside the texts of a bundle."""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from raysk.errors import ArtifactError

_DIGITS = 64
# The largest header that safetensors accepts.
_MOST_HEADER = 100_000_000


def seal(tensors: Mapping[str, Tensor], texts: Mapping[str, str]) -> tuple[bytes, str]:
    """Returns a safetensors file with these texts and a digest in its header, and the digest."""
    blank = "0" * _DIGITS
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    content = save(plain, {**texts, "digest": blank})
    digest = _digest(content)
    place = _digest_place(content, blank)
    return content[:place] + digest.encode() + content[place + _DIGITS :], digest


def open_seal(content: bytes, path: Path) -> dict[str, str]:
    """Returns the texts "raysk", "card" and "digest" of a file that is as `seal` made it.

    Raises:
        ArtifactError: It was changed, or is of another kind.
    """
    header = _header(content, path)
    digest = header["digest"]
    place = _digest_place(content, digest)
    if place < 0:
        raise not_a_bundle(path, "its digest has no place")
    if _digest(content[:place] + b"0" * _DIGITS + content[place + _DIGITS :]) != digest:
        raise ArtifactError(f"{path} must be as raysk bundle wrote it, but was changed: copy or make it again")
    return header


def strict_json(text: str | bytes) -> Any:
    """Reads JSON in which no name is twice, since two readers may keep different ones, and every text is one.

    JSON can write half of a surrogate pair, which no answer, file or terminal can show.

    Raises:
        ValueError: It is not such JSON.
        RecursionError: It is too deep.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(values := dict(pairs)) < len(pairs):
            raise ValueError("a name is twice")
        return values

    value = json.loads(text, object_pairs_hook=unique)
    json.dumps(value, ensure_ascii=False).encode()
    return value


def not_a_bundle(path: Path, reason: str) -> ArtifactError:
    """Returns the error for a file that is no bundle."""
    return ArtifactError(f"{path} must be a bundle that raysk bundle wrote, but {reason}: copy or make it again")


def _header(content: bytes, path: Path) -> dict[str, str]:
    """Returns the metadata of a safetensors file, which must be those of a bundle."""
    length = int.from_bytes(content[:8], "little")
    if not 2 <= length <= min(len(content) - 8, _MOST_HEADER):
        raise not_a_bundle(path, f"its {len(content)} bytes are not a whole safetensors file")
    try:
        metadata = strict_json(content[8 : 8 + length]).get("__metadata__")
        header = {name: str(metadata[name]) for name in ("raysk", "card", "digest")}
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError) as error:
        raise not_a_bundle(path, "its header is not that of a bundle") from error
    if not re.fullmatch(f"[0-9a-f]{{{_DIGITS}}}", header["digest"]):
        raise not_a_bundle(path, f"its digest is {header['digest']!r:.20}")
    return header


def _digest_place(content: bytes, digest: str) -> int:
    """Returns where the digest's digits begin; -1 if nowhere."""
    length = int.from_bytes(content[:8], "little")
    before = b'"digest":"'
    place = content.find(before + f'{digest}"'.encode(), 8, 8 + length)
    return place if place < 0 else place + len(before)


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=_DIGITS // 2).hexdigest()
