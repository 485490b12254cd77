"""Prediction of new images: raysk predict against bare forward passes, and against a DataLoader for each pass.

Five resnet18 with random weights, each in eight test-time views: 40 forward passes over each image. The images are
drawn, enlarged to 450 pixels, the height of HAM10000's, as PNG files, and predicted at 64 pixels. All contenders use
the same networks, batches and threads, take turns, and the medians of the repeats are compared, in images per second.

- predict: what `raysk predict` does, from image files to a CSV file.
- pixels: the same network on decoded pixels, without any file.
- bare: the backbones and heads alone, on tensors that are normalised, turned and in memory before the clock starts.
- loader: a DataLoader of two processes for each member and view, which decodes, turns and normalises: the usual script.
  Only some of the 40 passes run (`--loader-passes`), and their time is scaled.
- onnx: the same bundle as a graph of ONNX Runtime on the CPU, from decoded pixels; left out without the extra.

The goals: predict takes at most 1.15 times as long as bare, and the loader takes at least twice as long as predict.
Exits with 1 if two contenders disagree about a probability.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import torch
from drawn_bundle import CLASSES, random_bundle
from PIL import Image
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from raysk.data.store.decoding import decode
from raysk.data.synthetic import make_synthetic
from raysk.data.views import DIHEDRAL
from raysk.inference.bundle import Bundle
from raysk.inference.parts import Parts
from raysk.inference.predictor import Predictor
from raysk.inference.streaming import predict_missing
from raysk.inference.tables import list_images
from raysk.inference.turning import TURNS
from raysk.parts.encoder import Encoder

MEMBERS = 5
PIXELS = 64
DRAWN_PIXELS, FILE_PIXELS = 96, 450
TOLERANCE = 1e-5

# A member, and a view of the images.
Pass = tuple[int, str]
PASSES: list[Pass] = [(member, view) for member in range(MEMBERS) for view in DIHEDRAL]

# Predicts images and returns the seconds and the probabilities, (N, C).
Contender = Callable[[], tuple[float, np.ndarray]]


def draw_files(workplace: Path, num_images: int) -> Path:
    """Returns a folder of drawn images; drawing them at their size would take longer than predicting them."""
    make_synthetic(workplace / "drawn", num_images=num_images, size=DRAWN_PIXELS, seed=0)
    folder = workplace / "images"
    folder.mkdir()
    for path in (workplace / "drawn" / "images").iterdir():
        with Image.open(path) as image:
            image.resize((FILE_PIXELS, FILE_PIXELS)).save(folder / path.name, compress_level=1)
    return folder


class Bare:
    """The forward passes alone.

    Args:
        predictor: Has the networks.
        pixels: (N, H, W, 3) uint8.
    """

    def __init__(self, predictor: Predictor, pixels: Tensor) -> None:
        self.network, self.length = predictor.network, predictor.batch_length
        encoder = self.network.encoders[0]
        self.views = {
            view: [
                TURNS[view](batch).contiguous().permute(0, 3, 1, 2).float().div(255).sub(encoder.mean).div(encoder.std)
                for batch in pixels.split(self.length)
            ]
            for view in DIHEDRAL
        }

    def __call__(self, passes: Sequence[Pass] = PASSES) -> tuple[float, np.ndarray]:
        """Predicts with some of the passes; returns their mean."""
        began = perf_counter()
        totals = [torch.zeros(len(images), len(CLASSES)) for images in self.views["identity"]]
        with torch.inference_mode():
            for member, view in passes:
                encoder, head = self.network.encoders[member], self.network.heads[member]
                for total, images in zip(totals, self.views[view], strict=True):
                    total += head(encoder.backbone(images)).softmax(dim=1)
        result = (torch.cat(totals) / len(passes)).numpy()
        return perf_counter() - began, result


class Turned(Dataset[Tensor]):
    """The images of files in one view, as a usual script reads them."""

    def __init__(self, paths: list[str], view: str, encoder: Encoder) -> None:
        self.paths, self.turn = paths, TURNS[view]
        self.mean, self.std = encoder.mean[0], encoder.std[0]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, place: int) -> Tensor:
        with Image.open(self.paths[place]) as image:
            pixels = np.array(image.convert("RGB").resize((PIXELS, PIXELS), Image.Resampling.BICUBIC))
        turned = self.turn(torch.from_numpy(pixels)[None])[0]
        return turned.permute(2, 0, 1).float().div(255).sub(self.mean).div(self.std)


def loader(predictor: Predictor, paths: list[str], passes: Sequence[Pass]) -> Contender:
    network = predictor.network

    def run() -> tuple[float, np.ndarray]:
        began = perf_counter()
        total = torch.zeros(len(paths), len(CLASSES))
        with torch.inference_mode():
            for member, view in passes:
                encoder, head = network.encoders[member], network.heads[member]
                batches = DataLoader(Turned(paths, view, encoder), predictor.batch_length, num_workers=2)
                total += torch.cat([head(encoder.backbone(images)).softmax(dim=1) for images in batches])
        # All passes take as long as these.
        return (perf_counter() - began) * len(PASSES) / len(passes), (total / len(passes)).numpy()

    return run


def whole(predictor: Predictor, bundle: Bundle, folder: Path, workplace: Path) -> Contender:
    def run() -> tuple[float, np.ndarray]:
        began = perf_counter()
        output = workplace / "predictions.csv"
        parts = Parts(bundle, list_images([str(folder)]), output)
        with parts.reserved():
            predict_missing(predictor, parts, lambda done, total: None)
            parts.join()
        seconds = perf_counter() - began
        rows = np.genfromtxt(output, delimiter=",", skip_header=1, usecols=range(3, 3 + len(CLASSES)))
        output.unlink()
        return seconds, rows

    return run


def on_pixels(predictor: Predictor, decoded: list[list[np.ndarray]]) -> Contender:
    length = predictor.batch_length

    def run() -> tuple[float, np.ndarray]:
        began = perf_counter()
        batches = [decoded[start : start + length] for start in range(0, len(decoded), length)]
        blocks = [predictor.predict_pixels(batch).probabilities for batch in batches]
        return perf_counter() - began, np.concatenate(blocks)

    return run


def onnx(bundle: Bundle, pixels: np.ndarray, workplace: Path, length: int) -> Contender | None:
    """The graph in ONNX Runtime; None without the extra."""
    try:
        import onnxruntime

        from raysk.inference.exporting import export_onnx, input_names
    except ImportError:
        return None
    path = workplace / "graph.onnx"
    export_onnx(bundle, path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (name,) = input_names(bundle)

    def run() -> tuple[float, np.ndarray]:
        began = perf_counter()
        batches = [pixels[start : start + length] for start in range(0, len(pixels), length)]
        blocks = [session.run(None, {name: batch})[0] for batch in batches]
        return perf_counter() - began, np.concatenate(blocks)

    return run


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000, help="number of images (1000)")
    parser.add_argument("--loader-passes", type=int, default=4, help="passes of the loader, of 40 (4)")
    parser.add_argument("--backbone", default="resnet18", help="timm name (resnet18)")
    parser.add_argument("--repeats", type=int, default=1, help="number of turns (1)")
    arguments = parser.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    with tempfile.TemporaryDirectory() as temporary:
        workplace = Path(temporary)
        folder = draw_files(workplace, arguments.images)
        paths = [image.path for image in list_images([str(folder)])]
        decoded = [decode(Path(path), [PIXELS]) for path in paths]
        pixels = np.stack([sizes[0] for sizes in decoded])
        bundle = random_bundle(arguments.backbone, PIXELS, MEMBERS, len(DIHEDRAL))
        predictor = Predictor(bundle, "cpu")
        bare = Bare(predictor, torch.from_numpy(pixels))
        passes = PASSES[: arguments.loader_passes]
        contenders: dict[str, Contender | None] = {
            "bare": bare,
            "pixels": on_pixels(predictor, decoded),
            "predict": whole(predictor, bundle, folder, workplace),
            "loader": loader(predictor, paths, passes),
            "onnx": onnx(bundle, pixels, workplace, predictor.batch_length),
        }
        running = {name: run for name, run in contenders.items() if run is not None}
        rates: dict[str, list[float]] = {name: [] for name in running}
        _, of_all = bare()
        _, of_few = bare(passes)
        differs = False
        for _ in range(arguments.repeats):
            for name, run in running.items():
                seconds, probabilities = run()
                rates[name].append(len(paths) / seconds)
                difference = float(np.abs(probabilities - (of_few if name == "loader" else of_all)).max())
                if difference > (1e-4 if name == "onnx" else TOLERANCE):
                    print(f"{name} disagrees by {difference:.1e}", file=sys.stderr)
                    differs = True
    show(rates, arguments.images)
    return int(differs)


def show(rates: dict[str, list[float]], num_images: int) -> None:
    medians = {name: median(values) for name, values in rates.items()}
    table = Table("contender", "images/s", "time against bare", "range of images/s", box=MARKDOWN)
    for name, rate in medians.items():
        spread = f"{min(rates[name]):.1f} to {max(rates[name]):.1f}"
        table.add_row(name, f"{rate:.1f}", f"{medians['bare'] / rate:.2f}", spread)
    console = Console(width=110)
    console.print(f"{MEMBERS} members × {len(DIHEDRAL)} views, {num_images} images, {torch.get_num_threads()} threads")
    console.print(table)
    ratio, speedup = medians["bare"] / medians["predict"], medians["predict"] / medians["loader"]
    console.print(f"predict takes {ratio:.2f} times as long as bare (goal: at most 1.15)")
    console.print(f"the loader takes {speedup:.2f} times as long as predict (goal: at least 2)")
    if "onnx" not in medians:
        console.print("onnx was left out: the extra is not installed")


if __name__ == "__main__":
    sys.exit(main())
