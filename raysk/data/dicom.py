"""Reads DICOM files (extra `dicom`) as pictures of 8 bits, with the grey levels that the file defines."""

import re
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Levels = npt.NDArray[np.generic]
Floats = npt.NDArray[np.float64]

_MARK = slice(128, 132)  # where a DICOM file says that it is one


def is_dicom(content: bytes) -> bool:
    """Returns whether a file of this content, or with this beginning, is a DICOM file."""
    return content[_MARK] == b"DICM"


def read_dicom(content: bytes, most_pixels: int) -> Image.Image:
    """Returns the picture of a DICOM file, grey or RGB with 8 bits.

    Grey levels are rescaled and windowed as the file says; without a window, the whole range of its bits counts. The
    scale never follows from the values of one picture: a dark picture stays dark.

    Args:
        content: The bytes of the file.
        most_pixels: A larger picture is refused before it is decoded.

    Raises:
        ValueError: pydicom or a decoder is missing, or the file is damaged or does not hold one picture.
    """
    try:
        import pydicom
        from pydicom.pixels import pixel_array
    except ImportError as error:
        raise ValueError("a DICOM file needs pydicom: pip install 'raysk[dicom]'") from error
    try:
        dataset = pydicom.dcmread(BytesIO(content))
        _check_picture(dataset, most_pixels)
        _check_decoder(dataset)
        return Image.fromarray(_in_eight_bits(dataset, pixel_array(dataset)))
    except Exception as error:  # pydicom has no class for the many errors that a damaged file raises
        reason = str(error).split("\n", 1)[0]
        raise ValueError(f"a DICOM file that cannot be read: {reason}") from error


def _check_picture(dataset: Any, most_pixels: int) -> None:
    if "PixelData" not in dataset:
        raise ValueError(
            f"it has no picture of integers (it is a {dataset.get('Modality') or 'file without modality'})"
        )
    num_frames = int(dataset.get("NumberOfFrames") or 1)
    if num_frames != 1:
        raise ValueError(f"it has {num_frames} frames: save the one that counts")
    if dataset.Rows * dataset.Columns > most_pixels:
        raise ValueError(f"{dataset.Columns} by {dataset.Rows} pixels are more than {most_pixels:,}: save it smaller")


def _check_decoder(dataset: Any) -> None:
    """Refuses a compressed picture that no installed package decodes, and names the packages to install."""
    from pydicom.pixels import get_decoder

    syntax = dataset.file_meta.TransferSyntaxUID
    decoder = get_decoder(syntax)
    if not decoder.is_available:
        # Such as "pylibjpeg - requires pylibjpeg>=2.0 and pylibjpeg-libjpeg>=2.1".
        needed = next(text for text in decoder.missing_dependencies if text.startswith("pylibjpeg "))
        packages = re.findall(r"([\w-]+)>=", needed)
        raise ValueError(f"its compression, {syntax.name}, needs a decoder: pip install {' '.join(packages)}")


def _in_eight_bits(dataset: Any, stored: Levels) -> npt.NDArray[np.uint8]:
    """Returns the levels of a picture, (H, W) or (H, W, 3), between black and white as the file defines them."""
    from pydicom.pixels import apply_color_lut, apply_modality_lut

    kind = dataset.PhotometricInterpretation
    if kind == "PALETTE COLOR":
        colours = apply_color_lut(stored, dataset)
        bits = 8 * colours.dtype.itemsize
        return (colours[..., :3] >> (bits - 8)).astype(np.uint8)
    if kind not in ("MONOCHROME1", "MONOCHROME2"):  # pydicom has turned YBR into RGB
        if stored.ndim != 3 or stored.shape[2] != 3:
            raise ValueError(f"its photometric interpretation must be grey or colour, but is {kind}")
        share = stored.astype(np.float64) / (2**dataset.BitsStored - 1)
    else:
        share = _share_of_white(dataset, np.asarray(apply_modality_lut(stored, dataset), np.float64))
        share = 1 - share if kind == "MONOCHROME1" else share
    return np.rint(255 * np.clip(share, 0, 1)).astype(np.uint8)


def _share_of_white(dataset: Any, levels: Floats) -> Floats:
    """Returns grey levels, rescaled already, as shares from the black to the white of the file's first window.

    DICOM PS3.3, C.11.2: the table of values of interest, else the window, else the range of the stored bits.
    """
    if "VOILUTSequence" in dataset:
        from pydicom.pixels import apply_voi

        bits = int(dataset.VOILUTSequence[0].LUTDescriptor[2])
        return np.asarray(apply_voi(levels.astype(np.int64), dataset), np.float64) / (2**bits - 1)
    if dataset.get("WindowCenter") is None or dataset.get("WindowWidth") is None:
        low, high = _range_of_bits(dataset)
        return (levels - low) / max(high - low, 1e-9)
    centre, width = (float(np.atleast_1d(dataset[name].value)[0]) for name in ("WindowCenter", "WindowWidth"))
    function = dataset.get("VOILUTFunction") or "LINEAR"
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (levels - centre) / width, -500, 500)))
    if function == "LINEAR_EXACT":
        return (levels - centre) / width + 0.5
    return (levels - (centre - 0.5)) / max(width - 1, 1e-9) + 0.5


def _range_of_bits(dataset: Any) -> tuple[float, float]:
    """Returns the least and the largest level that the stored bits can have, after rescaling."""
    if "ModalityLUTSequence" in dataset:
        return 0.0, 2.0 ** int(dataset.ModalityLUTSequence[0].LUTDescriptor[2]) - 1
    bits = int(dataset.BitsStored)
    signed = dataset.PixelRepresentation == 1
    ends = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    slope, intercept = float(dataset.get("RescaleSlope", 1)), float(dataset.get("RescaleIntercept", 0))
    low, high = sorted(slope * end + intercept for end in ends)
    return low, high
