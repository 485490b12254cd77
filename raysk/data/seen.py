"""What an encoder has seen: digests of pictures and groups, by which another study finds its own rows among them.

A picture is known by the bytes of its file, and by its name in the ISIC archive if it has one, since the archive gives
a picture the same name everywhere. A group is known by its name, where that means the same in both studies.
"""

import hashlib
import os
import re
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from raysk.data.manifest import Manifest
from raysk.data.sources.duplicates import archive_name
from raysk.errors import DataError

# Names of lesions and patients that archives give, such as HAM_0000118, IL_7012832 and PAT_45: they mean the same
# everywhere. Another name, such as lesion_12, may be that of other lesions in other collections.
_ARCHIVE_GROUP = re.compile(r"[A-Z]{2,4}_\d{2,}(_\d+)?")


@dataclass(frozen=True)
class Seen:
    """Digests of pictures and groups.

    Args:
        pictures: Those of the pictures.
        groups: Those of their groups.
    """

    pictures: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()

    def __or__(self, other: "Seen") -> "Seen":
        return Seen(self.pictures | other.pictures, self.groups | other.groups)


class Identities:
    """The digests of all rows of a manifest.

    Args:
        manifest: The rows.

    Raises:
        DataError: The file of a picture cannot be read.
    """

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.pictures = _picture_digests(manifest)
        names = _group_names(manifest)
        self.groups = [_digest(name.encode()) if name else "" for name in names]
        self._is_archive = np.array([_ARCHIVE_GROUP.fullmatch(name) is not None for name in names])

    def seen(self, rows: np.ndarray) -> Seen:
        """Returns what an encoder has seen that saw these rows, (N,)."""
        pictures = frozenset(digest for row in rows.tolist() for digest in self.pictures[row])
        return Seen(pictures, frozenset(self.groups[row] for row in rows.tolist()) - {""})

    def among(self, seen: Seen) -> np.ndarray:
        """Returns whether each row was seen, (N,): its picture, or another picture of its group."""
        is_picture = np.array([not seen.pictures.isdisjoint(known) for known in self.pictures])
        has_name = np.array([group in seen.groups for group in self.groups])
        # If a seen picture is in a group of a seen name, then the names mean the same in both studies.
        means_the_same = bool((is_picture & has_name).any())
        of_seen_group = is_picture | (has_name & (self._is_archive | means_the_same))
        return np.isin(self.manifest.groups, self.manifest.groups[of_seen_group])


def _group_names(manifest: Manifest) -> list[str]:
    """Returns the name of each row's group without that of its collection, "" for rows without groups."""
    if not manifest.grouped:
        return [""] * len(manifest)
    return [name.rpartition("/")[2] for name in manifest.group_names.tolist()]


def _picture_digests(manifest: Manifest) -> list[tuple[str, ...]]:
    """Returns the digests by which the picture of each row is known."""
    paths = manifest.paths
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        contents = list(pool.map(_content_digest, paths))
    _check_read(paths, contents)
    names = [archive_name(str(path)) for path in paths]
    return [
        (content,) if name is None else (content, _digest(name.encode()))
        for content, name in zip(contents, names, strict=True)
    ]


def _content_digest(path: Path) -> str:
    """Returns the digest of a file; "" if it cannot be read."""
    try:
        return _digest(path.read_bytes())
    except OSError:
        return ""


def _check_read(paths: Sequence[Path], digests: Collection[str]) -> None:
    unread = [path for path, digest in zip(paths, digests, strict=True) if not digest]
    if unread:
        raise DataError(
            f"the files of all pictures must be readable to tell which an encoder has seen, but {len(unread)} are not, "
            f"such as {unread[0]}: restore them"
        )


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=8).hexdigest()
