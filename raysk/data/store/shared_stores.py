"""Stores that several machines share: what one has decoded the others copy, from a folder or from object storage."""

from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

from pyarrow import fs

from raysk.artifacts import replacing
from raysk.data.store.chunks import below, file_system
from raysk.errors import ArtifactError, in_one_line

FILES = ("images.arrow", "store.json")  # the last one says that the first is whole


def publish(folder: Path, shared: str) -> None:
    """Copies a store to where all machines see it, unless it is there.

    Args:
        folder: Of the store, on this machine.
        shared: Folder or address.

    Raises:
        ArtifactError: It cannot be written.
    """
    try:
        files, root = file_system(below(shared, folder.name))
        if files.get_file_info(f"{root}/{FILES[-1]}").type is fs.FileType.File:
            return
        files.create_dir(root, recursive=True)
        for name in FILES:
            temporary = f"{root}/.{name}.{uuid4().hex}"
            fs.copy_files(str(folder / name), temporary, fs.LocalFileSystem(), files)
            files.move(temporary, f"{root}/{name}")
    except (OSError, ValueError) as error:
        raise ArtifactError(f"stores={shared} must be writable, but {in_one_line(error)}: correct stores") from error


def fetch(folder: Path, shared: str, check: Callable[[Path], None]) -> bool:
    """Copies a store from where all machines see it; returns False where it is not there.

    Args:
        folder: Of the store, on this machine.
        shared: Folder or address.
        check: Raises `ArtifactError` of a folder that is no whole store.

    Raises:
        ArtifactError: It cannot be read, is damaged, or cannot be written here.
    """
    try:
        files, root = file_system(below(shared, folder.name))
        if files.get_file_info(f"{root}/{FILES[-1]}").type is not fs.FileType.File:
            return False
        with replacing(folder) as temporary:
            temporary.mkdir()
            for name in FILES:
                fs.copy_files(f"{root}/{name}", str(temporary / name), files, fs.LocalFileSystem())
            try:
                check(temporary)
            except ArtifactError as error:
                raise ArtifactError(
                    f"stores={shared} must have whole stores, but {folder.name} is damaged: remove it there"
                ) from error
    except (OSError, ValueError) as error:
        raise ArtifactError(f"stores={shared} must be readable, but {in_one_line(error)}: correct stores") from error
    return True
