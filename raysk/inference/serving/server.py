"""Runs the service on this machine, with uvicorn."""

import ipaddress
import logging
import signal
import socket
from contextlib import suppress

import uvicorn
from rich.console import Console

from raysk.errors import ConfigError, shown
from raysk.inference.bundle import Bundle
from raysk.inference.predictor import Predictor
from raysk.inference.serving.app import create_app
from raysk.inference.serving.uploads import Limits

# Requests that are being answered get this long when the service ends.
_GRACE_S = 10


def serve(bundle: Bundle, host: str, port: int, limits: Limits, console: Console) -> None:
    """Serves a classifier until SIGTERM or Ctrl-C.

    Args:
        bundle: The classifier.
        host: Name or address of this machine at which it listens.
        port: Its port; 0 takes a free one.
        limits: What it accepts.
        console: Where it says its address.

    Raises:
        ConfigError: It cannot listen there.
    """
    app = create_app(Predictor(bundle), limits)
    with listening(host, port) as listener:
        announce(host, listener.getsockname()[1], bundle, console)
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=_GRACE_S)
        logging.getLogger("python_multipart").setLevel(logging.ERROR)  # it warns of each damaged form
        # uvicorn ends in order, and then repeats the signal.
        signal.signal(signal.SIGTERM, lambda *_: None)
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listener])
    console.print("the service has ended")


def listening(host: str, port: int) -> socket.socket:
    """Returns a socket that listens.

    Raises:
        ConfigError: The port is taken, or the host is not this machine.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError, UnicodeError) as error:
        raise ConfigError(
            f"--host and --port must be free on this machine, but got {host}:{port} ({error}): choose others"
        ) from error


def announce(host: str, port: int, bundle: Bundle, console: Console) -> None:
    """Says where the service is, and warns if others can reach it."""
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    console.print(f"{shown(bundle.facts.provenance.name)}: {address} (page), {address}/docs (interface)", markup=False)
    if not _is_loopback(host):
        console.print(
            f"warning: everyone who reaches {host} can use it, unencrypted and without a password: put a proxy with "
            "both before it, or leave out --host",
            markup=False,
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
