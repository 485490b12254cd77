"""A file that another thread keeps replacing, as a lane does while others read it."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from threading import Event


@contextmanager
def replaced_in_turns(path: Path, files: Sequence[Path]) -> Iterator[None]:
    """Replaces `path` with each of the files in turn, repeatedly, until the block ends."""
    stop = Event()
    next_file = path.with_name("next_file")

    def replace() -> None:
        for turn in count():
            if stop.is_set():
                return
            next_file.hardlink_to(files[turn % len(files)])
            next_file.replace(path)

    with ThreadPoolExecutor(1) as pool:
        replaced = pool.submit(replace)
        try:
            yield
        finally:
            stop.set()
        replaced.result()
