"""Images per second into a batch: raysk's image store, against decoding the files in a `DataLoader`.

Both contenders give the same rows in the same order, in uint8 tensors of 128 images, without augmentation, and every
byte of a batch is read once, as a copy to an accelerator would.

- files: the usual pattern. A dataset in the manner of torchvision's ImageFolder opens each file with Pillow, converts
  it to RGB, scales its shorter side and crops the centre; a `DataLoader` with two worker processes makes batches. The
  workers are started before the clock, and the files have been read before, so that no disk is measured.
- store: `ImageBatches`, as training on a CPU uses it, in the training process itself, in one thread. The images were
  decoded once into the store; that time is shown, and after how many epochs it has paid for itself.

Contenders take turns and the medians of the repeats are compared, since the machine may be shared. The pixels are not
equal to the last bit: the store lets JPEG decoding skip detail that is not asked for, and scales bicubically.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from raysk.data.manifest import Manifest, make_manifest
from raysk.data.sources import IMAGE_SUFFIXES
from raysk.data.store import build_store
from raysk.data.synthetic import make_synthetic
from raysk.recipe import Stage
from raysk.training.batches import ImageBatches, Plan
from raysk.training.world import World

BATCH_SIZE = 128
NUM_WORKERS = 2
STORE_PASSES = 20  # over the images in each repeat, since one takes a fraction of a second
DRAWN_PIXELS = 256


class Files(Dataset[tuple[Tensor, int]]):
    """Opens image files, scales the shorter side and crops the centre."""

    def __init__(self, paths: list[Path], labels: list[int], size: int) -> None:
        self.paths, self.labels, self.size = paths, labels, size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        with self.paths[row].open("rb") as file:
            image = Image.open(file).convert("RGB")
        scale = self.size / min(image.size)
        width, height = (max(self.size, round(side * scale)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        left, top = (width - self.size) // 2, (height - self.size) // 2
        image = image.crop((left, top, left + self.size, top + self.size))
        return torch.from_numpy(np.array(image)), self.labels[row]


class FileBatches:
    """The usual pattern, with the epochs of `ImageBatches`."""

    def __init__(self, manifest: Manifest, size: int, plan: Plan) -> None:
        self.plan = plan
        self._order: list[list[int]] = []
        self._loader = DataLoader(
            Files(manifest.paths, manifest.labels.tolist(), size),
            batch_sampler=self._order,
            num_workers=NUM_WORKERS,
            persistent_workers=True,
        )

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields images (B, H, W, 3), uint8, and labels (B,)."""
        self._order[:] = [share.tolist() for share in self.plan.shares(epoch)]
        yield from self._loader


def images_per_second(batches: FileBatches | ImageBatches, epoch: int, passes: int) -> float:
    """Runs through epochs and reads every byte."""
    began, images = perf_counter(), 0
    for number in range(passes):
        for inputs, _ in batches.epoch(epoch + number):
            inputs.clone()
            images += len(inputs)
    return images / (perf_counter() - began)


def read_manifest(folder: Path, num_images: int) -> Manifest:
    """Returns the first images of a folder, with labels that no one looks at."""
    files = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)[:num_images]
    if len(files) < BATCH_SIZE:
        raise SystemExit(f"--images must have at least {BATCH_SIZE} image files, but {folder} has {len(files)}")
    return make_manifest(files, [f"class {row % 2}" for row in range(len(files))], root=folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="folder of image files; drawn ones unless given")
    parser.add_argument("--num-images", type=int, default=1024, help="how many of them, at most")
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 224], help="pixels")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary:
        cache = Path(temporary)
        folder = options.images
        if folder is None:
            make_synthetic(cache / "drawn", options.num_images, DRAWN_PIXELS, seed=0)
            folder = cache / "drawn" / "images"
        manifest = read_manifest(folder, options.num_images)
        with Image.open(manifest.paths[0]) as first:
            kind = f"{len(manifest)} {first.format} images of {first.width} by {first.height}"
        table = Table(title=f"{kind}, batches of {BATCH_SIZE}, median of {options.repeats}")
        for column in ("pixels", "files, images/s", "store, images/s", "ratio", "building it, s", "epochs to pay"):
            table.add_column(column, justify="right")
        for size in options.sizes:
            table.add_row(*compare(manifest, size, cache, options.repeats))
    Console().print(table)


def compare(manifest: Manifest, size: int, cache: Path, repeats: int) -> tuple[str, ...]:
    """Returns a row of the table."""
    plan = Plan(manifest.labels, Stage(batch_size=BATCH_SIZE), 0, World(0, 1, torch.device("cpu")))
    files = FileBatches(manifest, size, plan)
    images_per_second(files, 0, 1)  # Starts the workers, and reads every file once.
    began = perf_counter()
    store, _ = build_store(manifest, size, cache)
    building = perf_counter() - began
    stored = ImageBatches(store, np.arange(len(manifest)), ("none",), plan)
    images_per_second(stored, 0, 1)
    speeds: dict[str, list[float]] = {"files": [], "store": []}
    for epoch in range(1, repeats + 1):
        speeds["files"].append(images_per_second(files, epoch, 1))
        speeds["store"].append(images_per_second(stored, epoch, STORE_PASSES))
    usual, ours = median(speeds["files"]), median(speeds["store"])
    paid = building / (len(manifest) / usual - len(manifest) / ours)
    return f"{size}", f"{usual:,.0f}", f"{ours:,.0f}", f"{ours / usual:.1f}", f"{building:.2f}", f"{paid:.1f}"


if __name__ == "__main__":
    main()
