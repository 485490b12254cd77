"""Joining groups whose pictures are the same, so that no fold parts them."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from os.path import relpath
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from raysk.artifacts import replacing
from raysk.data.manifest import IntArray, Manifest


def components(num: int, pairs: Iterable[Sequence[int]]) -> IntArray:
    """Returns the component of each of `num` things that pairs connect, numbered by their first appearance."""
    ends = np.array([tuple(pair) for pair in pairs], dtype=np.int64).reshape(-1, 2)
    graph = coo_matrix((np.ones(len(ends), dtype=bool), (ends[:, 0], ends[:, 1])), shape=(num, num))
    found = connected_components(graph, directed=False)[1]
    _, first, member = np.unique(found, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[member].astype(np.int64)


def joined_groups(manifest: Manifest, pairs: Iterable[Sequence[int]]) -> Manifest:
    """Returns the manifest with the groups joined that have rows of a pair, also through other groups.

    A joined group has the name of that of its groups which comes first in the table; all others keep their names.

    Args:
        manifest: The rows.
        pairs: Rows that must not be parted.
    """
    pairs = [tuple(pair) for pair in pairs]
    ends = [(int(manifest.groups[one]), int(manifest.groups[other])) for one, other in pairs]
    joined = components(int(manifest.groups.max()) + 1, ends)
    names = manifest.table.column("group").to_pylist()
    component = joined[manifest.groups]
    _, first = np.unique(component, return_index=True)
    column = pa.array([names[first[one]] for one in component], pa.string())
    place = manifest.table.column_names.index("group")
    table = manifest.table.set_column(place, "group", column)
    return replace(manifest, table=table, grouped=manifest.grouped or bool(pairs))


def shared_extras(manifest: Manifest) -> list[int]:
    """Returns the rows with the role train_only whose group has rows of other roles, which folds could not part."""
    extra = np.array(manifest.roles) == "train_only"
    others = np.unique(manifest.groups[~extra])
    return np.flatnonzero(extra & np.isin(manifest.groups, others)).tolist()


def write_table(manifest: Manifest, path: Path) -> None:
    """Writes the rows as a Parquet table that the csv source reads back: data=csv data.path=PATH.

    Images below the table's folder are written relative to it, all others in full.
    """
    folder = path.parent.resolve()
    full = [image.absolute() for image in manifest.paths]
    below = [relpath(image, folder) if image.is_relative_to(folder) else str(image) for image in full]
    place = manifest.table.column_names.index("image")
    table = manifest.table.set_column(place, "image", pa.array(below, pa.string()))
    with replacing(path) as temporary:
        pq.write_table(table.replace_schema_metadata(None), temporary, compression="zstd")
