"""Images per second into a batch: raysk's image store against other readers of image folders.

All contenders give the images of the same folder in tensors of 128, at the same size; every byte of a batch is read
once, as a copy to an accelerator would read it. An epoch is timed after one that starts the processes and reads every
file, so that no disk is measured. Loaders have two processes each, and give uint8, except for timm's.

- ImageFolder: the pattern of torchvision. Pillow opens the file, converts it to RGB, scales its shorter side and crops
  the centre.
- timm: its `ImageDataset` and `create_loader`, without its prefetcher, which needs a GPU, and with its own evaluation
  transform, which does the same and normalises to floats.
- datasets: an `imagefolder` of Hugging Face, decoded by the library, with the transform of the first.
- store: `ImageBatches`, as training on a CPU uses it: in one thread of the training process, without other processes.
  The images were decoded once into the store; the table shows that time, and after how many epochs it pays for itself.
- copy: the same bytes copied from one array to another, which no reader can outrun.

With `--views supcon` each image is shown twice, as it is and as SuperCon augments it: a random crop, colour, grey,
flip, blur. The peers use torchvision's transforms for this, raysk uses albumentations.

Contenders take turns and the medians of the repeats are compared, since the machine may be shared. Pixels are not equal
to the last bit: the store lets JPEG decoding skip detail that the size does not need, and scales bicubically.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from raysk.data.manifest import Manifest, make_manifest
from raysk.data.sources import IMAGE_SUFFIXES
from raysk.data.store.building import build_store
from raysk.data.synthetic import make_synthetic
from raysk.parts.backbones import check_backbone
from raysk.stage import Stage
from raysk.training.batches import ImageBatches, Plan
from raysk.training.world import World

BATCH_SIZE = 128
NUM_WORKERS = 2
DRAWN_PIXELS = 256
VIEWS = {"none": ("none",), "supcon": ("none", "supercon")}
STORE_PASSES = {"none": 20, "supcon": 1}  # over the images in each repeat, since one may take a fraction of a second

Transform = Callable[[Image.Image], Tensor]
# One epoch of batches.
Contender = Callable[[], Iterator[Tensor]]


def to_tensor(image: Image.Image) -> Tensor:
    """Returns (H, W, 3), uint8."""
    return torch.from_numpy(np.array(image))


def transform_of(size: int, views: str) -> Transform:
    """Returns the peers' transform of a decoded image to (V, H, W, 3)."""
    check_backbone("resnet18")  # imports timm, which declares what torchvision looks up beside a torch for CPUs
    from torchvision import transforms

    plain = transforms.Compose([transforms.Resize(size), transforms.CenterCrop(size)])
    supercon = transforms.Compose(
        [
            transforms.RandomResizedCrop(size, scale=(0.08, 1.0)),
            transforms.RandomApply([transforms.ColorJitter(0.8, 0.8, 0.8, 0.2)], 0.3),
            transforms.RandomGrayscale(0.2),
            transforms.RandomHorizontalFlip(0.5),
            transforms.RandomApply([transforms.GaussianBlur(3, (1.0, 2.0))], 0.2),
        ]
    )
    drawn = [plain] if views == "none" else [plain, supercon]
    return lambda image: torch.stack([to_tensor(draw(image)) for draw in drawn])


class Files(Dataset[Tensor]):
    """Opens image files, as torchvision's ImageFolder does."""

    def __init__(self, paths: list[Path], transform: Transform) -> None:
        self.paths, self.transform = paths, transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> Tensor:
        with self.paths[row].open("rb") as file:
            image = Image.open(file).convert("RGB")
        return self.transform(image)


def loader(dataset: Any) -> Contender:
    """Returns a contender that is a `DataLoader`."""
    batches = DataLoader(
        dataset, BATCH_SIZE, shuffle=True, num_workers=NUM_WORKERS, persistent_workers=True, drop_last=True
    )
    return lambda: iter(batches)


def image_folder(manifest: Manifest, size: int, views: str) -> Contender:
    return loader(Files(manifest.paths, transform_of(size, views)))


def timm_loader(manifest: Manifest, size: int, views: str) -> Contender:
    from timm.data import ImageDataset, create_loader

    dataset = ImageDataset(str(class_folders(manifest)))
    batches = create_loader(
        dataset,
        (3, size, size),
        BATCH_SIZE,
        is_training=False,
        use_prefetcher=False,
        num_workers=NUM_WORKERS,
        persistent_workers=True,
        crop_pct=1.0,
    )
    if views != "none":
        dataset.transform = transform_of(size, views)
    return lambda: (images for images, _ in batches)


def hugging_face(manifest: Manifest, size: int, views: str) -> Contender:
    import datasets

    datasets.disable_progress_bars()
    folder = class_folders(manifest)
    rows = datasets.load_dataset("imagefolder", data_dir=str(folder), split="train", cache_dir=str(folder / ".cache"))
    transform = transform_of(size, views)

    def draw(batch: dict[str, list[Image.Image]]) -> dict[str, list[Tensor]]:
        return {"pixels": [transform(image.convert("RGB")) for image in batch["image"]]}

    batches = loader(rows.with_transform(draw))
    return lambda: (batch["pixels"] for batch in batches())


def class_folders(manifest: Manifest) -> Path:
    """Returns a folder of links with one folder per class, as the peers read it."""
    root = manifest.root.parent / f"classes-of-{manifest.root.name}"
    if not root.exists():
        for path, label in zip(manifest.paths, manifest.labels.tolist(), strict=True):
            (root / str(label)).mkdir(parents=True, exist_ok=True)
            (root / str(label) / path.name).symlink_to(path)
    return root


def copies(images: int, size: int, views: str) -> Contender:
    """Returns batches out of one array, in the order of memory."""
    source = torch.zeros((BATCH_SIZE, len(VIEWS[views]), size, size, 3), dtype=torch.uint8)
    return lambda: (source for _ in range(images // BATCH_SIZE))


PEERS = {"ImageFolder": image_folder, "timm": timm_loader, "datasets": hugging_face}


def images_per_second(contender: Contender, passes: int = 1) -> float:
    """Runs epochs and reads every byte."""
    began, images = perf_counter(), 0
    for _ in range(passes):
        for batch in contender():
            batch.clone()
            images += len(batch)
    return images / (perf_counter() - began)


def read_manifest(folder: Path, num_images: int) -> Manifest:
    """Returns the first images of a folder, with arbitrary labels."""
    files = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)[:num_images]
    if len(files) < BATCH_SIZE:
        raise SystemExit(f"--images must have at least {BATCH_SIZE} image files, but {folder} has {len(files)}")
    return make_manifest(files, [f"class {row % 2}" for row in range(len(files))], root=folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="folder of image files; drawn images if not given")
    parser.add_argument("--num-images", type=int, default=1024, help="the most images to use")
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128, 224], help="pixels")
    parser.add_argument("--views", nargs="+", choices=list(VIEWS), default=list(VIEWS))
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary:
        cache = Path(temporary)
        folder = cache / "images"
        if options.images is None:
            make_synthetic(cache / "drawn", options.num_images, DRAWN_PIXELS, seed=0)
            folder = cache / "drawn" / "images"
        else:
            folder.symlink_to(options.images.resolve(), target_is_directory=True)
        manifest = read_manifest(folder, options.num_images)
        with Image.open(manifest.paths[0]) as first:
            kind = f"{len(manifest)} {first.format} images of {first.width} by {first.height}"
        table = Table(title=f"images/s: {kind}, batches of {BATCH_SIZE}, median of {options.repeats}")
        columns = (
            "pixels",
            "views",
            *PEERS,
            "store",
            "against ImageFolder",
            "share of a copy",
            "building, s",
            "pays after",
        )
        for column in columns:
            table.add_column(column, justify="right")
        for views in options.views:
            for size in options.sizes:
                table.add_row(*compare(manifest, size, views, cache, options.repeats))
    Console(width=150).print(table)


def compare(manifest: Manifest, size: int, views: str, cache: Path, repeats: int) -> tuple[str, ...]:
    """Returns a row of the table."""
    began = perf_counter()
    store, _ = build_store(manifest, size, cache / f"stores-{views}")
    building = perf_counter() - began
    plan = Plan(manifest.labels, Stage(batch_size=BATCH_SIZE), 0, World(0, 1, torch.device("cpu")))
    batches = ImageBatches(store, np.arange(len(manifest)), VIEWS[views], plan)
    contenders = {name: make(manifest, size, views) for name, make in PEERS.items()}
    contenders["store"] = lambda: (images for images, _ in batches.epoch(0))
    contenders["copy"] = copies(len(manifest), size, views)
    passes = {"store": STORE_PASSES[views], "copy": 20}
    speeds: dict[str, list[float]] = {name: [] for name in contenders}
    for contender in contenders.values():
        images_per_second(contender)  # Starts the processes, and reads every file once.
    for _ in range(repeats):
        for name, contender in contenders.items():
            speeds[name].append(images_per_second(contender, passes.get(name, 1)))
    rates = {name: median(repeated) for name, repeated in speeds.items()}
    folder_rate, store_rate = rates["ImageFolder"], rates["store"]
    paid = building / (len(manifest) / folder_rate - len(manifest) / store_rate)
    cells = [f"{rates[name]:,.0f}" for name in (*PEERS, "store")]
    return (
        f"{size}", views, *cells, f"{store_rate / folder_rate:.1f}", f"{store_rate / rates['copy']:.1%}",
        f"{building:.2f}", f"{paid:.1f}",
    )  # fmt: skip


if __name__ == "__main__":
    main()
