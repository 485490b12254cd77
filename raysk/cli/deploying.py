"""`raysk export` and `raysk serve`: a classifier in other programs, and over HTTP."""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raysk.errors import ConfigError, DataError

if TYPE_CHECKING:
    from raysk.data.store.decoding import Pixels
    from raysk.inference.bundle import BundleFacts


def add_deploying(commands: Any) -> None:
    """Adds the commands to the parser."""
    export = commands.add_parser("export", help="write a classifier as an ONNX file, or for torch.export")
    export.add_argument("model", type=Path, metavar="RUN|MODEL", help="a run directory, or a file of raysk bundle")
    export.add_argument("--row", metavar="ROW", help="place, name or key of the row of a run (the greedy ensemble)")
    export.add_argument("--onnx", type=Path, metavar="FILE", help="write ONNX; needs pip install 'raysk[onnx]'")
    export.add_argument("--torch", type=Path, metavar="FILE", help="write what torch.export.load reads")
    export.add_argument(
        "--check", type=Path, nargs="+", metavar="IMAGE|DIR", help="compare on these images (on drawn noise)"
    )
    export.set_defaults(run_command=_export)
    serve = commands.add_parser("serve", help="serve a classifier over HTTP, with a page to drop images on")
    serve.add_argument("model", type=Path, metavar="RUN|MODEL", help="a run directory, or a file of raysk bundle")
    serve.add_argument("--row", metavar="ROW", help="place, name or key of the row of a run (the greedy ensemble)")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen at; others see more than 127.0.0.1")
    serve.add_argument("--port", type=int, default=8000, help="port to listen at; 0 takes a free one (8000)")
    serve.add_argument("--max-bytes", type=int, metavar="N", help="largest request (32 MiB)")
    serve.add_argument("--max-image-bytes", type=int, metavar="N", help="largest image file (16 MiB)")
    serve.add_argument("--max-images", type=int, metavar="N", help="most images in a request (32)")
    serve.add_argument("--address", help="serve on this Ray cluster, such as auto (on this machine, without Ray)")
    serve.add_argument("--replicas", type=int, metavar="N", help="processes on the cluster (1)")
    serve.set_defaults(run_command=_serve)


def _export(arguments: argparse.Namespace) -> int:
    if not (arguments.onnx or arguments.torch):
        raise ConfigError("export must write a file, but got none: give --onnx FILE or --torch FILE")
    if arguments.torch and arguments.torch.suffix != ".pt2":
        raise ConfigError(f"--torch must name a file that ends with .pt2, but got {arguments.torch}: rename it")
    from raysk.inference.exporting import TOLERANCE, export_onnx, export_torch
    from raysk.inference.opening import open_bundle

    bundle = open_bundle(arguments.model, arguments.row)
    paths = None if arguments.check is None else _images(arguments.check)
    checked_on = "drawn noise" if paths is None else f"{len(paths)} image{'s' * (len(paths) != 1)}"
    for write, path in ((export_onnx, arguments.onnx), (export_torch, arguments.torch)):
        if path is not None:
            pixels = None if paths is None else _pixels(paths, bundle.facts)
            difference = write(bundle, path, pixels)
            print(
                f"{path}: {path.stat().st_size / 2**20:.1f} MiB; the largest difference from the bundle is "
                f"{difference:.1e} (at most {TOLERANCE:g}) on {checked_on}"
            )
    return 0


def _serve(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from raysk.inference.opening import open_bundle, refuse_row

    if arguments.address is None and arguments.replicas is not None:
        raise ConfigError("--replicas needs a cluster, but got no --address: give it, or leave --replicas out")
    try:
        from raysk.inference.serving.server import Limits, serve

        if arguments.address is not None:
            from raysk.deploy.serve import serve_on_cluster
    except ImportError as error:
        raise ConfigError(f"serve needs {error.name}, which is not installed: pip install 'raysk[serve]'") from error
    given = {
        "request_bytes": arguments.max_bytes,
        "image_bytes": arguments.max_image_bytes,
        "images": arguments.max_images,
    }
    limits = Limits(**{name: number for name, number in given.items() if number is not None})
    where, console = (arguments.host, arguments.port, limits), Console(soft_wrap=True)
    if arguments.address is None:
        serve(open_bundle(arguments.model, arguments.row), *where, console)
        return 0
    if arguments.model.is_dir():
        raise ConfigError(
            f"a cluster must serve one file, but {arguments.model} is a folder: pack its row with raysk bundle"
        )
    refuse_row(arguments.model, arguments.row)
    replicas = 1 if arguments.replicas is None else arguments.replicas
    serve_on_cluster(arguments.model, arguments.address, replicas, *where, console)
    return 0


def _images(paths: Sequence[Path]) -> list[Path]:
    """Returns the images that are named, or that are in the named folders."""
    from raysk.data.sources.files import image_files

    images = [image for path in paths for image in (map(path.joinpath, image_files(path)) if path.is_dir() else [path])]
    if not images:
        raise DataError(f"--check must name images, but found none in {', '.join(map(str, paths))}: name others")
    return images


def _pixels(paths: Sequence[Path], facts: "BundleFacts") -> "Iterator[list[Pixels]]":
    from raysk.inference.images import pixels_of

    for path in paths:
        pixels = pixels_of(path, facts.image_sizes, facts.bits)
        if isinstance(pixels, str):
            raise DataError(f"--check must name readable images, but {path} is not ({pixels}): leave it out")
        yield pixels
