"""DICOM files have the grey levels that they define."""

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit, JPEGLSLossless, generate_uid

from raysk.data.audit.scanning import scan_files
from raysk.data.sources import DataSettings, load_manifest
from raysk.data.store.decoding import decode

SIDE = 32
RAMP = np.linspace(0, 1, SIDE * SIDE).reshape(SIDE, SIDE)
GREY = 255 * RAMP


def write_dicom(path: Path, levels: np.ndarray, kind: str = "MONOCHROME2", bits: int = 8, **elements: object) -> Path:
    """Writes a DICOM file of these stored levels, (H, W) or (H, W, 3)."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = elements.pop("syntax", ExplicitVRLittleEndian)
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", generate_uid()
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.Rows, dataset.Columns = levels.shape[:2]
    dataset.SamplesPerPixel = 3 if levels.ndim == 3 else 1
    if levels.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.PhotometricInterpretation = kind
    dataset.BitsAllocated = 8 if bits <= 8 else 16
    dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = bits, bits - 1, int(levels.min() < 0)
    stored = levels.astype(np.int64).astype(f"<u{dataset.BitsAllocated // 8}")
    dataset.PixelData = elements.pop("content", stored.tobytes())
    for name, value in elements.items():
        setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=True)
    return path


def pixels_of(path: Path) -> np.ndarray:
    pixels = decode(path, [SIDE])
    assert not isinstance(pixels, str), pixels
    assert abs(scan_files([path]).pictures[0].mean() - np.asarray(Image.fromarray(pixels[0]).convert("L")).mean()) < 2
    return pixels[0].astype(int)


def is_grey(path: Path, grey: np.ndarray) -> bool:
    return bool(np.abs(pixels_of(path) - grey[..., None]).max() <= 1)


def test_grey_levels_fill_the_stored_bits(tmp_path: Path) -> None:
    assert is_grey(write_dicom(tmp_path / "8.dcm", np.rint(GREY)), GREY)
    assert is_grey(write_dicom(tmp_path / "12.dcm", np.rint(RAMP * 4095), bits=12), GREY)
    assert is_grey(write_dicom(tmp_path / "16.dcm", np.rint(RAMP * 65535), bits=16), GREY)
    assert is_grey(write_dicom(tmp_path / "signed.dcm", np.rint(RAMP * 4095 - 2048), bits=12), GREY)
    dark = write_dicom(tmp_path / "dark.dcm", np.rint(RAMP * 400), bits=12)
    assert is_grey(dark, GREY * 400 / 4095), "a dark picture stays dark"


def test_white_is_the_least_level_of_monochrome1(tmp_path: Path) -> None:
    assert is_grey(write_dicom(tmp_path / "a.dcm", np.rint(RAMP * 4095), "MONOCHROME1", 12), 255 - GREY)


def test_levels_are_rescaled_and_windowed_as_the_file_says(tmp_path: Path) -> None:
    rescaled = {"RescaleSlope": 2, "RescaleIntercept": -1000}
    levels = np.rint(RAMP * 4095)
    assert is_grey(write_dicom(tmp_path / "rescaled.dcm", levels, bits=12, **rescaled), GREY)
    hounsfield = 2 * levels - 1000
    window = {"WindowCenter": [40, 300], "WindowWidth": [400, 1500]}  # the first window counts
    expected = 255 * np.clip((hounsfield - 39.5) / 399 + 0.5, 0, 1)
    assert is_grey(write_dicom(tmp_path / "window.dcm", levels, bits=12, **rescaled, **window), expected)
    inverted = write_dicom(tmp_path / "inverted.dcm", levels, "MONOCHROME1", 12, **rescaled, **window)
    assert is_grey(inverted, 255 - expected)
    exact = write_dicom(tmp_path / "exact.dcm", levels, bits=12, **rescaled, **window, VOILUTFunction="LINEAR_EXACT")
    assert is_grey(exact, 255 * np.clip((hounsfield - 40) / 400 + 0.5, 0, 1))
    sigmoid = write_dicom(tmp_path / "sigmoid.dcm", levels, bits=12, **rescaled, **window, VOILUTFunction="SIGMOID")
    assert is_grey(sigmoid, 255 / (1 + np.exp(-4 * (hounsfield - 40) / 400)))


def test_a_table_of_values_of_interest_maps_the_levels(tmp_path: Path) -> None:
    table = Dataset()
    table.LUTDescriptor = [256, 0, 8]
    table.add_new("LUTData", "US", [255 - level for level in range(256)])
    path = write_dicom(tmp_path / "a.dcm", np.rint(GREY), VOILUTSequence=[table])
    assert is_grey(path, 255 - GREY)


def test_colours_are_kept(tmp_path: Path) -> None:
    colours = np.stack([GREY, 255 - GREY, GREY.T], axis=-1)
    assert np.abs(pixels_of(write_dicom(tmp_path / "a.dcm", np.rint(colours), "RGB")) - colours).max() <= 1
    deep = write_dicom(tmp_path / "deep.dcm", np.rint(colours / 255 * 65535), "RGB", 16)
    assert np.abs(pixels_of(deep) - colours).max() <= 1


def test_a_compressed_picture_is_decoded_or_names_what_to_install(tmp_path: Path) -> None:
    content = io.BytesIO()
    Image.fromarray(np.rint(GREY).astype(np.uint8)).save(content, "JPEG", quality=95)
    packed = encapsulate([content.getvalue()])
    path = write_dicom(tmp_path / "a.dcm", np.rint(GREY), syntax=JPEGBaseline8Bit, content=packed)
    assert np.abs(pixels_of(path) - GREY[..., None]).mean() < 3
    unknown = write_dicom(tmp_path / "b.dcm", np.rint(GREY), syntax=JPEGLSLossless, content=packed)
    reason = decode(unknown, [SIDE])
    if isinstance(reason, str):  # unless the machine has a decoder
        assert reason.endswith("needs a decoder: pip install pylibjpeg pylibjpeg-libjpeg") and "JPEG-LS" in reason


def test_what_is_no_single_picture_is_refused_in_one_line(tmp_path: Path) -> None:
    frames = write_dicom(tmp_path / "frames.dcm", np.rint(GREY), NumberOfFrames=2, content=b"\0" * 2 * SIDE * SIDE)
    large = write_dicom(tmp_path / "large.dcm", np.rint(GREY), Rows=60_000, Columns=60_000)
    short = write_dicom(tmp_path / "short.dcm", np.rint(GREY), content=b"\0" * 100)
    broken = tmp_path / "broken.dcm"
    broken.write_bytes(short.read_bytes()[:200])
    table = write_dicom(tmp_path / "table.dcm", np.rint(GREY))
    for path, words in ((frames, "2 frames"), (large, "60000 by 60000"), (short, ""), (broken, ""), (table, None)):
        reason = decode(path, [SIDE])
        assert (words is None) == (not isinstance(reason, str)), path
        if isinstance(reason, str):
            assert reason.startswith("ValueError: a DICOM file that cannot be read: ") and "\n" not in reason
            assert str(words) in reason
            assert scan_files([path]).reasons[0] == reason


def test_without_pydicom_the_reason_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_dicom(tmp_path / "a.dcm", np.rint(GREY))
    monkeypatch.setitem(sys.modules, "pydicom", None)
    assert decode(path, [SIDE]) == "ValueError: a DICOM file needs pydicom: pip install 'raysk[dicom]'"


def test_a_folder_of_dicom_files_is_a_collection(tmp_path: Path) -> None:
    for number, label in enumerate(("mel", "nv")):
        (tmp_path / label).mkdir()
        write_dicom(tmp_path / label / f"{number}.dcm", np.rint(GREY))
    manifest = load_manifest(DataSettings(source="folder", path=str(tmp_path)), tmp_path)
    assert manifest.table.column("image").to_pylist() == ["mel/0.dcm", "nv/1.dcm"]
