"""The copy of a run directory in object storage, from which another machine can resume."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyarrow import fs

from raysk.artifacts import digest_of, replacing
from raysk.data.store.chunks import file_system
from raysk.errors import ArtifactError, ConfigError, in_one_line

logger = logging.getLogger(__name__)

_EVERY_S = 30.0
# The only file that grows in place; all others are written once, or rewritten at the end of the study.
_JOURNAL = "study.journal"
# Folders of the records of finished work.
_RECORDS = ("jobs", "searches")
_NAMED_BY_CONTENT = ("encoders/", "features/", "classifiers/", "predictions/", "jobs/", "searches/", "recipes/")
_WHOLE = (".safetensors", ".parquet", ".json")
_LATE = (_JOURNAL, *(f"{part}/" for part in _RECORDS))


class Mirror:
    """Copies the run directory, whole files only.

    Args:
        folder: The run directory on this machine.
        address: The copy, such as s3://bucket/prefix.

    Raises:
        ConfigError: The storage does not exist.
    """

    def __init__(self, folder: Path, address: str) -> None:
        self.folder, self.address = folder, address
        try:
            self._files, self._root = file_system(address)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"--run must be a folder or s3://BUCKET/PREFIX, but {in_one_line(error)}: correct it"
            ) from error
        if not self._root.strip("/"):
            raise ConfigError(f"--run must be a folder or s3://BUCKET/PREFIX, but got {address}: name a bucket")
        self._copied: dict[str, tuple[int, int]] = {}
        self._folders: set[str] = set()

    def pull(self) -> None:
        """Copies the files that are missing here, and the journal if its copy is longer.

        Raises:
            ArtifactError: The copy cannot be read.
        """
        try:
            for name, size in self._remote_sizes().items():
                here = self.folder / name
                if not here.exists() or (name == _JOURNAL and size > here.stat().st_size):
                    with replacing(here) as temporary:
                        fs.copy_files(f"{self._root}/{name}", str(temporary), self._files, fs.LocalFileSystem())
                # Files that are named by their content are the same; others may differ.
                status = here.stat()
                if name.startswith(_NAMED_BY_CONTENT) and name.endswith(_WHOLE) and status.st_size == size:
                    self._copied[name] = (size, status.st_mtime_ns)
        except (OSError, ValueError) as error:
            raise ArtifactError(
                f"--run {self.address} must be readable, but {in_one_line(error)}: correct it"
            ) from error

    def _remote_sizes(self) -> dict[str, int]:
        """Returns the sizes of the copied files by name."""
        selector = fs.FileSelector(self._root, recursive=True, allow_not_found=True)
        files = [info for info in self._files.get_file_info(selector) if info.is_file]
        return {info.path.removeprefix(self._root.rstrip("/") + "/"): info.size for info in files}

    def push(self) -> None:
        """Copies new and changed files, and removes the copies of deleted ones.

        A machine may be taken away at any moment, so the records of finished work must follow that work. The journal is
        therefore read before the records are listed, and the records are listed before all other files; they are copied
        in the reverse order.

        Raises:
            ArtifactError: The copy cannot be written.
        """
        try:
            journal = self.folder / _JOURNAL
            content = journal.read_bytes() if journal.exists() else b""
            records = {name: state for part in _RECORDS for name, state in _states(self.folder, part)}
            others = {name: state for name, state in _states(self.folder) if not name.startswith(_LATE)}
            states = others | records
            for name in self._copied.keys() - states.keys() - {_JOURNAL}:
                self._files.delete_file(f"{self._root}/{name}")
                del self._copied[name]
            for name, state in states.items():
                if self._copied.get(name) != state:
                    fs.copy_files(str(self.folder / name), self._place(name), fs.LocalFileSystem(), self._files)
                    self._copied[name] = state
            if content and self._copied.get(_JOURNAL) != (len(content), 0):
                with self._files.open_output_stream(self._place(_JOURNAL)) as sink:
                    sink.write(content)
                self._copied[_JOURNAL] = (len(content), 0)
        except (OSError, ValueError) as error:
            raise ArtifactError(
                f"--run {self.address} must be writable, but {in_one_line(error)}: {self.folder} has all of it, and "
                "--resume copies it again"
            ) from error

    def _place(self, name: str) -> str:
        """Returns the path of a file's copy, and creates the folder for it."""
        place = f"{self._root}/{name}"
        folder = place.rpartition("/")[0]
        if folder not in self._folders:
            self._files.create_dir(folder, recursive=True)
            self._folders.add(folder)
        return place

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Keeps the copy up to date during the block, and completes it at the end, however the block ends.

        Raises:
            ArtifactError: The copy cannot be written at the beginning or at the end.
        """
        self.push()
        over = threading.Event()

        def copy() -> None:
            while not over.wait(_EVERY_S):
                try:
                    self.push()
                except ArtifactError as error:
                    logger.warning("retrying soon: %s", error)

        thread = threading.Thread(target=copy, daemon=True, name="mirror")
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            self.push()


def workplace(cache: Path, address: str) -> Path:
    """Returns this machine's working folder for a run in object storage."""
    plain = address.partition("?")[0].rstrip("/")
    return cache / "runs" / f"{plain.rpartition('/')[2]}-{digest_of(plain)[:8]}"


def _states(folder: Path, part: str = "") -> Iterator[tuple[str, tuple[int, int]]]:
    """Yields the size and time of each file of (a part of) a run, without temporary files and Ray's own."""
    for path in (folder / part).rglob("*"):
        name = path.relative_to(folder)
        if any(component.startswith(".") for component in name.parts) or name.is_relative_to("logs/ray"):
            continue
        try:
            if path.is_file():
                status = path.stat()
                yield name.as_posix(), (status.st_size, status.st_mtime_ns)
        except FileNotFoundError:
            continue
