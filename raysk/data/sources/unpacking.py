"""Unpacks images that a collection holds within larger files, once, into the cache."""

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from raysk.artifacts import digest_of, replacing
from raysk.errors import ArtifactError

# The first bytes of each format.
SIGNATURES = {
    b"\xff\xd8": ".jpg",
    b"\x89PNG": ".png",
    b"RIFF": ".webp",
    b"II*\0": ".tif",
    b"MM\0*": ".tif",
    b"BM": ".bmp",
}

logger = logging.getLogger(__name__)


def made_once(folder: Path, make: Callable[[], None]) -> None:
    """Makes a folder unless it exists; `make` must let it appear only when it is complete.

    Raises:
        ArtifactError: The folder cannot be written.
    """
    if folder.is_dir():
        return
    try:
        make()
    except ArtifactError:
        if not folder.is_dir():  # otherwise another process has made the same folder meanwhile
            raise


def unpacked(cache: Path, name: str, files: Iterable[Path], write: Callable[[Path], None], about: Any = None) -> Path:
    """Returns the cache folder with the content that `write` unpacks from these files; the first call makes it.

    Args:
        cache: The cache.
        name: The beginning of the folder's name.
        files: The packed files; a change in any of them gives a new folder.
        write: Fills a new folder.
        about: Everything else that the content depends on, as a JSON value.
    """
    paths = list(files)
    states = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    folder = cache / f"{name}-{digest_of({'files': states, 'about': about})}"

    def make() -> None:
        size = sum(size for _, size, _ in states) / 1e9
        more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
        logger.warning("%s%s: unpacking the images (%.1f GB) into %s, once", paths[0].name, more, size, cache)
        with replacing(folder) as temporary:
            temporary.mkdir()
            write(temporary)

    made_once(folder, make)
    return folder


def suffix_of(content: bytes) -> str:
    """Returns the suffix for an image's bytes, blank for an unknown format."""
    return next((suffix for start, suffix in SIGNATURES.items() if content.startswith(start)), "")
