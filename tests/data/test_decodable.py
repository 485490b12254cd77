"""Pictures of 16 bits a pixel are scaled by what their files say, and never by their own values."""

import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raysk.data.audit.auditing import audit
from raysk.data.audit.scanning import scan_files
from raysk.data.audit.splits import entries_of
from raysk.data.contact_sheets import draw_contact_sheet
from raysk.data.decodable import depth_of, in_eight_bits
from raysk.data.sources import DataSettings, load_manifest
from raysk.data.store.building import build_store
from raysk.data.store.decoding import decode

SIDE = 32
RAMP = np.linspace(0, 4095, SIDE * SIDE).astype(np.uint16).reshape(SIDE, SIDE)  # 12 bits
GREY = (RAMP >> 4).astype(int)


def write_png(path: Path, levels: np.ndarray, significant: bytes | None = None) -> Path:
    """Writes a PNG file of 16 bits with a chunk sBIT of these bytes."""
    Image.fromarray(levels).save(path)
    if significant is not None:
        content = path.read_bytes()
        chunk = struct.pack(">I", len(significant)) + b"sBIT" + significant
        chunk += struct.pack(">I", zlib.crc32(b"sBIT" + significant))
        path.write_bytes(content[:33] + chunk + content[33:])
    return path


def write_tiff(path: Path, levels: np.ndarray) -> Path:
    """Writes a TIFF file of 12 bits a pixel: two pixels in three bytes."""
    first, second = levels.reshape(-1, 2).T.astype(int)
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], axis=-1).astype(np.uint8).tobytes()
    height, width = levels.shape
    entries = [(256, 4, width), (257, 4, height), (258, 3, 12), (259, 3, 1), (262, 3, 1), (273, 4, 8),
               (277, 3, 1), (278, 4, height), (279, 4, len(packed))]  # fmt: skip
    table = struct.pack("<H", len(entries)) + b"".join(
        struct.pack("<HHII", tag, kind, 1, v) for tag, kind, v in entries
    )
    path.write_bytes(b"II*\0" + struct.pack("<I", 8 + len(packed)) + packed + table + struct.pack("<I", 0))
    return path


def error_of(path: Path, levels: np.ndarray) -> float:
    """Returns the mean error of the decoded pixels and of the audit's picture."""
    pixels = decode(path, [SIDE])
    assert not isinstance(pixels, str), pixels
    mean = scan_files([path]).pictures[0].mean()
    return max(float(np.abs(pixels[0][..., 0].astype(int) - levels).mean()), abs(mean - levels.mean()))


def test_a_tiff_file_of_12_bits_is_not_black(tmp_path: Path) -> None:
    assert error_of(write_tiff(tmp_path / "a.tif", RAMP), GREY) < 2
    assert error_of(write_tiff(tmp_path / "dark.tif", RAMP // 16 * 2), GREY // 8) < 2, "a dark picture stays dark"


def test_a_png_file_that_holds_12_bits_unscaled_is_not_black(tmp_path: Path) -> None:
    assert error_of(write_png(tmp_path / "a.png", RAMP, b"\x0c"), GREY) < 2
    assert error_of(write_png(tmp_path / "dark.png", RAMP // 8, b"\x0c"), GREY // 8) < 2, "a dark picture stays dark"


def test_a_png_file_whose_12_bits_are_scaled_keeps_its_levels(tmp_path: Path) -> None:
    for name, scaled in (("shifted", RAMP << 4), ("stretched", np.round(RAMP * (65535 / 4095)).astype(np.uint16))):
        assert error_of(write_png(tmp_path / f"{name}.png", scaled, b"\x0c"), GREY) < 2
        dark = write_png(tmp_path / f"dark {name}.png", np.where(scaled < 4096, scaled, 0).astype(np.uint16), b"\x0c")
        pixels = decode(dark, [SIDE])
        assert not isinstance(pixels, str) and pixels[0].max() < 16, "a dark picture stays dark"


@pytest.mark.parametrize("significant", [None, b"\x10", b"\x00", b"\x40", b""])
def test_without_a_valid_statement_all_16_bits_count(tmp_path: Path, significant: bytes | None) -> None:
    path = write_png(tmp_path / "a.png", RAMP * 16, significant)
    assert error_of(path, GREY) < 2
    with Image.open(path) as image:
        assert depth_of(image).bits == 16
        np.testing.assert_array_equal(np.asarray(in_eight_bits(image, depth_of(image))), GREY)


def test_fewer_than_8_bits_fill_the_whole_range(tmp_path: Path) -> None:
    levels = (RAMP >> 8).astype(np.uint16)  # 4 bits
    assert error_of(write_png(tmp_path / "a.png", levels, b"\x04"), levels.astype(int) * 17) < 2


def test_the_setting_gives_the_bits_where_the_file_states_none(tmp_path: Path) -> None:
    path = write_png(tmp_path / "a.png", RAMP)
    Image.fromarray(RAMP // 16 * 2).save(tmp_path / "dark.tif")  # a TIFF file of 16 bits that holds 12
    for file, levels in ((path, GREY), (tmp_path / "dark.tif", GREY // 8)):
        pixels = decode(file, [SIDE], bits=12)
        assert not isinstance(pixels, str) and np.abs(pixels[0][..., 0].astype(int) - levels).mean() < 2
        assert abs(scan_files([file], bits=12).pictures[0].mean() - levels.mean()) < 2
    stated = write_png(tmp_path / "stated.png", RAMP >> 2, b"\x0a")
    pixels = decode(stated, [SIDE], bits=12)
    assert not isinstance(pixels, str) and abs(pixels[0].mean() - GREY.mean()) < 2, "what the file states counts"


def test_a_level_that_needs_more_bits_than_the_setting_is_refused(tmp_path: Path) -> None:
    path = write_png(tmp_path / "a.png", RAMP * 2)
    assert decode(path, [SIDE], bits=12) == "ValueError: level 8190 needs more bits than data.bits=12: raise data.bits"


def test_the_setting_reaches_the_store_the_manifest_and_the_audit(tmp_path: Path) -> None:
    for number in range(4):
        write_png(tmp_path / f"{number}.png", np.rot90(RAMP, number))
    (tmp_path / "t.csv").write_text("image,label\n0.png,a\n1.png,b\n2.png,a\n3.png,b\n")
    plain = DataSettings(source="csv", path=str(tmp_path / "t.csv"))
    shallow = load_manifest(replace(plain, bits=12), tmp_path)
    dark, _ = build_store(load_manifest(plain, tmp_path), SIDE, tmp_path / "cache")
    store, _ = build_store(shallow, SIDE, tmp_path / "cache")
    assert dark.pixels.max() < 16 and store.pixels.max() > 240
    shallow.write(tmp_path / "manifest.parquet")
    again = load_manifest(DataSettings(source="parquet", path=str(tmp_path / "manifest.parquet")), tmp_path)
    assert again.bits == 12 and again.digest == shallow.digest != load_manifest(plain, tmp_path).digest
    sheet = tmp_path / "sheet.png"
    draw_contact_sheet(again, 0, sheet)
    assert np.asarray(Image.open(sheet).crop((8, 40, 168, 190)))[..., 0].mean() > 60
    assert audit(entries_of(again)).num_compared == 4 and audit(entries_of(load_manifest(plain, tmp_path))).findings
