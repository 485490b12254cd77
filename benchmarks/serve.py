"""Requests a second and the 99th percentile of a service with many clients, against the bare model in a loop.

A classifier of random weights is served by `raysk serve` in a process of its own, on loopback. Clients are threads of
this process; each sends one PNG image a request over a connection that stays open, and waits for the answer. So the
figures of the service include HTTP, decoding and the clients, which share the cores with it.

Peers, in this process, all with the same threads of torch:
- bare: the network in a loop, on one ready tensor a call: no HTTP, no file, no decoding.
- with decoding: `Predictor.predict_proba` in a loop, on one file in memory a call.
- bare, batches: the network in a loop on ready tensors of as many images as there are clients, the most that batching
  can reach; the latency is that of a batch.
"""

import argparse
import http.client
import io
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from drawn_bundle import random_bundle
from PIL import Image
from rich.console import Console
from rich.table import Table

from raysk.inference.images import pixels_of, stacked
from raysk.inference.predictor import Predictor


@dataclass(frozen=True)
class Rate:
    """Images a second, and the 99th percentile of the seconds of a call."""

    images: float
    slowest: float


def draw_images(number: int, width: int, height: int) -> list[bytes]:
    """PNG files of noise, the slowest that there are to decode."""
    draw, contents = np.random.default_rng(0), []
    for _ in range(number):
        file = io.BytesIO()
        Image.fromarray(draw.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(file, "PNG")
        contents.append(file.getvalue())
    return contents


def in_a_loop(call: Callable[[int], object], seconds: float, images_each: int = 1) -> Rate:
    """The rate of a function that is called for some seconds with the numbers of calls before it."""
    times, began = [], perf_counter()
    while perf_counter() - began < seconds:
        start = perf_counter()
        call(len(times))
        times.append(perf_counter() - start)
    return Rate(images_each * len(times) / (perf_counter() - began), float(np.quantile(times, 0.99)))


@contextmanager
def service(file: Path) -> Iterator[int]:
    """Gives the port of `raysk serve` in a process of its own."""
    command = [sys.executable, "-m", "raysk.cli", "serve", str(file), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        try:
            assert program.stdout is not None
            match = re.search(r"http://127\.0\.0\.1:(\d+)", program.stdout.readline())
            assert match, "the service did not start"
            yield int(match.group(1))
        finally:
            program.terminate()


def over_http(port: int, contents: list[bytes], num_clients: int, seconds: float) -> Rate:
    """The rate of the service, summed over clients that begin together."""

    def client(number: int) -> list[float]:
        times: list[float] = []
        connection = http.client.HTTPConnection("127.0.0.1", port)
        while perf_counter() - began < seconds:
            start = perf_counter()
            body = contents[(number + len(times)) % len(contents)]
            connection.request("POST", "/predict", body, {"Content-Type": "image/png"})
            answer = connection.getresponse()
            assert len(json.loads(answer.read())["images"]) == 1, answer.status
            times.append(perf_counter() - start)
        connection.close()
        return times

    with ThreadPoolExecutor(num_clients) as clients:
        began = perf_counter()
        times = np.concatenate(list(clients.map(client, range(num_clients))))
        elapsed = perf_counter() - began
    return Rate(len(times) / elapsed, float(np.quantile(times, 0.99)))


def median(rates: list[Rate]) -> Rate:
    return Rate(float(np.median([rate.images for rate in rates])), float(np.median([rate.slowest for rate in rates])))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="resnet18", help="a timm name (resnet18)")
    parser.add_argument("--size", type=int, default=64, help="side of the images of the network (64)")
    parser.add_argument("--members", type=int, default=1, help="members of the ensemble (1)")
    parser.add_argument("--views", type=int, default=1, help="test-time views (1)")
    parser.add_argument("--clients", type=int, default=32, help="clients at once (32)")
    parser.add_argument("--seconds", type=float, default=5, help="time of each contender in a repeat (5)")
    parser.add_argument("--repeats", type=int, default=3, help="the median counts (3)")
    options = parser.parse_args()
    predictor = Predictor(random_bundle(options.backbone, options.size, options.members, options.views))
    contents = draw_images(options.clients, 200, 150)
    pixels = [pixels_of(content, predictor.sizes) for content in contents]
    singles = [stacked([image], predictor.sizes, predictor.device) for image in pixels]
    batch = stacked(pixels, predictor.sizes, predictor.device)

    @torch.inference_mode()
    def bare(images: dict[int, torch.Tensor]) -> None:
        predictor.network(images).probabilities.cpu()

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "random.raysk"
        predictor.bundle.write(file)
        with service(file) as port:
            contenders: dict[str, Callable[[], Rate]] = {
                "bare": lambda: in_a_loop(lambda call: bare(singles[call % len(singles)]), options.seconds),
                "with decoding": lambda: in_a_loop(
                    lambda call: predictor.predict_proba([contents[call % len(contents)]]), options.seconds
                ),
                "bare, batches": lambda: in_a_loop(lambda call: bare(batch), options.seconds, options.clients),
                f"raysk serve, {options.clients} clients": lambda: over_http(
                    port, contents, options.clients, options.seconds
                ),
            }
            rates: dict[str, list[Rate]] = {name: [] for name in contenders}
            for _ in range(options.repeats):
                for name, contender in contenders.items():
                    rates[name].append(contender())
    title = f"{options.backbone} at {options.size} pixels, {options.members} members, {options.views} views"
    table = Table("contender", "images/s", "of bare", "99th percentile, ms", title=title)
    for name, measured in rates.items():
        rate = median(measured)
        ratio = rate.images / median(rates["bare"]).images
        table.add_row(name, f"{rate.images:,.0f}", f"{ratio:.2f}", f"{1000 * rate.slowest:.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
