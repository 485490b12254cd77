"""Image files that a collection keeps inside a larger file, unpacked once into the cache."""

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
    """Makes a folder unless it is there; `make` must let it appear only when it is whole.

    Raises:
        ArtifactError: It cannot be written.
    """
    if folder.is_dir():
        return
    try:
        make()
    except ArtifactError:
        if not folder.is_dir():  # else another process has made the same folder meanwhile
            raise


def unpacked(cache: Path, name: str, files: Iterable[Path], write: Callable[[Path], None], about: Any = None) -> Path:
    """Returns the folder in the cache that holds what `write` unpacks from these files, made at the first call.

    Args:
        cache: Where.
        name: How the folder's name begins.
        files: The packed files; a folder is made anew when one of them changes.
        write: Fills a new folder.
        about: What else the content depends on, as a JSON value.
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
    """Returns the suffix for an image's bytes, blank for a format that is not known."""
    return next((suffix for start, suffix in SIGNATURES.items() if content.startswith(start)), "")
