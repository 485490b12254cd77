"""Files that are either whole or absent, and names made from content."""

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from raysk.errors import ArtifactError


def digest_of(value: Any) -> str:
    """Returns 16 hexadecimal digits that name a JSON value; the order of keys does not matter."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.blake2b(canonical.encode(), digest_size=8).hexdigest()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`, and renames it to `path` when the block succeeds.

    The block may make a file or a folder there. A block that fails, or a machine that stops, leaves `path` as it was.

    Raises:
        ArtifactError: The disk is full, or writing is not permitted.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        workplace = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as error:
        raise ArtifactError(
            f"{path} must be writable, but {error.strerror}: free space or choose another folder"
        ) from error
    temporary = workplace / path.name
    try:
        yield temporary
        if temporary.is_file():
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise ArtifactError(
            f"{path} must be writable, but {error.strerror}: free space or choose another folder"
        ) from error
    finally:
        shutil.rmtree(workplace, ignore_errors=True)


@contextmanager
def locked(path: Path, busy: str | None = None) -> Iterator[None]:
    """Runs the block in one process at a time; the others wait. A dead process releases its lock.

    The lock works between the processes of a machine, and between machines if their shared file system has locks.

    Args:
        path: The lock file; removed afterwards.
        busy: The error message if another process has the lock; None waits instead.

    Raises:
        ArtifactError: Writing is not permitted, or another process has the lock and `busy` is given.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            file = path.open("w")
            fcntl.flock(file, fcntl.LOCK_EX if busy is None else fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The previous holder may have removed the file that this process waited for.
            with suppress(FileNotFoundError):
                if os.fstat(file.fileno()).st_ino == path.stat().st_ino:
                    break
            file.close()
    except BlockingIOError as error:
        raise ArtifactError(str(busy)) from error
    except OSError as error:
        raise ArtifactError(
            f"{path} must be writable, but {error.strerror}: free space or choose another folder"
        ) from error
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        file.close()


def write_text(path: Path, text: str) -> None:
    """Writes a text file completely or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file completely or not at all."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Raises:
        ArtifactError: The file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ArtifactError(f"{path} must exist, but does not: check that this is a run directory") from error
    except ValueError as error:
        raise ArtifactError(f"{path} must hold JSON, but {error}: restore it or remove the run") from error
