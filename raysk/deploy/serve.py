"""The service on a Ray cluster: the app of `raysk.inference.serving`, in several replicas under Ray Serve."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import ray
from fastapi import FastAPI
from ray import serve
from rich.console import Console

from raysk.errors import ConfigError, in_one_line
from raysk.inference.bundle import Bundle
from raysk.inference.predictor import Predictor
from raysk.inference.serving.app import create_app
from raysk.inference.serving.server import announce, listening
from raysk.inference.serving.uploads import Limits
from raysk.search.cluster import connected

_NAME = "raysk"


@contextmanager
def deployed(
    path: Path, address: str | None, replicas: int, host: str, port: int, limits: Limits, console: Console
) -> Iterator[None]:
    """Serves a classifier on a cluster during the block.

    Args:
        path: Its bundle file, which all nodes must see.
        address: Of the cluster; None starts Ray on this machine.
        replicas: Number of processes that hold the classifier, each with a GPU if there are enough.
        host: Address at which the nodes listen.
        port: Their port.
        limits: What a replica accepts.
        console: Where it says its address.

    Raises:
        ConfigError: The cluster cannot serve it.
    """
    if replicas < 1:
        raise ConfigError(f"--replicas must be at least 1, but got {replicas}: choose more")
    bundle, path = Bundle.read(path), path.resolve()
    listening(host, port).close()
    with connected(address):
        gpus = int(ray.cluster_resources().get("GPU", 0) >= replicas)
        deployment = serve.deployment(
            name=_NAME,
            num_replicas=replicas,
            ray_actor_options={"num_cpus": 1, "num_gpus": gpus},
            # A replica must have several requests at once to predict them together; it refuses more by itself.
            max_ongoing_requests=limits.requests + 1,
        )(_ingress(path, limits))
        serve.start(http_options={"host": host, "port": port})
        try:
            try:
                serve.run(deployment.bind(), name=_NAME, route_prefix="/")
            except RuntimeError as error:
                raise ConfigError(
                    f"the nodes must be able to read {path} and have {replicas} CPUs, but {in_one_line(error)[:300]}: "
                    "move the file, or choose fewer --replicas"
                ) from error
            announce(host, port, bundle, console)
            yield
        finally:
            serve.delete(_NAME)
            if not serve.status().applications:  # of others
                serve.shutdown()


def serve_on_cluster(
    path: Path, address: str, replicas: int, host: str, port: int, limits: Limits, console: Console
) -> None:
    """Serves a classifier on a cluster until SIGTERM or Ctrl-C; arguments and errors as for `deployed`."""
    with suppress(KeyboardInterrupt), deployed(path, address, replicas, host, port, limits, console):
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        while True:
            signal.pause()
    console.print("the service has ended")


def _ingress(path: Path, limits: Limits) -> type:
    def app() -> FastAPI:  # runs in the replica
        return create_app(Predictor(Bundle.read(path)), limits)

    ingress: type = serve.ingress(app)()
    return ingress
