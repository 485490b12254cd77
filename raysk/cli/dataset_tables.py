"""A dataset in a few tables: its classes, groups, image sizes and attributes."""

import os
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image
from rich.table import Table
from rich.text import Text

from raysk.data.decodable import UNREADABLE
from raysk.data.manifest import Manifest

MOST_SIZES = 8
CHUNK = 1024


def class_table(manifest: Manifest) -> Table:
    """Returns the images, groups and share of each class, the most frequent first, and its rows by role."""
    roles = sorted(set(manifest.roles) - {""})
    own = np.array(manifest.roles)
    table = _table("class", ["images", "groups", "share", *roles])
    for label in np.argsort(-manifest.class_counts, kind="stable"):
        rows = manifest.labels == label
        by_role = [str(int((own[rows] == role).sum())) for role in roles]
        num_groups = len(np.unique(manifest.groups[rows]))
        share = f"{rows.mean():.2%}"
        table.add_row(Text(manifest.class_names[label]), str(int(rows.sum())), str(num_groups), share, *by_role)
    totals = [str(int((own == role).sum())) for role in roles]
    table.add_section()
    table.add_row("all", str(len(manifest)), str(len(np.unique(manifest.groups))), "", *totals)
    return table


def group_sentence(manifest: Manifest) -> str:
    """Returns what is known of the groups, in words."""
    if not manifest.grouped:
        return (
            "Nothing says which images belong together, so that each is its own group; name the column of the lesion "
            "or patient in data.group if there is one."
        )
    sizes = np.bincount(manifest.groups)
    mixed = _groups_of_several_classes(manifest)
    told = f"{len(sizes)} groups: {(sizes == 1).sum()} of one image, the largest of {sizes.max()}"
    return told + (f"; {mixed} hold several classes." if mixed else ".")


def size_table(manifest: Manifest, progress: Callable[[int, int], None]) -> Table:
    """Returns how many images have each size, the most frequent first; reads the heads of all files.

    Args:
        manifest: Whose images.
        progress: Called with the numbers of images done and in all.
    """
    counts: Counter[tuple[int, int] | None] = Counter()
    paths = manifest.paths
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(paths), CHUNK):
            counts.update(pool.map(_size, paths[start : start + CHUNK]))
            progress(min(start + CHUNK, len(paths)), len(paths))
    unreadable = counts.pop(None, 0)
    table = _table("width × height", ["images"])
    for size, count in counts.most_common(MOST_SIZES):
        if size is not None:
            table.add_row(f"{size[0]} × {size[1]}", str(count))
    if others := counts.most_common()[MOST_SIZES:]:
        table.add_row(f"{len(others)} other sizes", str(sum(count for _, count in others)))
    if unreadable:
        table.add_row("cannot be read", str(unreadable))
    return table


def attribute_table(manifest: Manifest) -> Table:
    """Returns how many values of each attribute are known, how many are different, and the most frequent one."""
    table = _table("attribute", ["known", "different", "most frequent"])
    for name in manifest.attributes:
        column = manifest.table.column(name)
        values = _known_texts(column)
        if values is None or not len(values):
            told = ["0", "0"] if values is not None else [str(len(column) - column.null_count), ""]
            table.add_row(Text(name), *told, "")
            continue
        counts = pc.value_counts(values)
        best = counts[int(np.argmax(counts.field("counts").to_numpy()))].as_py()
        often = f"{best['values']} ({best['counts']})" if best["counts"] > 1 else ""
        table.add_row(Text(name), str(len(values)), str(len(counts)), Text(often))
    return table


def _known_texts(column: pa.ChunkedArray) -> pa.Array | None:
    """Returns the values that are no blanks, or None of a column whose values are no texts, such as lists or bytes."""
    try:
        texts = pc.drop_null(column.cast(pa.string()))
    except pa.ArrowException:
        return None
    return pc.filter(texts, pc.not_equal(texts, "")).combine_chunks()


def _groups_of_several_classes(manifest: Manifest) -> int:
    pairs = np.unique(np.stack([manifest.groups, manifest.labels]), axis=1)
    return int((np.bincount(pairs[0]) > 1).sum())


def _size(path: Path) -> tuple[int, int] | None:
    try:
        with Image.open(path) as image:
            return image.size
    except UNREADABLE:
        return None


def _table(first: str, others: list[str]) -> Table:
    table = Table(first, box=None, padding=(0, 2), header_style="bold")
    for name in others:
        table.add_column(name, justify="left" if name == "most frequent" else "right")
    return table
