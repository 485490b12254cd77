"""Builds image stores: in parallel and for several sizes at once; an interrupted build resumes."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from raysk.artifacts import digest_of, locked, replacing, write_json
from raysk.data.crop import Crop, Window, as_plain, crop_facts, windows_of
from raysk.data.manifest import Manifest
from raysk.data.store.chunks import (
    Chunk,
    Spread,
    below,
    in_threads,
    make_chunks,
    missing_chunks,
    read_chunk,
    remove_folder,
)
from raysk.data.store.image_store import BadImage, ImageStore, find_store, note_state, pixel_digest
from raysk.data.store.shared_stores import publish
from raysk.errors import ArtifactError, ConfigError, DataError, in_one_line

FORMAT_VERSION = 4

ProgressCallback = Callable[[int, int], None]


def build_store(
    manifest: Manifest,
    size: int,
    cache: Path,
    on_error: str = "refuse",
    progress: ProgressCallback | None = None,
    *,
    crop: Crop = Crop(),  # noqa: B008 - settings cannot be changed
    shared: str | None = None,
    spread: Spread = in_threads,
) -> tuple[ImageStore, list[BadImage]]:
    """Finds or builds the store of one size; see `build_stores`."""
    stores, bad = build_stores(manifest, [size], cache, on_error, progress, crop=crop, shared=shared, spread=spread)
    return stores[0], bad


def build_stores(
    manifest: Manifest,
    sizes: Sequence[int],
    cache: Path,
    on_error: str = "refuse",
    progress: ProgressCallback | None = None,
    *,
    crop: Crop = Crop(),  # noqa: B008 - settings cannot be changed
    shared: str | None = None,
    spread: Spread = in_threads,
) -> tuple[list[ImageStore], list[BadImage]]:
    """Finds the stores of these files at these sizes, or decodes every file once for all missing sizes.

    Files are identified by path, number of bytes and modification time: a change in any of them gives a new store, as a
    change of the manifest's bits does. An
    interrupted build resumes. If several processes on one machine need a store, one builds it and the others wait.

    Args:
        manifest: The manifest of the images.
        sizes: Heights and widths in pixels.
        cache: The folder of stores on this machine.
        on_error: How to handle unreadable images, "refuse" or "skip".
        progress: Called with the number of images done and the total.
        crop: The part of each picture to keep.
        shared: A folder, or an address such as s3://bucket/prefix, that all machines reach: existing stores are copied
            from it, and new stores are copied to it.
        spread: Decodes the chunks; `shared` is required if it uses other machines.

    Returns:
        The stores of the readable images, and the unreadable images, whose rows the caller must drop.

    Raises:
        DataError: Images are unreadable and `on_error` is "refuse", or none is readable, or the disk is too full.
        ArtifactError: A folder cannot be written.
    """
    if min(sizes, default=0) < 1 or on_error not in ("refuse", "skip"):
        raise ConfigError(
            f"a store must have a size of at least 1 and on_error 'refuse' or 'skip', but got {list(sizes)} and "
            f"{on_error!r}: correct it"
        )
    keys = _store_keys(manifest, sizes, crop)
    if missing := [size for size in sizes if find_store(keys[size], cache, shared) is None]:
        _check_disk(len(manifest), missing, cache)
        with locked(cache / f".building-{digest_of(keys)}"):
            # Another process may have built them while this one waited.
            missing = [size for size in missing if find_store(keys[size], cache, shared) is None]
            if missing:
                try:
                    windows = windows_of(manifest, crop, on_error)
                    _build(manifest, windows, {size: keys[size] for size in missing}, cache, progress, shared, spread)
                except OSError as error:
                    where = str(cache) if shared is None else f"{cache} and stores={shared}"
                    reason = in_one_line(error)
                    raise ArtifactError(
                        f"{where} must be writable, but {reason}: correct stores, or free space"
                    ) from error
    stores = [ImageStore.open(cache / f"store-{keys[size]}") for size in sizes]
    if shared is not None:
        for store in stores:
            publish(store.folder, shared)
    bad = stores[0].bad
    if bad and (on_error == "refuse" or len(bad) == len(manifest)):
        first = ", ".join(f"{image.path} ({image.reason})" for image in bad[:3])
        raise DataError(
            f"every image must be readable, but {len(bad)} of {len(manifest)} are not: {first}"
            f"{', …' if len(bad) > 3 else ''}; restore them, or set data.on_error=skip to leave out their rows"
        )
    return stores, bad


def _store_keys(manifest: Manifest, sizes: Sequence[int], crop: Crop) -> dict[int, str]:
    files = []
    for image, path in zip(manifest.table.column("image").to_pylist(), manifest.paths, strict=True):
        try:
            status = path.stat()
            files.append([image, status.st_size, status.st_mtime_ns])
        except OSError:
            files.append([image, None, None])
    facts = {"files": digest_of(files), "version": FORMAT_VERSION}
    facts |= {} if manifest.bits is None else {"bits": manifest.bits}
    facts |= crop_facts(manifest, crop)
    return {size: digest_of(facts | {"size": size}) for size in sizes}


def _check_disk(num_images: int, sizes: Sequence[int], cache: Path) -> None:
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArtifactError(
            f"{cache} must be writable, but {error.strerror}: free space or choose another folder"
        ) from error
    # The largest size is written three times: as chunks, as collected pixels, and as the store, whose file states its
    # length before its pixels.
    needed = sum(num_images * size * size * 3 for size in sizes) + 2 * num_images * max(sizes) ** 2 * 3
    free = shutil.disk_usage(cache).free
    if needed > free:
        shapes = " and ".join(f"{size} by {size}" for size in sizes)
        raise DataError(
            f"writing the image store needs {needed / 1e9:.1f} GB ({num_images} images of {shapes} pixels of 3 bytes), "
            f"but {cache} has {free / 1e9:.1f} GB free: free space, or use smaller images"
        )


def _build(
    manifest: Manifest,
    windows: Sequence[Window | None],
    keys: dict[int, str],
    cache: Path,
    progress: ProgressCallback | None,
    shared: str | None,
    spread: Spread,
) -> None:
    """Decodes the missing chunks, and assembles the stores from all chunks."""
    # Only other machines need chunks in the shared folder; threads of this machine write them into its own cache.
    reachable = str(cache) if shared is None or spread is in_threads else shared
    place = below(reachable, f"building-{digest_of(keys)}")
    chunks = make_chunks(manifest.paths, list(keys), place, manifest.bits, as_plain(windows))
    missing = missing_chunks(chunks)
    done = len(manifest) - sum(len(chunk.paths) for chunk in missing)
    for chunk in spread(missing):
        done += len(chunk.paths)
        if progress is not None:
            progress(done, len(manifest))
    for size, key in keys.items():
        if find_store(key, cache) is not None:
            continue  # Another process has meanwhile built this size together with other sizes.
        folder = cache / f"store-{key}"
        shutil.rmtree(folder, ignore_errors=True)  # A folder without its header is the rest of a removed store.
        with replacing(folder) as temporary:
            temporary.mkdir()
            _write_store(temporary, chunks, size)
    remove_folder(place)


def _write_store(folder: Path, chunks: Sequence[Chunk], size: int) -> None:
    collected = folder / "pixels.raw"
    digest = pixel_digest(size)
    good: list[int] = []
    bad: list[BadImage] = []
    with collected.open("wb") as file:
        for chunk in chunks:
            table = read_chunk(chunk, size)
            for row, reason in zip(table.column("row").to_pylist(), table.column("reason").to_pylist(), strict=True):
                if reason is None:
                    good.append(row)
                else:
                    bad.append(BadImage(row, chunk.paths[row - chunk.first_row], reason))
            pixels = table.filter(pc.is_null(table.column("reason"))).column("pixels").combine_chunks()
            content = memoryview(pixels.buffers()[1])[: len(pixels) * size * size * 3] if len(pixels) else b""
            digest.update(content)
            file.write(content)
    _write_arrow(folder / "images.arrow", collected, good, size)
    collected.unlink()
    header = {
        "size": size,
        "digest": digest.hexdigest(),
        "bytes": (folder / "images.arrow").stat().st_size,
        "bad": [asdict(image) for image in bad],
    }
    write_json(folder / "store.json", header)
    note_state(folder)


def _write_arrow(path: Path, collected: Path, rows: list[int], size: int) -> None:
    """Writes one record batch, so that the pixels are contiguous in memory when the file is mapped."""
    pixel_type = pa.binary(size * size * 3)
    pixels = pa.memory_map(str(collected)).read_buffer() if rows else pa.py_buffer(b"")
    column = pa.FixedSizeBinaryArray.from_buffers(pixel_type, len(rows), [None, pixels])
    batch = pa.record_batch([pa.array(rows, pa.int64()), column], names=["row", "pixels"])
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, batch.schema) as writer:
        writer.write_batch(batch)
