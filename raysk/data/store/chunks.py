"""Decodes images in chunks, the unit of work of a store: in threads or on other machines, and never twice.

A chunk is a run of rows. Decoding it writes one Arrow file for each size into a folder that all machines reach, where a
resumed build finds it.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from os import cpu_count
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
from pyarrow import fs

from raysk.data.crop import Window
from raysk.data.store.decoding import decode

# Bytes of decoded pixels in a chunk; each thread holds one chunk in memory.
CHUNK_BYTES = 16 * 2**20
MOST_IMAGES = 256
LEAST_IMAGES = 16
_DIGEST = b"raysk.digest"


@dataclass(frozen=True)
class Chunk:
    """A run of rows of a manifest to decode.

    Args:
        number: Its position among the chunks.
        first_row: The row of its first image.
        paths: The image files.
        sizes: The sizes in pixels.
        folder: The address of the folder for its Arrow files.
        bits: See `decode`.
        windows: See `decode`; empty if all images are decoded whole.
    """

    number: int
    first_row: int
    paths: tuple[str, ...]
    sizes: tuple[int, ...]
    folder: str
    bits: int | None = None
    windows: tuple[Window | None, ...] = ()

    def file(self, size: int) -> str:
        """Returns the name of the file with the pixels of one size."""
        return f"chunk-{self.number:06d}-{size}.arrow"


# Decodes chunks, on any machine, and yields each chunk when it is done.
Spread = Callable[[Sequence[Chunk]], Iterable[Chunk]]


def in_threads(chunks: Sequence[Chunk]) -> Iterator[Chunk]:
    """Decodes in threads of this process; Pillow releases the interpreter lock while it decodes."""
    with ThreadPoolExecutor(cpu_count()) as pool:
        pending = [pool.submit(decode_chunk, chunk) for chunk in chunks]
        try:
            for done in as_completed(pending):
                yield done.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def file_system(address: str) -> tuple[fs.FileSystem, str]:
    """Returns the file system of a folder or of an address such as s3://bucket/prefix, and the path there."""
    if "://" in address:
        location: tuple[fs.FileSystem, str] = fs.FileSystem.from_uri(address)
        return location
    return fs.LocalFileSystem(), str(Path(address).expanduser().absolute())


def below(address: str, name: str) -> str:
    """Returns the address of a name below a folder; the query of an address, after its question mark, stays last."""
    # In a plain path, a question mark is an ordinary character.
    folder, mark, query = address.partition("?") if "://" in address else (address, "", "")
    return f"{folder.rstrip('/')}/{name}{mark}{query}"


def make_chunks(
    paths: Sequence[Path],
    sizes: Sequence[int],
    folder: str,
    bits: int | None = None,
    windows: Sequence[Window | None] = (),
) -> list[Chunk]:
    """Divides files into chunks, small enough that many of them fit into memory."""
    bytes_per_image = sum(size * size * 3 for size in sizes)
    length = min(MOST_IMAGES, max(LEAST_IMAGES, CHUNK_BYTES // bytes_per_image))
    starts = range(0, len(paths), length)
    return [
        Chunk(
            number,
            start,
            tuple(map(str, paths[start : start + length])),
            tuple(sizes),
            folder,
            bits,
            tuple(windows[start : start + length]),
        )
        for number, start in enumerate(starts)
    ]


def missing_chunks(chunks: Sequence[Chunk]) -> list[Chunk]:
    """Returns the chunks that no earlier build has written; all chunks have the same folder."""
    files, root = file_system(chunks[0].folder)
    files.create_dir(root, recursive=True)
    # A power cut leaves an empty file if its content was not on disk yet.
    written = {info.base_name for info in files.get_file_info(fs.FileSelector(root)) if info.size}
    complete = [chunk for chunk in chunks if all(chunk.file(size) in written for size in chunk.sizes)]
    with ThreadPoolExecutor(cpu_count()) as pool:
        intact = {chunk.number for chunk, valid in zip(complete, pool.map(_is_intact, complete), strict=True) if valid}
    return [chunk for chunk in chunks if chunk.number not in intact]


def _is_intact(chunk: Chunk) -> bool:
    """Returns whether the files of a chunk from an earlier build hold what was written."""
    try:
        tables = [read_chunk(chunk, size) for size in chunk.sizes]
    except (OSError, pa.ArrowInvalid):
        return False
    return all((table.schema.metadata or {}).get(_DIGEST) == _digest(table) for table in tables)


def _digest(table: pa.Table) -> bytes:
    """Returns the digest of the rows, reasons and pixels of a chunk."""
    digest = hashlib.blake2b(digest_size=8)
    for name in table.column_names:
        for value in table.column(name):
            digest.update(repr(value.as_py()).encode() if name != "pixels" else value.as_buffer() or b"-")
    return digest.hexdigest().encode()


def decode_chunk(chunk: Chunk) -> Chunk:
    """Decodes the images of a chunk, and writes a file for each size; returns the chunk."""
    windows = chunk.windows or (None,) * len(chunk.paths)
    decoded = [
        decode(Path(path), list(chunk.sizes), chunk.bits, window)
        for path, window in zip(chunk.paths, windows, strict=True)
    ]
    rows = pa.array(range(chunk.first_row, chunk.first_row + len(decoded)), pa.int64())
    reasons = pa.array([outcome if isinstance(outcome, str) else None for outcome in decoded], pa.string())
    for place, size in enumerate(chunk.sizes):
        pixels = [None if isinstance(outcome, str) else outcome[place].tobytes() for outcome in decoded]
        table = pa.table({"row": rows, "reason": reasons, "pixels": pa.array(pixels, pa.binary(size * size * 3))})
        _write_whole(chunk, chunk.file(size), table.replace_schema_metadata({_DIGEST: _digest(table)}))
    return chunk


def read_chunk(chunk: Chunk, size: int) -> pa.Table:
    """Returns the table of a chunk: row, reason (null for a decoded image), pixels (null otherwise)."""
    files, root = file_system(chunk.folder)
    with files.open_input_file(f"{root}/{chunk.file(size)}") as source:
        return pa.ipc.open_file(source).read_all()


def _write_whole(chunk: Chunk, name: str, table: pa.Table) -> None:
    """Writes a temporary file and moves it, so that a file is whole or absent."""
    files, root = file_system(chunk.folder)
    temporary = f"{root}/.{name}.{uuid4().hex}"
    with files.open_output_stream(temporary) as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    files.move(temporary, f"{root}/{name}")


def remove_folder(address: str) -> None:
    """Removes a folder of chunks."""
    files, root = file_system(address)
    files.delete_dir(root)
