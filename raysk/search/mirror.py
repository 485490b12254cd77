"""A run directory's copy in object storage: what a machine that is taken away leaves to the next one."""

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
# The only file that grows in place; every other one is written once, or again by the end of the study.
_JOURNAL = "study.journal"
# Folders of files that say that something is done.
_RECORDS = ("jobs", "searches")
_NAMED_BY_CONTENT = ("encoders/", "features/", "classifiers/", "predictions/", "jobs/", "searches/", "recipes/")
_WHOLE = (".safetensors", ".parquet", ".json")
_LATE = (_JOURNAL, *(f"{part}/" for part in _RECORDS))


class Mirror:
    """Copies the run directory, whole files only.

    Args:
        folder: The run directory, on this machine.
        address: Such as s3://bucket/prefix.

    Raises:
        ConfigError: There is no such storage.
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
        """Copies what is missing here, and the journal if it is longer there.

        Raises:
            ArtifactError: The copy cannot be read.
        """
        try:
            for name, size in self._there().items():
                here = self.folder / name
                if not here.exists() or (name == _JOURNAL and size > here.stat().st_size):
                    with replacing(here) as temporary:
                        fs.copy_files(f"{self._root}/{name}", str(temporary), self._files, fs.LocalFileSystem())
                # What content names needs no second look; anything else may be of another time.
                status = here.stat()
                if name.startswith(_NAMED_BY_CONTENT) and name.endswith(_WHOLE) and status.st_size == size:
                    self._copied[name] = (size, status.st_mtime_ns)
        except (OSError, ValueError) as error:
            raise ArtifactError(
                f"--run {self.address} must be readable, but {in_one_line(error)}: correct it"
            ) from error

    def _there(self) -> dict[str, int]:
        """Returns the sizes of the files of the copy, by name."""
        selector = fs.FileSelector(self._root, recursive=True, allow_not_found=True)
        found = [info for info in self._files.get_file_info(selector) if info.is_file]
        return {info.path.removeprefix(self._root.rstrip("/") + "/"): info.size for info in found}

    def push(self) -> None:
        """Copies what is new or has changed, and removes what is gone.

        A machine may be taken away at any moment: what says that something is done follows what was done. So the
        journal is read before the records are looked for, and these before all else, and they are copied the other
        way round.

        Raises:
            ArtifactError: The copy cannot be written.
        """
        try:
            journal = self.folder / _JOURNAL
            said = journal.read_bytes() if journal.exists() else b""
            records = {name: state for part in _RECORDS for name, state in _states(self.folder, part)}
            others = {name: state for name, state in _states(self.folder) if not name.startswith(_LATE)}
            found = others | records
            for name in self._copied.keys() - found.keys() - {_JOURNAL}:
                self._files.delete_file(f"{self._root}/{name}")
                del self._copied[name]
            for name, state in found.items():
                if self._copied.get(name) != state:
                    fs.copy_files(str(self.folder / name), self._place(name), fs.LocalFileSystem(), self._files)
                    self._copied[name] = state
            if said and self._copied.get(_JOURNAL) != (len(said), 0):
                with self._files.open_output_stream(self._place(_JOURNAL)) as sink:
                    sink.write(said)
                self._copied[_JOURNAL] = (len(said), 0)
        except (OSError, ValueError) as error:
            raise ArtifactError(
                f"--run {self.address} must be writable, but {in_one_line(error)}: {self.folder} has all of it, and "
                "--resume copies it again"
            ) from error

    def _place(self, name: str) -> str:
        """Returns where a file goes, and makes the folder for it."""
        place = f"{self._root}/{name}"
        folder = place.rpartition("/")[0]
        if folder not in self._folders:
            self._files.create_dir(folder, recursive=True)
            self._folders.add(folder)
        return place

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Keeps the copy up to date during the block; it is whole at its end, however that comes.

        Raises:
            ArtifactError: At the beginning or at the end the copy cannot be written.
        """
        self.push()
        over = threading.Event()

        def copy() -> None:
            while not over.wait(_EVERY_S):
                try:
                    self.push()
                except ArtifactError as error:
                    logger.warning("tried again soon: %s", error)

        thread = threading.Thread(target=copy, daemon=True, name="mirror")
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            self.push()


def workplace(cache: Path, address: str) -> Path:
    """Returns the folder of this machine in which a run that is kept in object storage is worked on."""
    plain = address.partition("?")[0].rstrip("/")
    return cache / "runs" / f"{plain.rpartition('/')[2]}-{digest_of(plain)[:8]}"


def _states(folder: Path, part: str = "") -> Iterator[tuple[str, tuple[int, int]]]:
    """Yields the files of (a part of) a run, with size and time: no temporary ones, and none of Ray's own."""
    for path in (folder / part).rglob("*"):
        name = path.relative_to(folder)
        if any(one.startswith(".") for one in name.parts) or name.is_relative_to("logs/ray"):
            continue
        try:
            if path.is_file():
                status = path.stat()
                yield name.as_posix(), (status.st_size, status.st_mtime_ns)
        except FileNotFoundError:
            continue
