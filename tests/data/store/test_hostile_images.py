"""Images of every mode are decoded correctly; other files are refused with their name and the reason."""

import io
import os
import struct
import threading
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from raysk.data.audit.scanning import PICTURE_SIDE, scan_files
from raysk.data.manifest import make_manifest
from raysk.data.store.building import build_store
from raysk.errors import DataError

SIDE = 64
# Darker to the left, and black in the lower left quarter, so that every rotation is visible.
RAMP = np.tile(np.linspace(0.2, 1, SIDE), (SIDE, 1))
RAMP[SIDE // 2 :, : SIDE // 2] = 0
GREY = (RAMP * 255).astype(np.uint8)
RGB = np.stack([GREY] * 3, axis=-1)
RGBA = np.concatenate([RGB, np.full((SIDE, SIDE, 1), 255, np.uint8)], axis=-1)


def turned_by_tag(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    Image.fromarray(RGB).transpose(Image.Transpose.ROTATE_90).save(path, quality=95, exif=exif)


MODES: dict[str, Callable[[Path], object]] = {
    "rgb.png": lambda path: Image.fromarray(RGB).save(path),
    "grey.jpg": lambda path: Image.fromarray(GREY).save(path, quality=95),
    "16 bits.png": lambda path: Image.fromarray((RAMP * 65535).astype(np.uint16)).save(path),
    "16 bits.tif": lambda path: Image.fromarray((RAMP * 65535).astype(np.uint16)).save(path),
    "cmyk.jpg": lambda path: Image.fromarray(RGB).convert("CMYK").save(path, quality=95),
    "palette.png": lambda path: Image.fromarray(RGB).quantize(128).save(path),
    "palette.gif": lambda path: Image.fromarray(GREY).save(path),
    "alpha.png": lambda path: Image.fromarray(RGBA).save(path),
    "grey alpha.png": lambda path: Image.fromarray(RGBA).convert("LA").save(path),
    "turned.jpg": turned_by_tag,
    "Läsion 病变.webp": lambda path: Image.fromarray(RGB).save(path, quality=95),
}


@pytest.mark.parametrize("name", MODES)
def test_every_mode_gives_the_same_pixels(tmp_path: Path, name: str) -> None:
    MODES[name](tmp_path / name)
    Image.fromarray(RGB).save(tmp_path / "plain.bmp")
    store, bad = build_store(make_manifest([name, "plain.bmp"], ["a", "b"], root=tmp_path), SIDE, tmp_path / "cache")
    assert bad == []
    assert np.abs(store.pixels[0].astype(int) - RGB).mean() < 3
    np.testing.assert_array_equal(store.pixels[1], RGB)
    scan = scan_files([tmp_path / name, tmp_path / "plain.bmp"])
    assert scan.reasons == ["", ""] and scan.sizes.tolist() == [[SIDE, SIDE]] * 2
    stored = np.rot90(scan.pictures[1]) if name == "turned.jpg" else scan.pictures[1]
    assert np.abs(scan.pictures[0].astype(int) - stored).mean() < 4


def huge_png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


def encoded(image: Image.Image, kind: str) -> bytes:
    content = io.BytesIO()
    image.save(content, kind)
    return content.getvalue()


JPEG = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)), "JPEG")
REFUSED = {
    "empty.jpg": (b"", ""),
    "cut off.jpg": (JPEG[: len(JPEG) // 2], "truncated"),
    "text.png": (b"<html>404</html>", "cannot identify"),
    "bomb.png": (huge_png(20_000, 20_000), "exceeds limit"),
    "wide.png": (huge_png(20_000, 5_000), "20000 by 5000 pixels are more than"),
    "32 bits.tif": (encoded(Image.fromarray((RAMP * 65535).astype(np.int32)), "TIFF"), "which level is white"),
    "floating.tif": (encoded(Image.fromarray(RAMP.astype(np.float32)), "TIFF"), "which level is white"),
}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("name", REFUSED)
def test_unreadable_files_are_refused_by_name(tmp_path: Path, name: str) -> None:
    content, reason = REFUSED[name]
    (tmp_path / name).write_bytes(content)
    Image.fromarray(RGB).save(tmp_path / "plain.bmp")
    manifest = make_manifest([name, "plain.bmp"], ["a", "b"], root=tmp_path)
    with pytest.raises(DataError, match=f"1 of 2 are not: .*{name}.*{reason}.*data.on_error=skip"):
        build_store(manifest, SIDE, tmp_path / "cache")
    (bad,) = build_store(manifest, SIDE, tmp_path / "cache", on_error="skip")[1]
    assert bad.row == 0 and reason in bad.reason
    scan = scan_files([tmp_path / name, tmp_path / "plain.bmp"])
    assert reason in scan.reasons[0] and scan.readable.tolist() == [False, True] and not scan.pictures[0].any()


def test_links_are_followed_and_broken_links_count_as_missing(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "plain.png")
    (tmp_path / "link.png").symlink_to("plain.png")
    (tmp_path / "broken.png").symlink_to("absent.png")
    (tmp_path / "round.png").symlink_to("round.png")
    os.mkfifo(tmp_path / "pipe.png")
    scan = scan_files([tmp_path / f"{name}.png" for name in ("plain", "link", "broken", "round", "pipe")])
    assert scan.digests[0] == scan.digests[1] != ""
    assert scan.reasons == ["", "", *["there is no such file"] * 3]


def test_a_pipe_is_refused_by_name_and_not_waited_for(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "plain.png")
    os.mkfifo(tmp_path / "pipe.png")
    manifest = make_manifest(["pipe.png", "plain.png"], ["a", "b"], root=tmp_path)
    reasons: list[str] = []

    def build() -> None:
        with pytest.raises(DataError, match=r"1 of 2 are not: .*pipe\.png.*not a regular file") as caught:
            build_store(manifest, SIDE, tmp_path / "cache")
        reasons.append(str(caught.value))

    thread = threading.Thread(target=build, daemon=True)
    thread.start()
    thread.join(60)
    assert reasons, "the pipe was waited for"


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["PNG", "JPEG", "BMP", "GIF", "WEBP"]), st.data())
def test_a_damaged_file_is_read_or_refused_but_never_raises(
    tmp_path_factory: pytest.TempPathFactory, kind: str, data: st.DataObject
) -> None:
    content = bytearray(encoded(Image.fromarray(RGB), kind))
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=5)):
        content[place] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "image"
    path.write_bytes(bytes(content[: data.draw(st.integers(0, len(content)))]))
    scan = scan_files([path])
    assert scan.pictures.shape == (1, PICTURE_SIDE, PICTURE_SIDE)
    assert bool(scan.reasons[0]) is not bool(scan.readable[0])
