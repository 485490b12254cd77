"""Tables of a collection: its classes, groups, image sizes and attributes."""

import os
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.table import Table
from rich.text import Text

from raysk.data.decodable import UNREADABLE, open_image
from raysk.data.manifest import NO_LABEL, Manifest

MOST_SIZES = 8
CHUNK = 1024


def class_table(manifest: Manifest) -> Table:
    """Tabulates the images, groups, share and roles of each class, the most frequent first; then of unlabelled rows."""
    roles = sorted(set(manifest.roles) - {"", "unlabelled"})
    role_of_row = np.array(manifest.roles)
    table = _table("class", ["images", "groups", "share", *roles])
    labels = np.argsort(-manifest.class_counts, kind="stable").tolist()
    for label in [*labels, *[NO_LABEL] * bool(len(manifest.unlabelled_rows))]:
        rows = manifest.labels == label
        by_role = [str(int((role_of_row[rows] == role).sum())) for role in roles]
        num_groups = len(np.unique(manifest.groups[rows]))
        share = f"{rows.sum() / manifest.class_counts.sum():.2%}" if label != NO_LABEL else ""
        table.add_row(Text(manifest.class_name(label)), str(int(rows.sum())), str(num_groups), share, *by_role)
    totals = [str(int((role_of_row == role).sum())) for role in roles]
    table.add_section()
    table.add_row("all", str(len(manifest)), str(len(np.unique(manifest.groups))), "", *totals)
    return table


def group_sentence(manifest: Manifest) -> str:
    """Describes the groups in a sentence."""
    if not manifest.grouped:
        return (
            "No column says which images belong together, so each image is its own group; if the table has a column of "
            "lesions or patients, name it with data.group."
        )
    sizes = np.bincount(manifest.groups)
    mixed = _groups_of_several_classes(manifest)
    sentence = f"{len(sizes)} groups: {(sizes == 1).sum()} of one image, the largest of {sizes.max()}"
    return sentence + (f"; {mixed} contain several classes." if mixed else ".")


def size_table(manifest: Manifest, progress: Callable[[int, int], None]) -> Table:
    """Counts the images of each size, the most frequent size first; reads the headers of all files.

    Args:
        manifest: The rows.
        progress: Called with the number of images done and the total.
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
    """Tabulates the number of known and of different values of each attribute, and the most frequent value."""
    table = _table("attribute", ["known", "different", "most frequent"])
    for name in manifest.attributes:
        column = manifest.table.column(name)
        values = _known_texts(column)
        if values is None or not len(values):
            cells = ["0", "0"] if values is not None else [str(len(column) - column.null_count), ""]
            table.add_row(Text(name), *cells, "")
            continue
        counts = pc.value_counts(values)
        top = counts[int(np.argmax(counts.field("counts").to_numpy()))].as_py()
        most_frequent = f"{top['values']} ({top['counts']})" if top["counts"] > 1 else ""
        table.add_row(Text(name), str(len(values)), str(len(counts)), Text(most_frequent))
    return table


def _known_texts(column: pa.ChunkedArray) -> pa.Array | None:
    """Returns the values that are not blank; None if the values have no text form, such as lists or bytes."""
    try:
        texts = pc.drop_null(column.cast(pa.string()))
    except pa.ArrowException:
        return None
    return pc.filter(texts, pc.not_equal(texts, "")).combine_chunks()


def _groups_of_several_classes(manifest: Manifest) -> int:
    labelled = manifest.labels != NO_LABEL
    pairs = np.unique(np.stack([manifest.groups[labelled], manifest.labels[labelled]]), axis=1)
    return int((np.bincount(pairs[0]) > 1).sum())


def _size(path: Path) -> tuple[int, int] | None:
    if not path.is_file():  # opening a pipe would wait for ever
        return None
    try:
        with open_image(path) as image:
            return image.size
    except UNREADABLE:
        return None


def _table(first: str, others: list[str]) -> Table:
    table = Table(first, box=None, padding=(0, 2), header_style="bold")
    for name in others:
        table.add_column(name, justify="left" if name == "most frequent" else "right")
    return table
