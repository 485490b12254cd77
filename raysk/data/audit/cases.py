"""The cases of a dataset with unlabelled rows: what must not be on both sides of a fold, also without a label."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa

from raysk.artifacts import digest_of
from raysk.data.audit.joining import components
from raysk.data.audit.near_duplicates import find_alike
from raysk.data.audit.scanning import scan_files
from raysk.data.manifest import IntArray, Manifest
from raysk.data.parquet import read_parquet, write_parquet
from raysk.errors import ArtifactError, DataError

# Part of the name of a kept file. Raise it when other pictures would be found alike.
_VERSION = 1


def cases_of(
    manifest: Manifest, pixels: str, cache: Path, progress: Callable[[int, int], None] | None = None
) -> IntArray:
    """Returns the case of each row, (N,): rows that share a group or a picture, directly or through others, are one.

    Pictures are compared as an audit compares them. The result is kept in the cache under the content of the rows.

    Args:
        manifest: The rows; their files are read.
        pixels: A digest of the rows with their pixels.
        cache: Folder for the result.
        progress: Called with the number of files read and the total, then with those of the pictures compared.

    Raises:
        DataError: An image cannot be read, so that its copies would not be found.
    """
    path = cache / f"cases-{digest_of({'pixels': pixels, 'version': _VERSION})}.parquet"
    with suppress(ArtifactError):  # it is missing, or damaged
        return read_parquet(path, "cases")[0].column("case").to_numpy().astype(np.int64)
    scan = scan_files(manifest.paths, progress, manifest.bits)
    if not scan.readable.all():
        row = int(np.argmin(scan.readable))
        raise DataError(
            f"every image must be readable, so that its unlabelled copies are found, but {manifest.paths[row]} is not "
            f"({scan.reasons[row]}): restore it, or remove its row"
        )
    shown = np.flatnonzero(scan.readable & ~scan.one_colour)
    alike = find_alike(scan.pictures, shown, progress)
    _, first = np.unique(manifest.groups, return_index=True)
    tied = np.stack([first[manifest.groups], np.arange(len(manifest))], axis=1)
    cases = components(len(manifest), [*tied.tolist(), *alike.pairs.tolist()])
    write_parquet(path, "cases", pa.table({"case": cases}), {})
    return cases
