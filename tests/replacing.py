"""A file that another process keeps replacing, as a lane does while others read."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from threading import Event


@contextmanager
def replaced_in_turns(path: Path, files: Sequence[Path]) -> Iterator[None]:
    """Puts one file after the other in the place of `path`, again and again, as long as the block lasts."""
    stop = Event()
    following = path.with_name("following")

    def replace() -> None:
        for turn in count():
            if stop.is_set():
                return
            following.hardlink_to(files[turn % len(files)])
            following.replace(path)

    with ThreadPoolExecutor(1) as pool:
        replaced = pool.submit(replace)
        try:
            yield
        finally:
            stop.set()
        replaced.result()
