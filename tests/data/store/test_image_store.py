import errno
import os
import pickle
import shutil
import struct
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from raysk.data.manifest import Manifest, make_manifest
from raysk.data.store import chunks
from raysk.data.store.building import build_store, build_stores
from raysk.data.store.chunks import Chunk, decode_chunk, in_threads
from raysk.data.store.image_store import ImageStore, find_store
from raysk.errors import ArtifactError, ConfigError, DataError


def noise(seed: int, height: int = 16, width: int = 16) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def manifest_of(folder: Path, names: list[str]) -> Manifest:
    return make_manifest(names, (["a", "b"] * len(names))[: len(names)], root=folder)


@pytest.fixture
def pictures(tmp_path: Path) -> Manifest:
    """Six PNG files of noise, 16 pixels wide and high."""
    names = [f"{number}.png" for number in range(6)]
    for number, name in enumerate(names):
        Image.fromarray(noise(number)).save(tmp_path / name)
    return manifest_of(tmp_path, names)


def test_images_of_the_right_size_keep_their_pixels(pictures: Manifest, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    store, bad = build_store(pictures, 16, tmp_path / "cache", progress=lambda done, total: seen.append((done, total)))
    assert bad == [] and len(store) == 6
    assert store.pixels.shape == (6, 16, 16, 3) and store.pixels.dtype == np.uint8
    np.testing.assert_array_equal(store.pixels, np.stack([noise(number) for number in range(6)]))
    assert seen == [(6, 6)]
    with pytest.raises(ValueError, match="read-only"):
        store.pixels[0] = 0


def test_the_second_call_finds_the_store(pictures: Manifest, tmp_path: Path) -> None:
    first, _ = build_store(pictures, 8, tmp_path / "cache")
    seen: list[int] = []
    again, _ = build_store(pictures, 8, tmp_path / "cache", progress=lambda done, total: seen.append(done))
    assert seen == [] and again.folder == first.folder and again.digest == first.digest


def test_a_changed_file_or_size_makes_another_store(pictures: Manifest, tmp_path: Path) -> None:
    first, _ = build_store(pictures, 8, tmp_path / "cache")
    smaller, _ = build_store(pictures, 4, tmp_path / "cache")
    Image.fromarray(noise(77)).save(tmp_path / "3.png")
    changed, _ = build_store(pictures, 8, tmp_path / "cache")
    assert len({first.digest, smaller.digest, changed.digest}) == 3
    assert len({first.folder, smaller.folder, changed.folder}) == 3
    os.utime(tmp_path / "0.png", ns=(1, 1))  # touched, but the same picture
    touched, _ = build_store(pictures, 8, tmp_path / "cache")
    assert touched.folder != changed.folder and touched.digest == changed.digest


@pytest.fixture
def many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Manifest:
    """Forty pictures in three chunks."""
    names = [f"n{number}.png" for number in range(40)]
    for number, name in enumerate(names):
        Image.fromarray(noise(number)).save(tmp_path / name)
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 1)  # gives the smallest possible chunk, 16 images
    return manifest_of(tmp_path, names)


def test_many_chunks_give_one_array(many: Manifest, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    store, _ = build_store(many, 16, tmp_path / "cache", progress=lambda done, total: seen.append((done, total)))
    np.testing.assert_array_equal(store.pixels, np.stack([noise(number) for number in range(40)]))
    assert len(seen) == 3 and seen[-1] == (40, 40)
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == [store.folder.name], "nothing else is left"


class Spy:
    """Decodes the chunks in turn and records their numbers; stops after `most` chunks like a power cut."""

    def __init__(self, most: int = 1000) -> None:
        self.most, self.numbers = most, []

    def __call__(self, wanted: Sequence[Chunk]) -> Iterator[Chunk]:
        for chunk in wanted:
            if len(self.numbers) == self.most:
                raise KeyboardInterrupt
            self.numbers.append(chunk.number)
            yield decode_chunk(chunk)


def test_an_interrupted_build_resumes(many: Manifest, tmp_path: Path) -> None:
    cut, rest = Spy(most=2), Spy()
    with pytest.raises(KeyboardInterrupt):
        build_store(many, 16, tmp_path / "cache", spread=cut)
    assert not list((tmp_path / "cache").glob("store-*"))
    seen: list[int] = []
    store, _ = build_store(many, 16, tmp_path / "cache", progress=lambda done, total: seen.append(done), spread=rest)
    assert (cut.numbers, rest.numbers, seen) == ([0, 1], [2], [40])
    assert store.digest == build_store(many, 16, tmp_path / "other")[0].digest


def test_a_chunk_that_a_power_cut_left_empty_is_decoded_again(many: Manifest, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        build_store(many, 16, tmp_path / "cache", spread=Spy(most=2))
    (first, _) = sorted((tmp_path / "cache").glob("building-*/*.arrow"))
    first.write_bytes(b"")
    rest = Spy()
    store, _ = build_store(many, 16, tmp_path / "cache", spread=rest)
    assert rest.numbers == [0, 2]
    assert store.digest == build_store(many, 16, tmp_path / "other")[0].digest


def test_a_chunk_with_a_wrong_byte_is_decoded_again(many: Manifest, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        build_store(many, 16, tmp_path / "cache", spread=Spy(most=2))
    (first, _) = sorted((tmp_path / "cache").glob("building-*/*.arrow"))
    change_byte(first, first.stat().st_size // 2)
    rest = Spy()
    store, _ = build_store(many, 16, tmp_path / "cache", spread=rest)
    assert rest.numbers == [0, 2]
    assert store.digest == build_store(many, 16, tmp_path / "other")[0].digest


def change_byte(path: Path, place: int) -> None:
    """Changes one byte of a file, and restores its modification time."""
    status = path.stat()
    with path.open("r+b") as file:
        file.seek(place)
        (byte,) = file.read(1)
        file.seek(place)
        file.write(bytes([byte ^ 1]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_a_wrong_byte_in_a_store_is_refused_by_every_reader(pictures: Manifest, tmp_path: Path) -> None:
    store, _ = build_store(pictures, 16, tmp_path / "cache")
    place = (store.folder / "images.arrow").read_bytes().index(noise(3).tobytes()) + 100
    change_byte(store.folder / "images.arrow", place)
    with pytest.raises(ArtifactError, match=r"must have the pixels .* remove the folder"):
        build_store(pictures, 16, tmp_path / "cache")
    with pytest.raises(ArtifactError, match="must have the pixels"):
        find_store(store.key, tmp_path / "cache")


def test_a_store_is_read_again_only_when_its_file_has_changed(
    pictures: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, _ = build_store(pictures, 16, tmp_path / "cache")
    verified: list[Path] = []
    usual = ImageStore.verify
    monkeypatch.setattr(ImageStore, "verify", lambda self: (verified.append(self.folder), usual(self))[1])
    build_store(pictures, 16, tmp_path / "cache")
    assert verified == []
    (store.folder / "images.arrow").touch()
    for _ in range(2):
        build_store(pictures, 16, tmp_path / "cache")
    assert verified == [store.folder], "the check is noted"
    (store.folder / "verified.json").unlink()  # as in a store that an earlier version wrote
    build_store(pictures, 16, tmp_path / "cache")
    assert verified == [store.folder] * 2


def test_a_store_without_its_header_is_built_again(pictures: Manifest, tmp_path: Path) -> None:
    store, _ = build_store(pictures, 16, tmp_path / "cache")
    (store.folder / "store.json").unlink()
    again, _ = build_store(pictures, 16, tmp_path / "cache")
    assert (again.folder, again.digest) == (store.folder, store.digest)


def test_a_size_that_another_build_makes_meanwhile_is_used(many: Manifest, tmp_path: Path) -> None:
    def meanwhile(wanted: Sequence[Chunk]) -> Iterator[Chunk]:
        build_store(many, 16, tmp_path / "cache")
        return in_threads(wanted)

    stores, _ = build_stores(many, [16, 24], tmp_path / "cache", spread=meanwhile)
    assert [store.pixels.shape[1] for store in stores] == [16, 24]
    assert stores[0].digest == build_store(many, 16, tmp_path / "other")[0].digest


def test_a_file_with_a_read_error_does_not_count_as_a_bad_image(
    pictures: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Path.read_bytes

    def fail(path: Path) -> bytes:
        if path.name == "1.png":
            raise OSError(errno.EIO, "Input/output error", str(path))
        return read(path)

    with monkeypatch.context() as broken:
        broken.setattr(Path, "read_bytes", fail)
        with pytest.raises(DataError, match=r"1\.png must be readable, but Input/output error: restore access"):
            build_store(pictures, 16, tmp_path / "cache", on_error="skip")
    assert build_store(pictures, 16, tmp_path / "cache", on_error="skip")[1] == []


def test_several_sizes_decoded_together_equal_each_size_alone(many: Manifest, tmp_path: Path) -> None:
    Image.fromarray(noise(3, 200, 300)).save(tmp_path / "n7.png")
    Image.fromarray(noise(4, 200, 300)).save(tmp_path / "photo.jpg")
    table = manifest_of(tmp_path, [*many.table.column("image").to_pylist(), "photo.jpg"])
    spy = Spy()
    together, _ = build_stores(table, [8, 16, 64], tmp_path / "cache", spread=spy)
    assert spy.numbers == [0, 1, 2]
    for size, store in zip([8, 16, 64], together, strict=True):
        alone, _ = build_store(table, size, tmp_path / "alone")
        assert store.pixels.shape == (41, size, size, 3)
        assert (store.digest, store.key) == (alone.digest, alone.key)
    spy = Spy()
    build_stores(table, [16, 32], tmp_path / "cache", spread=spy)
    assert len(list((tmp_path / "cache").glob("store-*"))) == 4, "only what is missing is decoded"


def test_verify_finds_damaged_pixels(many: Manifest, tmp_path: Path) -> None:
    store, _ = build_store(many, 16, tmp_path / "cache")
    store.verify()
    content = bytearray((store.folder / "images.arrow").read_bytes())
    content[len(content) // 2] ^= 1
    (store.folder / "images.arrow").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"must have the pixels .*remove the folder"):
        ImageStore.open(store.folder).verify()
    (store.folder / "images.arrow").write_bytes(content[:-1])
    with pytest.raises(ArtifactError, match="bytes: remove the folder"):
        ImageStore.open(store.folder)


def first_pixels(store: ImageStore) -> np.ndarray:
    return store.pixels[0].copy()


def test_a_store_is_pickled_as_its_path(pictures: Manifest, tmp_path: Path) -> None:
    store, _ = build_store(pictures, 16, tmp_path / "cache")
    message = pickle.dumps(store)
    assert len(message) < 500
    np.testing.assert_array_equal(pickle.loads(message).pixels, store.pixels)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        np.testing.assert_array_equal(pool.submit(first_pixels, store).result(), noise(0))


def test_the_shorter_side_is_scaled_and_the_centre_kept(tmp_path: Path) -> None:
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, 20:40] = (10, 200, 30)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    Image.fromarray(wide.transpose(1, 0, 2)).save(tmp_path / "high.png")
    store, _ = build_store(manifest_of(tmp_path, ["wide.png", "high.png"]), 10, tmp_path / "cache")
    # The filter also reads pixels just outside the crop, so that only the outer pixels are not quite green.
    assert (store.pixels[:, 2:-2, 2:-2] == np.array([10, 200, 30], np.uint8)).all()
    assert np.abs(store.pixels.astype(int) - [10, 200, 30]).max() < 40


def test_scaling_down_averages(tmp_path: Path) -> None:
    board = np.zeros((64, 64, 3), np.uint8)
    board[::2, ::2] = board[1::2, 1::2] = 255
    Image.fromarray(board).save(tmp_path / "board.png")
    Image.fromarray(board).save(tmp_path / "board.jpg", quality=100, subsampling=0)
    store, _ = build_store(manifest_of(tmp_path, ["board.png", "board.jpg"]), 8, tmp_path / "cache")
    assert np.abs(store.pixels.astype(int) - 127).max() <= 8


def test_orientation_and_modes_are_converted(tmp_path: Path) -> None:
    upright = np.zeros((8, 8, 3), np.uint8)
    upright[:4] = 255
    turned = Image.fromarray(np.rot90(upright).copy())
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    turned.save(tmp_path / "exif.png", exif=exif)
    Image.fromarray(upright[..., 0]).save(tmp_path / "grey.png")
    Image.fromarray(upright).convert("P").save(tmp_path / "palette.png")
    Image.fromarray(upright).convert("RGBA").save(tmp_path / "alpha.png")
    Image.fromarray(upright[..., 0].astype(np.uint16) * 257).save(tmp_path / "deep.png")
    names = ["exif.png", "grey.png", "palette.png", "alpha.png", "deep.png"]
    store, _ = build_store(manifest_of(tmp_path, names), 8, tmp_path / "cache")
    for pixels in store.pixels:
        np.testing.assert_array_equal(pixels, upright)


def exif_of(*entries: tuple[int, int, bytes]) -> bytes:
    """Packs EXIF data of (tag, type, four bytes); Pillow would not write invalid types."""
    packed = b"".join(struct.pack("<HHL", tag, kind, 1 if kind == 3 else 4) + value for tag, kind, value in entries)
    return b"Exif\0\0II*\0" + struct.pack("<LH", 8, len(entries)) + packed + struct.pack("<L", 0)


@pytest.mark.parametrize("tag", [0x011A, 0x0128, 0x0213, 0x0100])
@pytest.mark.parametrize("kind", [2, 7], ids=["ASCII", "UNDEFINED"])
def test_malformed_tags_do_not_affect_the_orientation(tag: int, kind: int, tmp_path: Path) -> None:
    turned = (0x0112, 3, struct.pack("<HH", 6, 0))
    Image.fromarray(noise(0)).save(tmp_path / "usual.jpg", exif=exif_of(turned))
    Image.fromarray(noise(0)).save(tmp_path / "odd.jpg", exif=exif_of(*sorted([turned, (tag, kind, b"abc\0")])))
    store, bad = build_store(manifest_of(tmp_path, ["odd.jpg", "usual.jpg"]), 16, tmp_path / "cache")
    assert bad == []
    np.testing.assert_array_equal(store.pixels[0], store.pixels[1])
    upright = ImageOps.exif_transpose(Image.open(tmp_path / "usual.jpg"))
    np.testing.assert_array_equal(store.pixels[1], np.asarray(upright))


def test_16_bit_images_are_scaled_and_not_clipped(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8), 0x4000, np.uint16)).save(tmp_path / "a.png")
    Image.fromarray(np.full((8, 8), 0xC000, np.uint16)).save(tmp_path / "b.png")
    store, _ = build_store(manifest_of(tmp_path, ["a.png", "b.png"]), 8, tmp_path / "cache")
    assert store.pixels[:, 0, 0, 0].tolist() == [0x40, 0xC0]


@pytest.fixture
def damaged(pictures: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manifest]:
    """Two good pictures and five damaged ones."""
    Image.fromarray(noise(9, 64, 64)).save(tmp_path / "photo.jpg")
    photo = (tmp_path / "photo.jpg").read_bytes()
    (tmp_path / "truncated.jpg").write_bytes(photo[: len(photo) // 2])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("not an image")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)  # so that a decompression bomb can be small
    Image.new("L", (200, 200)).save(tmp_path / "bomb.png")
    names = ["0.png", "truncated.jpg", "empty.png", "1.png", "text.png", "gone.png", "bomb.png"]
    yield manifest_of(tmp_path, names)


def test_bad_images_are_refused_and_the_first_ones_named(damaged: Manifest, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"5 of 7 are not: .*truncated.jpg .*data.on_error=skip") as caught:
        build_store(damaged, 16, tmp_path / "cache")
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="5 of 7"):
        build_store(damaged, 16, tmp_path / "cache")


def test_bad_images_are_skipped_and_reported_each_time(damaged: Manifest, tmp_path: Path) -> None:
    store, bad = build_store(damaged, 16, tmp_path / "cache", on_error="skip")
    assert [image.row for image in bad] == [1, 2, 4, 5, 6]
    assert all(image.reason for image in bad) and bad[3].path == str(tmp_path / "gone.png")
    assert "DecompressionBombError" in bad[4].reason
    np.testing.assert_array_equal(store.pixels, [noise(0), noise(1)])
    again, bad_again = build_store(damaged, 16, tmp_path / "cache", on_error="skip")
    assert bad_again == bad and again.digest == store.digest
    assert len(damaged.without([image.row for image in bad])) == len(store)


def test_a_dataset_without_readable_images_is_refused_even_when_skipping(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="2 of 2"):
        build_store(manifest_of(tmp_path, ["x.png", "y.png"]), 16, tmp_path / "cache", on_error="skip")


def test_a_full_disk_is_reported_before_anything_is_written(
    pictures: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    with pytest.raises(DataError, match=r"6 images of 512 by 512 .*free space"):
        build_store(pictures, 512, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def build_slowly(folder: Path, names: list[str], cache: Path, spied: Path) -> str:
    def spread(wanted: Sequence[Chunk]) -> Iterator[Chunk]:
        with spied.open("a") as file:
            file.write("built\n")
        for chunk in wanted:
            yield decode_chunk(chunk)

    return build_store(manifest_of(folder, names), 16, cache, spread=spread)[0].digest


def test_one_of_two_processes_builds_and_the_other_waits(many: Manifest, tmp_path: Path) -> None:
    names = many.table.column("image").to_pylist()
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        tasks = [pool.submit(build_slowly, tmp_path, names, tmp_path / "cache", tmp_path / "spied") for _ in range(2)]
        first, second = (task.result() for task in tasks)
    assert first == second
    assert (tmp_path / "spied").read_text() == "built\n"
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_open_refuses_other_folders(pictures: Manifest, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="must exist"):
        ImageStore.open(tmp_path)
    store, _ = build_store(pictures, 16, tmp_path / "cache")
    copy = shutil.copytree(store.folder, tmp_path / "copy")
    (copy / "images.arrow").write_bytes(b"damaged")
    with pytest.raises(ArtifactError, match="must be an image store"):
        ImageStore.open(copy)


def test_invalid_settings_are_refused(pictures: Manifest, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="size of at least 1"):
        build_store(pictures, 0, tmp_path)
    with pytest.raises(ConfigError, match=r"but got \[\]"):
        build_stores(pictures, [], tmp_path)
    with pytest.raises(ConfigError, match="'ignore'"):
        build_store(pictures, 8, tmp_path, on_error="ignore")
