"""Shared stores: one machine decodes, and the others copy the store from a folder or from object storage."""

from collections.abc import Callable, Sequence
from pathlib import Path
from uuid import uuid4

from pyarrow import fs

from raysk.artifacts import replacing
from raysk.data.store.chunks import below, file_system
from raysk.errors import ArtifactError, in_one_line

FILES = ("images.arrow", "store.json")  # the second is written last, and marks the first as complete


def publish(folder: Path, shared: str, names: Sequence[str] = FILES) -> None:
    """Copies a store to the shared folder, unless it is already there.

    Args:
        folder: The folder of the store on this machine.
        shared: The shared folder or address.
        names: Its files; the last one marks the others as complete.

    Raises:
        ArtifactError: The shared folder cannot be written.
    """
    try:
        files, root = file_system(below(shared, folder.name))
        if files.get_file_info(f"{root}/{names[-1]}").type is fs.FileType.File:
            return
        files.create_dir(root, recursive=True)
        for name in names:
            temporary = f"{root}/.{name}.{uuid4().hex}"
            fs.copy_files(str(folder / name), temporary, fs.LocalFileSystem(), files)
            files.move(temporary, f"{root}/{name}")
    except (OSError, ValueError) as error:
        raise ArtifactError(f"stores={shared} must be writable, but {in_one_line(error)}: correct stores") from error


def fetch(folder: Path, shared: str, check: Callable[[Path], None], names: Sequence[str] = FILES) -> bool:
    """Copies a store from the shared folder; returns False if it is not there.

    Args:
        folder: The folder of the store on this machine.
        shared: The shared folder or address.
        check: Raises `ArtifactError` for a folder that is not a complete store.
        names: Its files; the last one marks the others as complete.

    Raises:
        ArtifactError: The store cannot be read, is damaged, or cannot be written here.
    """
    try:
        files, root = file_system(below(shared, folder.name))
        if files.get_file_info(f"{root}/{names[-1]}").type is not fs.FileType.File:
            return False
        with replacing(folder) as temporary:
            temporary.mkdir()
            for name in names:
                fs.copy_files(f"{root}/{name}", str(temporary / name), files, fs.LocalFileSystem())
            try:
                check(temporary)
            except ArtifactError as error:
                raise ArtifactError(
                    f"stores={shared} must have complete stores, but {folder.name} is damaged: remove it there"
                ) from error
    except (OSError, ValueError) as error:
        raise ArtifactError(f"stores={shared} must be readable, but {in_one_line(error)}: correct stores") from error
    return True
