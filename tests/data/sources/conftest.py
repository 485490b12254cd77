"""Small collections in the layout of their publishers."""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raysk.data.manifest import Manifest
from raysk.data.sources import DataSettings, load_manifest


@pytest.fixture
def write_images() -> Callable[..., None]:
    """Writes a small image, each in a different colour, to each path below a folder."""

    def write(folder: Path, paths: Sequence[str]) -> None:
        for number, path in enumerate(paths):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            colour = np.random.default_rng(number).integers(0, 255, 3, dtype=np.uint8)
            Image.fromarray(np.full((6, 8, 3), colour)).save(folder / path)

    return write


@pytest.fixture
def write_table() -> Callable[..., Path]:
    """Writes a CSV table of lines; the first line is the header."""

    def write(path: Path, *lines: str) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(line.split(",") for line in lines)
        return path

    return write


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Manifest]:
    """Loads a collection with a separate cache."""

    def of(source: str, path: Path, **settings: object) -> Manifest:
        return load_manifest(
            DataSettings.from_plain({"source": source, "path": str(path), **settings}), tmp_path / "cache"
        )

    return of
