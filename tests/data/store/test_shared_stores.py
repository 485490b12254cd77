"""Stores shared between machines, in a folder and in S3 (moto's server)."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pyarrow import fs

from raysk.data.manifest import Manifest, make_manifest
from raysk.data.store.building import build_store
from raysk.data.store.chunks import Chunk, below, file_system
from raysk.data.store.image_store import find_store
from raysk.errors import ArtifactError


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    names = [f"{number}.png" for number in range(6)]
    for number, name in enumerate(names):
        pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / name)
    return make_manifest(names, ["a", "b"] * 3, root=tmp_path)


def refuse(wanted: Sequence[Chunk]) -> Iterator[Chunk]:
    raise AssertionError("images that another machine has decoded must not be decoded again")


def test_a_machine_copies_the_store_that_another_has_decoded(manifest: Manifest, shared: str, tmp_path: Path) -> None:
    first, _ = build_store(manifest, 16, tmp_path / "first", shared=shared)
    second, _ = build_store(manifest, 16, tmp_path / "second", shared=shared, spread=refuse)
    assert second.folder.is_relative_to(tmp_path / "second")
    assert (second.digest, second.key) == (first.digest, first.key)
    np.testing.assert_array_equal(second.pixels, first.pixels)
    files, root = file_system(shared)
    names = [info.path for info in files.get_file_info(fs.FileSelector(root, recursive=True)) if info.is_file]
    assert sorted(name.rpartition("/")[2] for name in names) == ["images.arrow", "store.json"], "and nothing else"


def test_a_store_that_already_exists_is_shared_too(manifest: Manifest, shared: str, tmp_path: Path) -> None:
    store, _ = build_store(manifest, 16, tmp_path / "first")
    assert find_store(store.key, tmp_path / "second", shared) is None
    build_store(manifest, 16, tmp_path / "first", shared=shared, spread=refuse)
    assert find_store(store.key, tmp_path / "second", shared) is not None


def test_a_machine_without_the_images_finds_the_store_by_its_key(
    manifest: Manifest, shared: str, tmp_path: Path
) -> None:
    store, _ = build_store(manifest, 16, tmp_path / "first", shared=shared)
    for path in manifest.paths:
        path.unlink()
    copy = find_store(store.key, tmp_path / "second", shared)
    assert copy is not None
    np.testing.assert_array_equal(copy.pixels, store.pixels)
    assert find_store("unknown", tmp_path / "second", shared) is None
    assert find_store(store.key, tmp_path / "third") is None


def test_a_damaged_copy_is_refused(manifest: Manifest, shared: str, tmp_path: Path) -> None:
    store, _ = build_store(manifest, 16, tmp_path / "first", shared=shared)
    content = bytearray((store.folder / "images.arrow").read_bytes())
    content[len(content) // 2] ^= 1
    files, root = file_system(below(shared, store.folder.name))
    with files.open_output_stream(f"{root}/images.arrow") as sink:
        sink.write(bytes(content))
    for _ in range(2):  # a copy that fails the check does not stay
        with pytest.raises(ArtifactError, match=f"{store.folder.name} is damaged: remove it there"):
            find_store(store.key, tmp_path / "second", shared)


def test_an_unreachable_address_is_refused_in_one_line(manifest: Manifest, tmp_path: Path) -> None:
    for address, message in (("gopher://there/x", "gopher"), (str(tmp_path / "0.png"), "0.png")):
        with pytest.raises(ArtifactError, match=message) as caught:
            build_store(manifest, 16, tmp_path / "cache", shared=address)
        assert "\n" not in str(caught.value) and "correct stores" in str(caught.value)
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)


def test_an_address_keeps_its_query_at_the_end() -> None:
    assert below("s3://bucket/p?scheme=http", "x") == "s3://bucket/p/x?scheme=http"
    assert below("/folder/", "x") == "/folder/x"
    assert below("/what?/folder", "x") == "/what?/folder/x"
