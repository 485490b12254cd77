"""Joins groups that share a picture, so that no fold separates them."""

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


def components(num_nodes: int, pairs: Iterable[Sequence[int]]) -> IntArray:
    """Returns the connected component of each node, (num_nodes,), numbered by first appearance."""
    ends = np.array([tuple(pair) for pair in pairs], dtype=np.int64).reshape(-1, 2)
    graph = coo_matrix((np.ones(len(ends), dtype=bool), (ends[:, 0], ends[:, 1])), shape=(num_nodes, num_nodes))
    component = connected_components(graph, directed=False)[1]
    _, first, member = np.unique(component, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[member].astype(np.int64)


def joined_groups(manifest: Manifest, pairs: Iterable[Sequence[int]]) -> Manifest:
    """Joins the groups that pairs of rows connect, directly or through other groups.

    A joined group takes the name of the first of its groups in the table; all other groups keep their names.

    Args:
        manifest: The rows.
        pairs: Pairs of rows that must be in one group.
    """
    pairs = [tuple(pair) for pair in pairs]
    ends = [(int(manifest.groups[row]), int(manifest.groups[other])) for row, other in pairs]
    joined = components(int(manifest.groups.max()) + 1, ends)
    names = manifest.table.column("group").to_pylist()
    component = joined[manifest.groups]
    _, first = np.unique(component, return_index=True)
    column = pa.array([names[first[number]] for number in component], pa.string())
    place = manifest.table.column_names.index("group")
    table = manifest.table.set_column(place, "group", column)
    return replace(manifest, table=table, grouped=manifest.grouped or bool(pairs))


def shared_extras(manifest: Manifest) -> list[int]:
    """Returns the train_only rows whose group has rows that may be scored, since folds cannot separate them."""
    roles = np.array(manifest.roles)
    extra = roles == "train_only"
    others = np.unique(manifest.groups[~extra & (roles != "unlabelled")])
    return np.flatnonzero(extra & np.isin(manifest.groups, others)).tolist()


def write_table(manifest: Manifest, path: Path) -> None:
    """Writes the rows as a Parquet table that raysk reads with data=parquet data.path=PATH.

    Paths of images below the table's folder are relative to it, all others absolute.
    """
    folder = path.parent.resolve()
    absolute = [image.absolute() for image in manifest.paths]
    images = [relpath(image, folder) if image.is_relative_to(folder) else str(image) for image in absolute]
    place = manifest.table.column_names.index("image")
    table = manifest.table.set_column(place, "image", pa.array(images, pa.string()))
    with replacing(path) as temporary:
        pq.write_table(table.replace_schema_metadata(None), temporary, compression="zstd")
