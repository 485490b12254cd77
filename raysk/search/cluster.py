"""Ray: an existing cluster, or one on this machine for as long as the study lasts."""

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

# Read by Ray when it is imported. The run directory records what Tune's own loggers would, at a fraction of the cost.
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
# A recipe that fails, or is cancelled, before its first fold is done has no score; Tune would end the study over it.
os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")
# One process a lane fewer: each epoch is kept, so there is nothing to do when a node is about to be taken away.
os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
# A lane that finds no room gives up its place in the queue of the cluster, and waits in a way that can be ended.
os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "30")

import ray
from ray.tune import PlacementGroupFactory

from raysk.errors import ConfigError
from raysk.search.broker import NAMESPACE

_LONGEST_CONNECT_S = 10.0
# The smallest share that Ray counts.
_SLIVER = 0.0001


def _check_reachable(address: str) -> None:
    """Refuses a host and port where nobody listens, which Ray would try for many minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), _LONGEST_CONNECT_S).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(f"--address must be that of a running Ray cluster, but got {address!r}: {error}") from error


def trial_resources() -> PlacementGroupFactory:
    """Returns what a light Tune trial asks for: a sliver of the driver's node, which need not have any CPU.

    Nodes whose addresses are the same have resources of the same name: the label tells them apart.
    """
    node_id = ray.get_runtime_context().get_node_id()
    (node,) = [node for node in ray.nodes() if node["NodeID"] == node_id]
    sliver = {f"node:{node['NodeManagerAddress']}": _SLIVER}
    return PlacementGroupFactory([sliver], bundle_label_selector=[{"ray.io/node-id": node_id}])


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Connects to a cluster for the block, or starts Ray on this machine with a temporary folder of its own.

    Args:
        address: Of the cluster; a job that `ray job submit` started finds its own without.

    Raises:
        ConfigError: There is no cluster at the address.
    """
    address = address or os.environ.get("RAY_ADDRESS")
    if address is None:
        # A short path: Unix sockets lie in it, whose names are limited to about 100 characters.
        with tempfile.TemporaryDirectory(prefix="raysk-", dir="/tmp", ignore_cleanup_errors=True) as folder:
            # Jobs and answers are small: the object store needs no third of the machine's memory.
            ray.init(
                address="local",
                namespace=NAMESPACE,
                log_to_driver=False,
                _temp_dir=folder,
                object_store_memory=256 * 2**20,
            )
            try:
                yield
            finally:
                ray.shutdown()
        return
    _check_reachable(address)
    try:
        ray.init(address=address, namespace=NAMESPACE, log_to_driver=False)
    except ConnectionError as error:
        raise ConfigError(f"--address must be that of a running Ray cluster, but got {address!r}: {error}") from error
    try:
        yield
    finally:
        ray.shutdown()
