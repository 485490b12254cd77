"""Decoding on all machines of a cluster, as Ray tasks."""

from collections.abc import Iterator, Sequence

import ray

from raysk.data.store.chunks import Chunk, Spread, decode_chunk
from raysk.search.cluster import connected


def on_cluster(address: str | None) -> Spread:
    """Returns what has chunks decoded on every CPU of a cluster.

    It connects only when there is something to decode, and leaves the cluster again: a study with nothing to decode
    must not wait for it.

    Args:
        address: Of the cluster.
    """

    def spread(chunks: Sequence[Chunk]) -> Iterator[Chunk]:
        if not chunks:
            return
        with connected(address):
            task = ray.remote(num_cpus=1)(decode_chunk)
            waiting = [task.remote(chunk) for chunk in chunks]
            while waiting:
                done, waiting = ray.wait(waiting)
                yield ray.get(done[0])

    return spread
