"""Decoding in chunks: the unit of work of a store, done in threads here or on other machines, and never twice.

A chunk is a run of rows. Whoever decodes it leaves one Arrow file for each size in a folder that all can reach; a build
that was interrupted finds the chunks that are there.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from os import cpu_count
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
from pyarrow import fs

from raysk.data.store.decoding import decode

# Of decoded pixels: as many are in memory at once as there are threads.
CHUNK_BYTES = 16 * 2**20
MOST_IMAGES = 256
LEAST_IMAGES = 16


@dataclass(frozen=True)
class Chunk:
    """Some rows of a manifest, to be decoded.

    Args:
        number: Its place among the chunks.
        first_row: The row of its first image.
        paths: The files.
        sizes: In pixels.
        folder: Address of the folder for what comes of it.
    """

    number: int
    first_row: int
    paths: tuple[str, ...]
    sizes: tuple[int, ...]
    folder: str

    def file(self, size: int) -> str:
        """The name of the file with the pixels of one size."""
        return f"chunk-{self.number:06d}-{size}.arrow"


# Has chunks decoded, wherever, and yields each of them as it is done.
Spread = Callable[[Sequence[Chunk]], Iterable[Chunk]]


def in_threads(chunks: Sequence[Chunk]) -> Iterator[Chunk]:
    """Decodes in this process; Pillow releases the interpreter lock while it decodes."""
    with ThreadPoolExecutor(cpu_count()) as pool:
        waiting = [pool.submit(decode_chunk, chunk) for chunk in chunks]
        try:
            for done in as_completed(waiting):
                yield done.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def file_system(address: str) -> tuple[fs.FileSystem, str]:
    """Returns the file system of a folder or of an address such as s3://bucket/prefix, and the path there."""
    if "://" in address:
        found: tuple[fs.FileSystem, str] = fs.FileSystem.from_uri(address)
        return found
    return fs.LocalFileSystem(), str(Path(address).expanduser().absolute())


def below(address: str, name: str) -> str:
    """Returns the address of a name in a folder; what an address asks for behind a question mark stays behind it."""
    # In the name of a plain folder it is a letter like others.
    folder, mark, asked = address.partition("?") if "://" in address else (address, "", "")
    return f"{folder.rstrip('/')}/{name}{mark}{asked}"


def make_chunks(paths: Sequence[Path], sizes: Sequence[int], folder: str) -> list[Chunk]:
    """Cuts files into chunks whose pixels fit into memory many times."""
    bytes_an_image = sum(size * size * 3 for size in sizes)
    length = min(MOST_IMAGES, max(LEAST_IMAGES, CHUNK_BYTES // bytes_an_image))
    starts = range(0, len(paths), length)
    return [
        Chunk(number, start, tuple(map(str, paths[start : start + length])), tuple(sizes), folder)
        for number, start in enumerate(starts)
    ]


def left_to_do(chunks: Sequence[Chunk]) -> list[Chunk]:
    """Returns the chunks of one folder that an earlier build has not left there."""
    files, root = file_system(chunks[0].folder)
    files.create_dir(root, recursive=True)
    # One without content is what a power cut leaves of a file that was not on disk yet.
    there = {info.base_name for info in files.get_file_info(fs.FileSelector(root)) if info.size}
    return [chunk for chunk in chunks if not all(chunk.file(size) in there for size in chunk.sizes)]


def decode_chunk(chunk: Chunk) -> Chunk:
    """Decodes the images of a chunk, and leaves a file for each size; returns the chunk."""
    decoded = [decode(Path(path), list(chunk.sizes)) for path in chunk.paths]
    rows = pa.array(range(chunk.first_row, chunk.first_row + len(decoded)), pa.int64())
    reasons = pa.array([one if isinstance(one, str) else None for one in decoded], pa.string())
    for place, size in enumerate(chunk.sizes):
        pixels = [None if isinstance(one, str) else one[place].tobytes() for one in decoded]
        table = pa.table({"row": rows, "reason": reasons, "pixels": pa.array(pixels, pa.binary(size * size * 3))})
        _write_whole(chunk, chunk.file(size), table)
    return chunk


def read_chunk(chunk: Chunk, size: int) -> pa.Table:
    """Returns what was decoded: row, reason (null where there are pixels), pixels."""
    files, root = file_system(chunk.folder)
    with files.open_input_file(f"{root}/{chunk.file(size)}") as source:
        return pa.ipc.open_file(source).read_all()


def _write_whole(chunk: Chunk, name: str, table: pa.Table) -> None:
    """Writes under a name of its own and moves it, so that a file is whole or absent."""
    files, root = file_system(chunk.folder)
    temporary = f"{root}/.{name}.{uuid4().hex}"
    with files.open_output_stream(temporary) as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    files.move(temporary, f"{root}/{name}")


def remove_folder(address: str) -> None:
    """Removes a folder of chunks."""
    files, root = file_system(address)
    files.delete_dir(root)
