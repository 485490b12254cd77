"""Time of an audit for exact duplicates and near-duplicates, and its recall of planted copies.

The files are the images of a folder, or drawn images, and planted copies of some of them: re-encoded as JPEG of quality
70, mirrored, turned by 90 degrees, rescaled to 80 and 120 % (each re-encoded too), and cropped by 5 and 10 % at a
random place, which goes beyond the promise of the audit. `scan_files` reads all of them (on all cores) and `find_alike`
compares them. Recall is the share of a kind's copies that are paired with their original. Pairs that were not planted
are counted separately: in a folder of photographs they may be true, and need a look.

Peer, if installed: imagehash (`pip install imagehash`), the usual perceptual hash (phash, 64 bits), with a hash for
each of the eight orientations of a file, which turned copies require; only the hashing is timed, on a sample.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, process_time

import numpy as np
from PIL import Image, ImageOps
from rich.console import Console
from rich.table import Table

from raysk.data.audit.near_duplicates import NearDuplicates, find_alike
from raysk.data.audit.scanning import Scan, scan_files
from raysk.data.sources import IMAGE_SUFFIXES
from raysk.data.synthetic import make_synthetic

DRAWN_PIXELS = 128
PEER_SAMPLE = 500

Copy = Callable[[Image.Image, np.random.Generator], Image.Image]


def rescaled(share: float) -> Copy:
    return lambda image, random: image.resize((round(image.width * share), round(image.height * share)))


def cropped(share: float) -> Copy:
    def crop(image: Image.Image, random: np.random.Generator) -> Image.Image:
        left, top = random.random(2) * share * np.array(image.size)
        return image.crop(
            (int(left), int(top), int(left + image.width * (1 - share)), int(top + image.height * (1 - share)))
        )

    return crop


KINDS: dict[str, Copy] = {
    "re-encoded": lambda image, random: image,
    "mirrored": lambda image, random: ImageOps.mirror(image),
    "turned by 90": lambda image, random: image.transpose(Image.Transpose.ROTATE_90),
    "scaled to 80 %": rescaled(0.8),
    "scaled to 120 %": rescaled(1.2),
    "cropped by 5 %": cropped(0.05),
    "cropped by 10 %": cropped(0.1),
}


def plant(paths: list[Path], folder: Path, num_each: int) -> list[tuple[str, int, Path]]:
    """Writes copies of random images; returns the kind, the number of the original and the file of each copy."""
    random = np.random.default_rng(0)
    planted = []
    for kind, copy in KINDS.items():
        for original in random.choice(len(paths), min(num_each, len(paths)), replace=False).tolist():
            file = folder / f"{len(planted)}.jpg"
            with Image.open(paths[original]) as image:
                copy(image.convert("RGB"), random).save(file, quality=70)
            planted.append((kind, original, file))
    return planted


def recall_by_kind(
    planted: list[tuple[str, int, Path]], num_originals: int, near_duplicates: NearDuplicates
) -> dict[str, float]:
    """Returns the share of the copies of each kind that are paired with their original."""
    pairs = {(int(first), int(second)) for first, second in near_duplicates.pairs}
    hits: dict[str, list[bool]] = {kind: [] for kind in KINDS}
    for number, (kind, original, _) in enumerate(planted):
        hits[kind].append((original, num_originals + number) in pairs)
    return {kind: float(np.mean(is_paired)) for kind, is_paired in hits.items() if is_paired}


def peer_rate(paths: list[Path]) -> float | None:
    """Returns the images per second that imagehash hashes in eight orientations, in one thread; None without it."""
    try:
        import imagehash
    except ImportError:
        return None
    began = perf_counter()
    for path in paths[:PEER_SAMPLE]:
        with Image.open(path) as image:
            for turn in (None, *Image.Transpose):
                imagehash.phash(image if turn is None else image.transpose(turn))
    return min(PEER_SAMPLE, len(paths)) / (perf_counter() - began)


def compare(scan: Scan) -> NearDuplicates:
    return find_alike(scan.pictures, np.flatnonzero(scan.readable & ~scan.one_colour))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="folder of image files; drawn images if not given")
    parser.add_argument("--num-images", type=int, default=10_000, help="total number, including the copies")
    parser.add_argument("--copies", type=int, default=500, help="number of copies of each kind")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary:
        folder = Path(temporary)
        num_copies = options.copies * len(KINDS)
        if options.images is None:
            make_synthetic(folder / "drawn", options.num_images - num_copies, DRAWN_PIXELS, seed=0)
        source = options.images or folder / "drawn" / "images"
        originals = sorted(path for path in source.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
        originals = originals[: max(1, options.num_images - num_copies)]
        planted = plant(originals, folder, options.copies)
        paths = originals + [file for _, _, file in planted]
        began, cpu = perf_counter(), process_time()
        scan = scan_files(paths)
        read = perf_counter() - began
        near_duplicates = compare(scan)
        seconds, cpu = perf_counter() - began, process_time() - cpu
        table = Table("what", "value", title=f"{len(paths)} files, {len(planted)} of them planted copies")
        table.add_row("seconds", f"{seconds:.1f} ({read:.1f} of them reading; {cpu:.1f} of processor time)")
        table.add_row("images per second", f"{len(paths) / seconds:,.0f}")
        table.add_row("pairs compared", f"{near_duplicates.num_candidates:,} of {len(paths) * (len(paths) - 1) // 2:,}")
        for kind, recall in recall_by_kind(planted, len(originals), near_duplicates).items():
            table.add_row(f"recall, {kind}", f"{recall:.3f}")
        among = int((near_duplicates.pairs[:, 1] < len(originals)).sum())
        table.add_row("pairs found", f"{len(near_duplicates.pairs):,}, {among} of them among the originals")
        rate = peer_rate(originals)
        hashing = "not installed" if rate is None else f"{rate:,.0f} images per second, hashing alone, one thread"
        table.add_row("imagehash, eight orientations", hashing)
        Console().print(table)


if __name__ == "__main__":
    main()
