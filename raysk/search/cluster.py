"""The connection to Ray: an existing cluster, or a Ray on this machine that lasts as long as the study."""

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

# Ray reads these when it is imported. The run directory records what Tune's own loggers would, at a fraction of the
# cost.
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
# A recipe that fails, or is cancelled, before its first fold is done has no score; Tune would end the study for it.
os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")
# Saves a process per lane: each epoch is kept, so a notice that a node will be taken away requires no action.
os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
# A worker group without room gives up its place in the cluster's queue; its lane then waits in a way that can be ended.
os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "30")

import ray
from ray.tune import PlacementGroupFactory

from raysk.errors import ConfigError
from raysk.search.broker import NAMESPACE

_LONGEST_CONNECT_S = 10.0
# The smallest share of a resource that Ray counts.
_SLIVER = 0.0001


def _check_reachable(address: str) -> None:
    """Refuses an address at which nothing listens; Ray would retry it for many minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), _LONGEST_CONNECT_S).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"--address must be the address of a running Ray cluster, but got {address!r} ({error}): correct it, "
            "or leave it out to start Ray here"
        ) from error


def trial_resources() -> PlacementGroupFactory:
    """Returns the resources of a light Tune trial: a sliver of the driver's node, which may have no CPU.

    Nodes with the same address have resources with the same name; the label distinguishes them.
    """
    node_id = ray.get_runtime_context().get_node_id()
    (node,) = [node for node in ray.nodes() if node["NodeID"] == node_id]
    sliver = {f"node:{node['NodeManagerAddress']}": _SLIVER}
    return PlacementGroupFactory([sliver], bundle_label_selector=[{"ray.io/node-id": node_id}])


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Connects to a cluster for the block, or starts Ray on this machine in its own temporary folder.

    Args:
        address: Of the cluster; a job of `ray job submit` finds its cluster without it.

    Raises:
        ConfigError: There is no cluster at the address.
    """
    address = address or os.environ.get("RAY_ADDRESS")
    if address is None:
        # A short path: it holds Unix sockets, whose names are limited to about 100 characters.
        with tempfile.TemporaryDirectory(prefix="raysk-", dir="/tmp", ignore_cleanup_errors=True) as folder:
            # Jobs and answers are small: the object store needs no third of the machine's memory, Ray's default.
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
        raise ConfigError(
            f"--address must be the address of a running Ray cluster, but got {address!r} ({error}): correct it, "
            "or leave it out to start Ray here"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()
